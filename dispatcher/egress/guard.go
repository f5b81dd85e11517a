package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"code.dny.dev/ssrf"
)

// errAddressNotAllowed stops a dial. It does not name the address, so that nobody who sees it can map the network.
var errAddressNotAllowed = errors.New("the address is not allowed")

// guard decides which addresses may be dialled: none that IANA lists as special, for IPv6 none outside global unicast,
// unless a range was allowed, and never one that was denied.
//
// An address is judged by what it leads to: an IPv4 address mapped into IPv6 (::ffff:0:0/96) as the IPv4 address, and
// one of the NAT64 prefix (64:ff9b::/96, RFC 6052) as the IPv4 address it embeds, because a gateway that translates it
// connects there. So public endpoints can be reached from an IPv6-only network by default, and its loopback or private
// ones cannot.
type guard struct {
	denied  []netip.Prefix
	special *ssrf.Guardian // special addresses, and the ranges allowed in spite of that
}

func newGuard(allowed, denied []netip.Prefix) (*guard, error) {
	var v4, v6 []netip.Prefix
	for _, prefix := range allowed {
		prefix, err := unmapped(prefix)
		if err != nil {
			return nil, fmt.Errorf("allowed CIDR: %w", err)
		}
		if prefix.Addr().Is4() {
			v4 = append(v4, prefix)
		} else {
			v6 = append(v6, prefix)
		}
	}
	g := &guard{
		special: ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...)),
	}
	for _, prefix := range denied {
		prefix, err := unmapped(prefix)
		if err != nil {
			return nil, fmt.Errorf("denied CIDR: %w", err)
		}
		g.denied = append(g.denied, prefix)
	}
	return g, nil
}

// unmapped returns prefix, as an IPv4 one if it lies within ::ffff:0:0/96.
func unmapped(prefix netip.Prefix) (netip.Prefix, error) {
	const mappedBits = 96
	if !prefix.IsValid() {
		return netip.Prefix{}, errors.New("want an address, a slash and a number of bits")
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= mappedBits {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-mappedBits)
	}
	return prefix.Masked(), nil
}

// control is a net.Dialer's Control: it sees each address that a name resolved to, right before it is connected to.
func (g *guard) control(network, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil || (network != "tcp4" && network != "tcp6") || !g.allows(target.Addr()) {
		return errAddressNotAllowed
	}
	return nil
}

// allows tells whether a may be dialled. The denied ranges come first: package ssrf would ask for the allowed ones
// before.
func (g *guard) allows(a netip.Addr) bool {
	a = a.Unmap().WithZone("") // no prefix contains an address with a zone
	for _, prefix := range g.denied {
		if prefix.Contains(a) {
			return false
		}
	}
	if ssrf.IPv6NAT64Prefix.Contains(a) {
		raw := a.As16()
		return g.allows(netip.AddrFrom4([4]byte(raw[12:])))
	}
	return g.special.SafeAddr(a) == nil
}
