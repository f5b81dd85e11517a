package egress

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// TestAllowTakesEffectWhileInUse changes each allowance of a client: an attempt fails before and succeeds after, or the
// other way round.
func TestAllowTakesEffectWhileInUse(t *testing.T) {
	t.Parallel()
	open := Allowances{AllowHTTP: true, AllowedCIDRs: loopback}
	for name, tc := range map[string]struct {
		before, after         Allowances
		wantBefore, wantAfter delivery.Reason
	}{
		"http allowed":    {Allowances{AllowedCIDRs: loopback}, open, delivery.ReasonHTTPNotAllowed, ""},
		"http taken back": {open, Allowances{AllowedCIDRs: loopback}, "", delivery.ReasonHTTPNotAllowed},
		"range allowed":   {Allowances{AllowHTTP: true}, open, delivery.ReasonAddressNotAllowed, ""},
		"range taken back": {
			open, Allowances{AllowHTTP: true}, "", delivery.ReasonAddressNotAllowed,
		},
		"range denied": {
			open, Allowances{AllowHTTP: true, AllowedCIDRs: loopback, DeniedCIDRs: loopback}, "", delivery.ReasonAddressNotAllowed,
		},
		"other range denied": {
			open, Allowances{AllowHTTP: true, AllowedCIDRs: loopback, DeniedCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, answer(noContent))
			c := newClient(t)
			for _, step := range []struct {
				allow Allowances
				want  delivery.Reason
			}{{tc.before, tc.wantBefore}, {tc.after, tc.wantAfter}, {tc.before, tc.wantBefore}} {
				if err := c.Allow(step.allow); err != nil {
					t.Fatal(err)
				}
				if result := c.Send(context.Background(), newRequest(t, r.url)); result.Reason != step.want {
					t.Errorf("reason %q under %+v, want %q", result.Reason, step.allow, step.want)
				}
			}
		})
	}
}

// TestAllowChangesPorts judges ports below 1024, which a test cannot listen on.
func TestAllowChangesPorts(t *testing.T) {
	t.Parallel()
	c, smtp := newClient(t), netip.MustParseAddrPort("127.0.0.1:25")
	for _, ports := range [][]uint16{nil, {25}, nil} {
		if err := c.Allow(Allowances{AllowedCIDRs: loopback, AllowedPorts: ports}); err != nil {
			t.Fatal(err)
		}
		if err := c.dialer.guard.Load().judge(smtp, nil); (err == nil) != (len(ports) > 0) {
			t.Errorf("port 25 with allowed ports %v: %v", ports, err)
		}
	}
}

// TestAllowRefusesWhatIsNoRange leaves everything as it was.
func TestAllowRefusesWhatIsNoRange(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer(noContent))
	c := newClient(t)
	if err := c.Allow(Allowances{DeniedCIDRs: []netip.Prefix{{}}}); err == nil {
		t.Error("no error")
	}
	if result := c.Send(context.Background(), newRequest(t, r.url)); !result.Delivered() {
		t.Errorf("%+v", result)
	}
}

// TestAllowClosesWhatIsNotAllowedAnyMore: kept connections go at once, one in use ends its attempt and goes then, and what
// is still allowed stays.
func TestAllowClosesWhatIsNotAllowedAnyMore(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	slow := newReceiver(t, func(conn net.Conn) {
		b := bufio.NewReader(conn)
		if readRequest(b) {
			close(begun)
			<-finish
			_, _ = conn.Write([]byte(noContent))
			readRequest(b)
		}
	})
	kept := newReceiver(t, answer(noContent))
	c := newClient(t)
	send := func(url string) Result { return c.Send(context.Background(), newRequest(t, url)) }
	for range 2 {
		if result := send(kept.url); !result.Delivered() {
			t.Fatalf("%+v", result)
		}
	}
	inUse := make(chan Result)
	go func() { inUse <- send(slow.url) }()
	<-begun
	open := Allowances{AllowHTTP: true, AllowedCIDRs: loopback}
	if err := c.Allow(open); err != nil {
		t.Fatal(err)
	}
	if send(kept.url); kept.accepted.Load() != 1 {
		t.Errorf("%d connections, want the kept one alone: it is still allowed", kept.accepted.Load())
	}
	if err := c.Allow(Allowances{AllowHTTP: true}); err != nil {
		t.Fatal(err)
	}
	eventuallyNone(t, kept)
	close(finish)
	if result := <-inUse; !result.Delivered() {
		t.Errorf("the attempt under way: %+v", result)
	}
	eventuallyNone(t, slow)
	if n := c.pool.order.Len(); n != 0 {
		t.Errorf("%d connections are kept", n)
	}
}

// eventuallyNone waits until the receiver has no connection.
func eventuallyNone(t *testing.T, r *receiver) {
	t.Helper()
	patience := time.After(10 * time.Second)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for r.connections() > 0 {
		select {
		case <-again.C:
		case <-patience:
			t.Fatalf("%d connections are open", r.connections())
		}
	}
}
