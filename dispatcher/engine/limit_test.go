package engine

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// TestLimitTakesEffectWhileRunning raises and lowers the bound of each tenant's attempts; an endpoint with a bound of its own
// keeps that.
func TestLimitTakesEffectWhileRunning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		var subs []event.SubscriptionKey
		for i := range 4 {
			subs = append(subs, to.add(fmt.Sprint(i), slow(2*time.Second)))
			to.edit(subs[i], func(e *Endpoint) { e.TenantInFlight = DefaultInFlight })
		}
		tenant := s.namespace
		own := to.addTo("own", "own", slow(2*time.Second))
		to.edit(own, func(e *Endpoint) { e.TenantInFlight = 5 })
		e, stop := start(t, s, to, Options{TenantInFlight: 3})
		defer stop()
		for i := range 60 {
			s.namespace = tenant
			e.Accept(s.append(fmt.Sprint("a", i), subs...))
			s.namespace = "own"
			e.Accept(s.append(fmt.Sprint("b", i), own))
		}
		underWay := func(sub event.SubscriptionKey) int {
			to.takePeak(sub)
			return to.takePeak(sub) // of this moment
		}
		for _, limit := range []int{3, 9, 2} {
			e.Limit(limit)
			advance(7 * time.Second) // what was under way ends
			n := 0
			for _, sub := range subs {
				n += underWay(sub)
			}
			if n != limit {
				t.Errorf("%d in flight with a limit of %d", n, limit)
			}
			if n := underWay(own); n != 5 {
				t.Errorf("%d in flight of the tenant with a bound of its own, want 5", n)
			}
		}
	})
}
