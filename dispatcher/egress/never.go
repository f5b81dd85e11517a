package egress

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// never may be dialled, whatever allows it: a delivery there would be taken for the dispatcher's own, or for its
// machine's. Metadata services give credentials to whoever asks from the machine.
var never = mustPrefixes(
	"0.0.0.0/8", "::/128", // "this host", which some systems connect to loopback (RFC 1122, section 3.2.1.3)
	"169.254.0.0/16",         // link-local: metadata of AWS, Azure, GCP, DigitalOcean, OpenStack, Oracle and others
	"168.63.129.16/32",       // Azure's wire server
	"100.100.100.200/32",     // Alibaba Cloud
	"192.0.0.192/32",         // Oracle Cloud, classic
	"fd00:ec2::/32",          // AWS, with EKS Pod Identity and time
	"fd20:ce::254/128",       // Google Cloud
	"fd00:c1::a9fe:a9fe/128", // Oracle Cloud
	"fd00:42::42/128",        // Scaleway
	"fe80::a9fe:a9fe/128",    // OpenStack
)

func mustPrefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// The ranges of IPv6 that lead to an IPv4 address, and where in an address that stands.
var (
	embeddedLast = mustPrefixes(
		"::/96",           // IPv4-compatible (RFC 4291, section 2.5.5.1)
		"64:ff9b::/96",    // NAT64 (RFC 6052)
		"64:ff9b:1::/48",  // NAT64 of a network, with a prefix of 96 bits (RFC 8215)
		"::ffff:0:0:0/96", // IPv4-translated (RFC 2765)
	)
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour  = netip.MustParsePrefix("2002::/16") // RFC 3056
	teredo     = netip.MustParsePrefix("2001::/32") // RFC 4380
)

// faces returns a, and the IPv4 addresses that it may lead to.
func faces(a netip.Addr) []netip.Addr {
	all := append(make([]netip.Addr, 0, 4), a)
	if a.Is4() || a.IsLoopback() || a.IsUnspecified() {
		return all
	}
	raw := a.As16()
	if contains(embeddedLast, a) {
		all = append(all, netip.AddrFrom4([4]byte(raw[12:])))
	}
	switch {
	case localNAT64.Contains(a): // with a prefix of 48 bits (RFC 6052, section 2.2)
		all = append(all, netip.AddrFrom4([4]byte{raw[6], raw[7], raw[9], raw[10]}))
	case sixToFour.Contains(a):
		all = append(all, netip.AddrFrom4([4]byte(raw[2:])))
	case teredo.Contains(a): // the server's, and the client's inverted
		all = append(all, netip.AddrFrom4([4]byte(raw[4:])), netip.AddrFrom4([4]byte{^raw[12], ^raw[13], ^raw[14], ^raw[15]}))
	}
	return all
}

// interfaces are this machine's, or this pod's.
var interfaces interfaceList

// interfacesAge is how old the list of addresses may be.
const interfacesAge = 10 * time.Second

type interfaceList struct {
	mu   sync.Mutex
	at   time.Time
	last []netip.Addr
}

// addresses returns the addresses of the interfaces. If the system does not tell them, it returns the last known ones.
func (l *interfaceList) addresses() []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.at.IsZero() || now.Sub(l.at) > interfacesAge {
		if known, err := net.InterfaceAddrs(); err == nil {
			l.at, l.last = now, nil
			for _, address := range known {
				if prefix, err := netip.ParsePrefix(address.String()); err == nil {
					l.last = append(l.last, prefix.Addr())
				}
			}
		}
	}
	return l.last
}
