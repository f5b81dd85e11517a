package egress

import (
	"net"
	"net/netip"
)

// Allowances are the Options of the same names that may change while a Client is in use.
type Allowances struct {
	AllowHTTP                 bool
	MinTLS                    uint16
	AllowedCIDRs, DeniedCIDRs []netip.Prefix
	AllowedPorts              []uint16
}

// Allow makes a the client's allowances from now on, or returns an error that names the one at fault and changes nothing.
// A connection that is made from now on is judged by them. One in use carries its attempt to the end. Kept ones that are
// not allowed any more are closed.
func (c *Client) Allow(a Allowances) error {
	o := c.options
	o.MinTLS = a.MinTLS
	o.AllowHTTP, o.AllowedCIDRs, o.DeniedCIDRs, o.AllowedPorts = a.AllowHTTP, a.AllowedCIDRs, a.DeniedCIDRs, a.AllowedPorts
	g, err := newGuard(o)
	if err != nil {
		return err
	}
	c.dialer.guard.Store(g)
	c.pool.review()
	return nil
}

// allows reports whether the guard of now would let the connection be made. A connection is judged once by each guard.
func (d *dialer) allows(c *conn) bool {
	g := d.guard.Load()
	if c.judged == g {
		return true
	}
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok || (c.plaintext && !g.plaintext) || (!c.plaintext && c.version < g.minTLS) || g.judge(tcp.AddrPort(), c.rules) != nil {
		return false
	}
	c.judged = g
	return true
}
