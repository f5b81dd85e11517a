package dispatcher

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// guarded are the addresses that deliveries never reach, whatever a rule allows: the API server's, and those of the
// dispatchers' own Service. The ports that this process listens on are guarded, too.
type guarded struct {
	resolver *net.Resolver
	own      atomic.Pointer[[]uint16]
	denied   atomic.Pointer[[]netip.AddrPort]
}

func newGuarded() *guarded {
	g := &guarded{resolver: net.DefaultResolver}
	g.own.Store(&[]uint16{})
	g.denied.Store(&[]netip.AddrPort{})
	return g
}

func (g *guarded) ports() []uint16             { return *g.own.Load() }
func (g *guarded) addresses() []netip.AddrPort { return *g.denied.Load() }

// listen notes where this process listens.
func (g *guarded) listen(addresses ...net.Addr) {
	var ports []uint16
	for _, a := range addresses {
		if tcp, ok := a.(*net.TCPAddr); ok {
			ports = append(ports, uint16(tcp.Port))
		}
	}
	g.own.Store(&ports)
}

// listening are the addresses that this process listens on.
func (d *dispatcher) listening(api, ops *server) []net.Addr {
	all := []net.Addr{api.listener.Addr(), ops.listener.Addr()}
	if api.plain != nil {
		all = append(all, api.plain)
	}
	if d.shown.server != nil {
		all = append(all, d.shown.listener.Addr())
	}
	return all
}

const (
	// guardedPause is how often names of guarded addresses are looked up, guardedTimeout bounds that.
	guardedPause, guardedTimeout = 30 * time.Second, 5 * time.Second
)

// run looks the names up again and again until ctx ends. What a name led to stays guarded while it cannot be looked up.
func (g *guarded) run(ctx context.Context, names []string) {
	known := map[string][]netip.Addr{}
	for {
		for _, name := range names {
			if found := g.lookUp(ctx, name); len(found) > 0 {
				known[name] = found
			}
		}
		var all []netip.AddrPort
		for _, addresses := range known {
			for _, a := range addresses {
				all = append(all, netip.AddrPortFrom(a.Unmap(), 0))
			}
		}
		g.denied.Store(&all)
		select {
		case <-ctx.Done():
			return
		case <-time.After(guardedPause):
		}
	}
}

func (g *guarded) lookUp(ctx context.Context, name string) []netip.Addr {
	if address, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{address}
	}
	ctx, cancel := context.WithTimeout(ctx, guardedTimeout)
	defer cancel()
	found, err := g.resolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil
	}
	return found
}

// guardedNames are the hosts of what is guarded: nothing without Kubernetes.
func (d *dispatcher) guardedNames() []string {
	host := os.Getenv("KUBERNETES_SERVICE_HOST")
	if d.Routes != routesKubernetes || host == "" {
		return nil
	}
	return []string{host, "kubernetes.default.svc", "eventflow-dispatcher-" + d.Name + "." + d.Namespace + ".svc"}
}
