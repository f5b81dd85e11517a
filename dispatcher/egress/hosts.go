package egress

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// hosts holds what each name resolved to last, for as long as there is a connection that was dialled by it. So it is
// bounded by the connections.
type hosts struct {
	mu  sync.Mutex
	all map[string]*host
}

// host is a name, and its addresses of late.
type host struct {
	of        *hosts
	name      string
	users     int // connections and dials; guarded by of.mu
	addresses atomic.Pointer[[]netip.Addr]
}

// resolved keeps the addresses that name was resolved to, and returns it. The caller, or a connection that it makes,
// forgets it once.
func (n *hosts) resolved(name string, addresses []netip.Addr) *host {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.all[name]
	if known == nil {
		known = &host{of: n, name: name}
		if n.all == nil {
			n.all = map[string]*host{}
		}
		n.all[name] = known
	}
	known.users++
	known.addresses.Store(&addresses)
	return known
}

// has reports whether the name's newest resolution contains c's address; it does for what was not dialled by a name.
func (n *host) has(c *conn) bool {
	return n == nil || slices.Contains(*n.addresses.Load(), c.remote())
}

// forget says that one of the name's users is gone.
func (n *host) forget() {
	if n == nil {
		return
	}
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	if n.users--; n.users == 0 {
		delete(n.of.all, n.name)
	}
}
