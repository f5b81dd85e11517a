package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"code.dny.dev/ssrf"
)

// Neither error names the address, so that nobody who sees it can map the network.
var (
	errAddressNotAllowed = errors.New("the address is not allowed")
	errPortNotAllowed    = errors.New("the port is not allowed")
)

// Rule is where one tenant's deliveries may go beside what all may reach.
type Rule struct {
	// Hosts that the rule holds for; every host if there are none.
	Hosts Hosts
	// Prefixes may be reached although they are private or special.
	Prefixes []netip.Prefix
	// Ports that the rule holds for, also those below 1024; all that are not denied by default if there are none.
	Ports []uint16
}

// guard decides which addresses may be dialled. What is denied comes first, whatever allows it:
//   - metadata services of clouds and what means "this machine", see never;
//   - the dispatcher's own addresses, and on loopback its own ports;
//   - what is denied at run time: the API server;
//   - the operator's denied ranges.
//
// Else an address is allowed if it is public, or lies in a range that is allowed for all, or for the tenant by a rule.
// Public is what IANA does not list as special, for IPv6 within global unicast.
//
// An address is judged by what it leads to: an IPv4 address mapped into IPv6 (::ffff:0:0/96) as the IPv4 address, and
// one of the NAT64 prefix (64:ff9b::/96, RFC 6052) as the IPv4 address it embeds, because a gateway that translates it
// connects there. So public endpoints can be reached from an IPv6-only network by default, and its loopback or private
// ones cannot. What is denied is denied in every form that embeds it.
//
// Below 1024 only ports 80 and 443 are dialled, unless a rule or the operator names the port.
type guard struct {
	denied, allowed []netip.Prefix
	ports           map[uint16]bool // below 1024, allowed for all
	plaintext       bool            // http is allowed
	minTLS          uint16          // of https; 0 for TLS 1.2
	special         *ssrf.Guardian
	own             func() []netip.Addr
	ownPorts        func() []uint16
	more            func() []netip.AddrPort
}

// firstFreePort is the least port that is not reserved for system services (RFC 6335, section 6).
const firstFreePort = 1024

func newGuard(o Options) (*guard, error) {
	g := &guard{
		special: ssrf.New(ssrf.WithAnyPort()), plaintext: o.AllowHTTP, minTLS: o.MinTLS,
		ports: map[uint16]bool{80: true, 443: true},
		own:   o.OwnAddresses, ownPorts: o.OwnPorts, more: o.Denied,
	}
	if g.own == nil {
		g.own = interfaces.addresses
	}
	for _, port := range o.AllowedPorts {
		g.ports[port] = true
	}
	var err error
	if g.allowed, err = unmappedAll(o.AllowedCIDRs); err != nil {
		return nil, fmt.Errorf("allowed CIDR: %w", err)
	}
	if g.denied, err = unmappedAll(o.DeniedCIDRs); err != nil {
		return nil, fmt.Errorf("denied CIDR: %w", err)
	}
	return g, nil
}

func unmappedAll(all []netip.Prefix) ([]netip.Prefix, error) {
	made := make([]netip.Prefix, 0, len(all))
	for _, prefix := range all {
		prefix, err := unmapped(prefix)
		if err != nil {
			return nil, err
		}
		made = append(made, prefix)
	}
	return made, nil
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

// control is a net.Dialer's Control under the given rules: it sees each address right before it is connected to.
func (g *guard) control(rules []Rule) func(network, address string, _ syscall.RawConn) error {
	return func(network, address string, _ syscall.RawConn) error {
		target, err := netip.ParseAddrPort(address)
		if err != nil || (network != "tcp4" && network != "tcp6") {
			return errAddressNotAllowed
		}
		return g.judge(target, rules)
	}
}

// judge returns an error if target may not be dialled under the rules, whose prefixes are unmapped.
func (g *guard) judge(target netip.AddrPort, rules []Rule) error {
	a, port := target.Addr().Unmap().WithZone(""), target.Port() // no prefix contains an address with a zone
	for _, face := range faces(a) {
		if g.denies(face, port) {
			return errAddressNotAllowed
		}
	}
	if ssrf.IPv6NAT64Prefix.Contains(a) {
		raw := a.As16()
		a = netip.AddrFrom4([4]byte(raw[12:]))
	}
	reachable := contains(g.allowed, a) || g.special.SafeAddr(a) == nil
	portFree := port >= firstFreePort || g.ports[port]
	named := false // by a rule, but for other ports
	for _, rule := range rules {
		if !contains(rule.Prefixes, a) {
			continue
		}
		switch {
		case slices.Contains(rule.Ports, port):
			return nil
		case len(rule.Ports) == 0:
			reachable = true
		default:
			named = true
		}
	}
	switch {
	case reachable && portFree:
		return nil
	case reachable || named:
		return errPortNotAllowed
	default:
		return errAddressNotAllowed
	}
}

// denies reports whether a is denied whatever allows it.
func (g *guard) denies(a netip.Addr, port uint16) bool {
	if contains(never, a) || contains(g.denied, a) {
		return true
	}
	if a.IsLoopback() {
		if g.ownPorts != nil && slices.Contains(g.ownPorts(), port) {
			return true
		}
	} else if slices.ContainsFunc(g.own(), func(own netip.Addr) bool { return own.Unmap().WithZone("") == a }) {
		return true
	}
	return g.more != nil && slices.ContainsFunc(g.more(), func(denied netip.AddrPort) bool {
		return denied.Addr().Unmap().WithZone("") == a && (denied.Port() == 0 || denied.Port() == port)
	})
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, prefix := range prefixes {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}
