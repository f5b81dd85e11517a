package engine

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// TestPulledTakesNothing: what is to be pulled is neither attempted nor held, and costs no timer but the search for what is past
// its age, which ends once all was pulled. It goes to the endpoint when there is one.
func TestPulledTakesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", ok)
		to.edit(sub, func(e *Endpoint) { e.Pull = true })
		e, stop := start(t, s, to, Options{})
		defer stop()
		var first delivery.PendingDelivery
		for i := range 100 {
			fanouts := s.append("evt-"+string(rune('a'+i)), sub)
			e.Accept(fanouts)
			e.mu.Lock()
			if e.held != 0 {
				t.Errorf("%d are held as they come", e.held)
			}
			e.mu.Unlock()
			if i == 0 {
				first = fanouts[0].Delivery(fanouts[0].Subscriptions[0])
			}
			synctest.Wait()
			if e.held != 0 || e.Memory.Used() != 0 || e.places.total() != 0 {
				t.Fatalf("after %d: %d held, %d bytes, %d places", i, e.held, e.Memory.Used(), e.places.total())
			}
		}
		e.Resume([]delivery.PendingDelivery{first})
		advance(time.Hour)
		if len(to.to(sub)) != 0 {
			t.Fatalf("%d attempts", len(to.to(sub)))
		}
		advance(72 * time.Hour)
		if s.total(delivery.Failed) != 100 {
			t.Errorf("%d failed, want all that are past their age", s.total(delivery.Failed))
		}
		advance(time.Hour)
		if l := e.lanes[sub]; l != nil && (l.backlogged || l.wakeIndex >= 0) {
			t.Errorf("the lane is searched on, although nothing is pending")
		}
		e.Accept(s.append("evt-late", sub))
		advance(2 * time.Minute)
		to.edit(sub, func(e *Endpoint) { e.Pull = false })
		e.Use(to, true)
		advance(time.Minute)
		if len(to.to(sub)) != 1 {
			t.Errorf("%d attempts once there is an endpoint, want 1", len(to.to(sub)))
		}
	})
}
