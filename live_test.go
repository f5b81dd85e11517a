package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// newFollower starts a dispatcher that follows the settings of a control plane.
func newFollower(t *testing.T, c *controlPlane) *plane {
	t.Helper()
	return &plane{t: t, dir: t.TempDir(), store: "pebble:store", arguments: []string{
		"--routes=kubernetes", "--settings=kubernetes", "--kubeconfig=" + c.kubeconfig(), "--ingest-auth=none",
	}}
}

// open are settings by which deliveries reach this machine.
func open() settings.Settings {
	s := settings.Defaults()
	s.Egress.AllowHTTP, s.Egress.AllowedCIDRs = true, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	return s
}

// eventText is an event of the given type, with data of so many bytes.
func eventText(id, eventType string, size int) string {
	return `{"id":"` + id + `","type":"` + eventType + `","data":{"x":"` + strings.Repeat("x", size) + `"}}`
}

// TestSettingsAreTakenOver changes each setting of a running dispatcher, and sees it in force, in the same process, without
// one request that is refused for it.
func TestSettingsAreTakenOver(t *testing.T) {
	t.Parallel()
	c, e := newControlPlane(t), newEndpoint(t)
	c.route(e.URL)
	generation := int64(1)
	set := func(change func(*settings.Settings)) {
		t.Helper()
		s := open()
		s.Generation = generation
		change(&s)
		c.set(s)
		eventually(t, fmt.Sprintf("the status says generation %d", generation), func() bool { return c.inForce() == generation })
		generation++
	}
	p := newFollower(t, c)
	s := open()
	s.Generation = generation
	c.set(s)
	p.start()
	pid := p.cmd.Process.Pid
	set(func(*settings.Settings) {})

	n := 0
	publish := func(eventType string, size int) int {
		n++
		status, _ := p.post(eventText(fmt.Sprint("evt-", n), eventType, size))
		return status
	}
	arrives := func() bool {
		before := len(e.received())
		if status := publish("patient.created", 1); status != http.StatusAccepted {
			t.Fatalf("publish: %d", status)
		}
		deadline := time.Now().Add(2 * time.Second)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for time.Now().Before(deadline) {
			if len(e.received()) > before {
				return true
			}
			<-tick.C
		}
		return false
	}
	for name, tc := range map[string]struct {
		change        func(*settings.Settings)
		try           func() any
		before, after any
	}{
		"maxEventBytes": {
			func(s *settings.Settings) { s.MaxEventBytes = 2048 },
			func() any { return publish("patient.created", 3000) }, http.StatusAccepted, http.StatusRequestEntityTooLarge,
		},
		"eventResources": {
			func(s *settings.Settings) { s.EventResources = []string{"lab-order"} },
			func() any { return publish("lab-order.created", 1) }, http.StatusUnprocessableEntity, http.StatusAccepted,
		},
		"quota: eventsPerSecond": {
			func(s *settings.Settings) { s.Quota.EventsPerSecond, s.Quota.EventsBurst = 1, 1 },
			func() any { return max(publish("patient.created", 1), publish("patient.created", 1)) }, http.StatusAccepted, http.StatusTooManyRequests,
		},
		"quota: pendingBytes": {
			func(s *settings.Settings) { s.Quota.PendingBytes = 1 << 20 },
			func() any { return publish("patient.created", (1<<20)-100) }, http.StatusAccepted, http.StatusRequestEntityTooLarge,
		},
		"egress: allowHTTP":    {func(s *settings.Settings) { s.Egress.AllowHTTP = false }, func() any { return arrives() }, true, false},
		"egress: allowedCIDRs": {func(s *settings.Settings) { s.Egress.AllowedCIDRs = nil }, func() any { return arrives() }, true, false},
		"egress: deniedCIDRs": {
			func(s *settings.Settings) { s.Egress.DeniedCIDRs = s.Egress.AllowedCIDRs }, func() any { return arrives() }, true, false,
		},
	} {
		if got := tc.try(); got != tc.before {
			t.Errorf("%s: %v before, want %v", name, got, tc.before)
		}
		set(tc.change)
		if got := tc.try(); got != tc.after {
			t.Errorf("%s: %v after, want %v", name, got, tc.after)
		}
		set(func(*settings.Settings) {})
		eventually(t, "what waited is delivered", func() bool {
			for _, d := range p.deliveries() {
				if d.State == "Pending" {
					return false
				}
			}
			return true
		})
	}
	if p.cmd.Process.Pid != pid || p.cmd.ProcessState != nil {
		t.Error("it was another process")
	}
}

// TestChangesUnderLoad: a hundred changes of everything refuse no publish and lose no event.
func TestChangesUnderLoad(t *testing.T) {
	t.Parallel()
	c, e := newControlPlane(t), newEndpoint(t)
	c.route(e.URL)
	s := open()
	s.Generation = 1
	c.set(s)
	p := newFollower(t, c)
	p.start()
	var refused, accepted atomic.Int64
	var producers sync.WaitGroup
	stop := make(chan struct{})
	for producer := range 4 {
		producers.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				if status, answer := p.post(eventText(fmt.Sprintf("evt-%d-%d", producer, i), "patient.created", 100)); status != http.StatusAccepted {
					t.Errorf("%d %s", status, answer)
					refused.Add(1)
					return
				}
				accepted.Add(1)
			}
		})
	}
	for i := range int64(100) {
		s := open()
		s.Generation = i + 2
		s.MaxEventBytes = 1 << (12 + i%8)
		s.Delivered, s.Failed = time.Duration(1+i)*time.Hour, time.Duration(2+i)*time.Hour
		s.OutageGrace = time.Duration(i) * time.Second
		s.Quota.EventsPerSecond, s.Quota.AttemptsInFlight = int(10_000+i), int(8+i%8)
		s.Quota.PendingBytes, s.Quota.PendingDeliveries = 1<<30+i, 1<<20+i
		s.Egress.AllowedPorts = []uint16{uint16(1 + i)}
		s.Egress.DeniedCIDRs = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i)}), 16)}
		s.EventResources = []string{fmt.Sprint("resource-", i)}
		c.set(s)
		before := accepted.Load()
		eventually(t, "events are accepted", func() bool { return accepted.Load() > before || refused.Load() > 0 })
	}
	eventually(t, "the last change is in force", func() bool { return c.inForce() == 101 })
	close(stop)
	producers.Wait()
	t.Logf("%d events were accepted, %d refused", accepted.Load(), refused.Load())
	eventually(t, "every event", func() bool {
		arrived := map[string]bool{}
		for _, a := range e.received() {
			arrived[eventOf(a)] = true
		}
		return int64(len(arrived)) == accepted.Load()
	})
}

// TestSettingsOutliveTheAPIServer starts again without it: by the last settings, and not before there are any.
func TestSettingsOutliveTheAPIServer(t *testing.T) {
	t.Parallel()
	c, e := newControlPlane(t), newEndpoint(t)
	c.route(e.URL)
	p := newFollower(t, c)
	ready := p.launch()
	select {
	case <-ready:
		t.Fatal("ready without settings: what they forbid would not hold")
	case <-p.ended:
		t.Fatalf("ended: %v\n%s", p.err, &p.log)
	case <-time.After(3 * time.Second):
	}
	s := open()
	s.Generation, s.MaxEventBytes = 5, 2048
	c.set(s)
	select {
	case addresses := <-ready:
		p.api, p.ops = addresses[0], addresses[1]
	case <-time.After(patience):
		t.Fatal("not ready with settings")
	}
	p.stop()
	c.CloseClientConnections()
	c.Listener.Close()
	p.start()
	if status, answer := p.post(eventText("evt-1", "patient.created", 3000)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s, want the last settings", status, answer)
	}
}
