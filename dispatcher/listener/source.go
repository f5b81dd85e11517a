package listener

import "net/netip"

// Source returns the part of a client's address, as net.Addr and http.Request write it, that limits are shared by: an
// IPv4 address, or the first 64 bits of an IPv6 address, all of which a single client may have (RFC 6177).
func Source(address string) string {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return address // not of a network with addresses: one source for all
	}
	ip := ap.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip.String()
	}
	return prefix.String()
}
