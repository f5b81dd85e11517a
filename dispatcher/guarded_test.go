package dispatcher

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
)

func TestGuardedAddresses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded()
		g.listen(&net.TCPAddr{IP: net.IPv4zero, Port: 8080}, &net.TCPAddr{IP: net.IPv6zero, Port: 8081})
		if got := g.ports(); !slices.Equal(got, []uint16{8080, 8081}) {
			t.Errorf("ports are %v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go g.run(ctx, []string{"10.96.0.1", "fd00::1"})
		synctest.Wait()
		got := g.addresses()
		slices.SortFunc(got, netip.AddrPort.Compare)
		want := []netip.AddrPort{netip.MustParseAddrPort("10.96.0.1:0"), netip.MustParseAddrPort("[fd00::1]:0")}
		if !slices.Equal(got, want) {
			t.Errorf("addresses are %v, want %v", got, want)
		}
		cancel()
		synctest.Wait()
	})
}

func TestGuardedNames(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
	d := &dispatcher{Options: Options{Routes: routesKubernetes, Name: "default", Namespace: "eventflow-system"}}
	want := []string{"10.96.0.1", "kubernetes.default.svc", "eventflow-dispatcher-default.eventflow-system.svc"}
	if got := d.guardedNames(); !slices.Equal(got, want) {
		t.Errorf("names are %v, want %v", got, want)
	}
	if d.Routes = "folder"; d.guardedNames() != nil {
		t.Error("something is guarded without Kubernetes")
	}
}
