package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

func TestRetriesFollowTheSchedule(t *testing.T) {
	t.Parallel()
	for _, failures := range []int{0, 1, 3, 5, 6, 20, 39} {
		t.Run(fmt.Sprint(failures), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, to := newMemoryStore(), newEndpoints()
				sub := to.add("a", failing(failures))
				e, stop := start(t, s, to, Options{})
				defer stop()
				accepted := time.Now()
				deliveries := s.append("1", sub)
				e.Accept(deliveries)
				advance(73 * time.Hour)

				want := accepted
				attempts := to.to(sub)
				if len(attempts) != failures+1 {
					t.Fatalf("%d attempts, want %d", len(attempts), failures+1)
				}
				for i, a := range attempts {
					if late := a.at.Sub(want); late < 0 || late > 100*time.Millisecond {
						t.Errorf("attempt %d started %v after its time", i+1, late)
					}
					if a.number != i+1 || a.id != idOf(deliveries) {
						t.Errorf("attempt %d carried number %d and id %v", i+1, a.number, a.id)
					}
					want = a.at.Add([]time.Duration{30 * time.Second, 2 * time.Minute, 8 * time.Minute, 32 * time.Minute, 2 * time.Hour}[min(i, 4)])
				}
				if s.total(delivery.Delivered) != 1 {
					t.Error("not delivered")
				}
			})
		})
	}
}

func TestGivesUpAtTheAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", status(500))
		e, stop := start(t, s, to, Options{Jitter: rand.New(rand.NewPCG(1, 1)).Float64})
		defer stop()
		accepted := time.Now()
		e.Accept(s.append("1", sub))
		advance(72*time.Hour - time.Millisecond)
		if s.total(delivery.Pending) != 1 {
			t.Fatal("not pending before its age")
		}
		advance(time.Second)
		attempts := to.to(sub)
		if last := attempts[len(attempts)-1].at.Sub(accepted); last < 72*time.Hour || last > 72*time.Hour+100*time.Millisecond {
			t.Errorf("the last attempt started after %v, want 72h", last)
		}
		if s.total(delivery.Failed) != 1 {
			t.Error("not failed after its age")
		}
		for i := 1; i < len(attempts)-1; i++ {
			base := []time.Duration{30 * time.Second, 2 * time.Minute, 8 * time.Minute, 32 * time.Minute, 2 * time.Hour}[min(i-1, 4)]
			if gap := attempts[i].at.Sub(attempts[i-1].at); gap < base || gap > base+base/10+100*time.Millisecond {
				t.Errorf("gap %d is %v, want %v to 10 %% more", i, gap, base)
			}
		}
	})
}

func TestRestartGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", failing(5))
		accepted := time.Now()
		e, stop := start(t, s, to, Options{})
		e.Accept(s.append("1", sub))
		for range 8 { // stops and starts, some of them across a due time
			advance(17 * time.Minute)
			stop()
			_, stop = start(t, s, to, Options{})
		}
		advance(3 * time.Hour)
		stop()
		attempts := to.to(sub)
		wantAt := []time.Duration{0, 30 * time.Second, 150 * time.Second, 630 * time.Second, 2550 * time.Second, 9750 * time.Second}
		if len(attempts) != len(wantAt) {
			t.Fatalf("%d attempts, want %d", len(attempts), len(wantAt))
		}
		for i, a := range attempts {
			if off := a.at.Sub(accepted) - wantAt[i]; off < 0 || off > time.Second {
				t.Errorf("attempt %d is %v off its time", i+1, off)
			}
			if a.number != i+1 {
				t.Errorf("attempt %d carried number %d", i+1, a.number)
			}
		}
	})
}

func TestHangingEndpointDelaysNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		var hanging []event.SubscriptionKey
		for i := range 20 {
			hanging = append(hanging, to.add(fmt.Sprint("hanging", i), hang))
		}
		healthy := to.add("healthy", ok)
		e, stop := start(t, s, to, Options{MaxInFlight: 64})
		defer stop()
		for i := range 600 {
			e.Accept(s.append(fmt.Sprint(i), append(hanging, healthy)...))
			before := time.Now()
			synctest.Wait()
			if got := to.to(healthy); len(got) != i+1 || got[i].at != before {
				t.Fatalf("event %d: %d attempts at the healthy endpoint", i, len(got))
			}
			advance(100 * time.Millisecond)
		}
		if got := len(to.to(hanging[0])); got < 2 {
			t.Errorf("%d attempts at a hanging endpoint: it must have its share, too", got)
		}
	})
}

func TestCircuitBreakerProbesOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		var up atomic.Bool
		sub := to.add("a", func(context.Context, payload.Request) egress.Result {
			<-time.After(time.Second)
			if up.Load() {
				return egress.Result{StatusCode: 200}
			}
			return egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode}
		})
		e, stop := start(t, s, to, Options{})
		defer stop()
		for i := range 100 {
			e.Accept(s.append(fmt.Sprint(i), sub))
		}
		synctest.Wait()
		if peak := to.takePeak(sub); peak != 32 {
			t.Fatalf("%d in flight at first, want 32", peak)
		}
		advance(2500 * time.Millisecond) // 32 failed, and the few that started before the tenth: the breaker is open
		to.takePeak(sub)
		advance(20 * time.Second)
		if peak := to.takePeak(sub); peak != 1 {
			t.Errorf("%d in flight while failing, want 1", peak)
		}
		up.Store(true)
		advance(10 * time.Minute)
		if s.total(delivery.Delivered) != 100 {
			t.Errorf("%d delivered, want 100", s.total(delivery.Delivered))
		}
		if to.takePeak(sub) < 2 {
			t.Error("the breaker did not close")
		}
	})
}

func TestSuspendedDeliveriesWaitAndAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", ok)
		to.edit(sub, func(e *Endpoint) { e.Suspended = true })
		e, stop := start(t, s, to, Options{})
		defer stop()
		e.Accept(s.append("old", sub))
		advance(71 * time.Hour)
		e.Accept(s.append("young", sub))
		advance(time.Hour + 2*time.Minute)
		if len(to.to(sub)) != 0 || s.total(delivery.Failed) != 1 || s.total(delivery.Pending) != 1 {
			t.Fatalf("%d attempts, %d failed, %d pending; want 0, 1, 1", len(to.to(sub)), s.total(delivery.Failed), s.total(delivery.Pending))
		}
		to.edit(sub, func(e *Endpoint) { e.Suspended = false })
		e.Use(to, true)
		synctest.Wait()
		advance(time.Second)
		if s.total(delivery.Delivered) != 1 || s.total(delivery.Pending) != 0 {
			t.Errorf("%d delivered, %d pending after the pause; want 1, 0", s.total(delivery.Delivered), s.total(delivery.Pending))
		}
	})
}

func TestGoneStopsUntilTheSpecChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", status(410))
		e, stop := start(t, s, to, Options{})
		e.Accept(s.append("1", sub))
		synctest.Wait()
		e.Accept(s.append("2", sub))
		advance(10 * time.Hour)
		stop()
		e, stop = start(t, s, to, Options{}) // still gone after a restart
		defer stop()
		advance(10 * time.Hour)
		if n := len(to.to(sub)); n != 1 {
			t.Fatalf("%d attempts at an endpoint that is gone, want 1", n)
		}
		to.answerWith(sub, ok)
		to.edit(sub, func(e *Endpoint) { e.Generation = 2 })
		e.Use(to, true)
		advance(time.Second)
		if s.total(delivery.Delivered) != 2 {
			t.Errorf("%d delivered after the spec changed, want 2", s.total(delivery.Delivered))
		}
	})
}

func TestDeletionCancelsAfterTheGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", status(500))
		e, stop := start(t, s, to, Options{})
		defer stop()
		for i := range 300 {
			e.Accept(s.append(fmt.Sprint(i), sub))
		}
		advance(5 * time.Second)
		endpoint, _ := to.Endpoint(sub)
		remove := func() { to.mu.Lock(); delete(to.table, sub); to.mu.Unlock(); e.Use(to, true) }

		remove()
		synctest.Wait()
		before := len(to.to(sub))
		advance(9 * time.Second)
		if n := len(to.to(sub)); n != before {
			t.Errorf("%d attempts after the deletion", n-before)
		}
		if s.total(delivery.Cancelled) != 0 {
			t.Error("cancelled within the grace")
		}
		to.mu.Lock()
		to.table[sub] = endpoint
		to.mu.Unlock()
		e.Use(to, true) // it was a mistake
		advance(time.Hour)
		if s.total(delivery.Cancelled) != 0 || len(to.to(sub)) == before {
			t.Errorf("%d cancelled, %d attempts more after the subscription came back", s.total(delivery.Cancelled), len(to.to(sub))-before)
		}
		remove()
		advance(11 * time.Second)
		if s.total(delivery.Cancelled) != 300 || s.total(delivery.Pending) != 0 {
			t.Errorf("%d cancelled, %d pending; want 300, 0", s.total(delivery.Cancelled), s.total(delivery.Pending))
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.lanes) != 0 || e.held != 0 || e.Memory.Used() != 0 || len(e.tenants) != 0 {
			t.Errorf("left behind: %d lanes, %d held, %d bytes, %d tenants", len(e.lanes), e.held, e.Memory.Used(), len(e.tenants))
		}
	})
}

func TestAnIncompleteTableCancelsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", ok)
		e, stop := start(t, s, to, Options{})
		defer stop()
		e.Use(newEndpoints(), false)
		e.Accept(s.append("1", sub))
		advance(100 * time.Hour)
		if s.total(delivery.Pending) != 1 {
			t.Fatal("the delivery does not wait for a complete table")
		}
		e.Use(to, true)
		advance(time.Second)
		if s.total(delivery.Delivered) != 1 {
			t.Error("not delivered by the complete table")
		}
	})
}

func TestWaitsWhileNotAccepted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", ok)
		to.edit(sub, func(e *Endpoint) { e.Target = nil })
		e, stop := start(t, s, to, Options{})
		defer stop()
		e.Accept(s.append("1", sub))
		advance(time.Hour)
		if s.total(delivery.Pending) != 1 || len(to.to(sub)) != 0 {
			t.Fatal("the delivery does not wait")
		}
		to.edit(sub, func(e *Endpoint) { e.Target = &egress.Target{} })
		e.Use(to, true)
		advance(time.Second)
		if s.total(delivery.Delivered) != 1 {
			t.Error("not delivered once accepted")
		}
	})
}

func TestAnotherNamespacesEventIsNeverSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", ok)
		to.edit(sub, func(e *Endpoint) { e.Tenant = "clinic-b" })
		e, stop := start(t, s, to, Options{})
		defer stop()
		e.Accept(s.append("1", sub))
		advance(time.Second)
		if len(to.to(sub)) != 0 || s.total(delivery.Failed) != 1 {
			t.Errorf("%d attempts, %d failed; want 0, 1", len(to.to(sub)), s.total(delivery.Failed))
		}
	})
}

func TestRetryAfterAndMaxAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", func(context.Context, payload.Request) egress.Result {
			return egress.Result{StatusCode: 503, Reason: delivery.ReasonStatusCode, RetryAfter: time.Hour}
		})
		to.edit(sub, func(e *Endpoint) { e.Retry.MaxAttempts = 3 })
		e, stop := start(t, s, to, Options{})
		defer stop()
		e.Accept(s.append("1", sub))
		advance(10 * time.Hour)
		attempts := to.to(sub)
		if len(attempts) != 3 || s.total(delivery.Failed) != 1 {
			t.Fatalf("%d attempts, %d failed; want 3, 1", len(attempts), s.total(delivery.Failed))
		}
		if gap := attempts[1].at.Sub(attempts[0].at); gap < time.Hour || gap > time.Hour+time.Second {
			t.Errorf("waited %v, want 1h", gap)
		}
	})
}

func TestStopFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		quick, late := to.add("quick", slow(15*time.Second)), to.add("late", slow(25*time.Second))
		e, stop := start(t, s, to, Options{})
		e.Accept(s.append("1", quick, late))
		synctest.Wait()
		before := time.Now()
		stop()
		if took := time.Since(before); took != 20*time.Second {
			t.Errorf("the stop took %v, want 20s", took)
		}
		if s.total(delivery.Delivered) != 1 || s.total(delivery.Pending) != 1 {
			t.Errorf("%d delivered, %d pending; want 1, 1", s.total(delivery.Delivered), s.total(delivery.Pending))
		}
		e, stop = start(t, s, to, Options{})
		_ = e
		advance(26 * time.Second)
		stop()
		if s.total(delivery.Delivered) != 2 {
			t.Error("what was interrupted was not delivered after the restart")
		}
		if got := to.to(late); len(got) != 2 || got[1].number != 1 {
			t.Errorf("an interrupted attempt was counted: %v", got)
		}
	})
}

func TestStoreAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		subs := []event.SubscriptionKey{to.add("a", failing(2)), to.add("b", ok)}
		e, stop := start(t, s, to, Options{Memory: budget.New(1)}) // so that each attempt reads its event
		defer stop()
		const n = 300
		for i := range n {
			e.Accept(s.append(fmt.Sprint(i), subs...))
			if i%50 == 20 {
				s.setFail(errors.New("store away"))
				advance(time.Minute)
				s.setFail(nil)
			}
			advance(10 * time.Millisecond)
		}
		advance(2 * time.Hour)
		if s.total(delivery.Delivered) != 2*n {
			t.Errorf("%d delivered, %d pending; want %d, 0", s.total(delivery.Delivered), s.total(delivery.Pending), 2*n)
		}
	})
}

// TestBacklogBeyondMemory publishes far more than the engine may hold, at endpoints that fail at random, with stops in
// between: everything arrives, and nothing arrives again once it was recorded.
func TestBacklogBeyondMemory(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			s, to := newMemoryStore(), newEndpoints()
			faults := rand.New(rand.NewPCG(seed, 8))
			flaky := func(ctx context.Context, r payload.Request) egress.Result {
				to.mu.Lock()
				wait, fails := time.Duration(faults.IntN(200))*time.Millisecond, faults.IntN(10) < 3
				to.mu.Unlock()
				result := slow(wait)(ctx, r)
				if result.StatusCode == 200 && fails {
					return egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode}
				}
				return result
			}
			var subs []event.SubscriptionKey
			for i := range 5 {
				subs = append(subs, to.add(fmt.Sprint(i), flaky))
			}
			options := Options{MaxInFlight: 20, MaxHeld: 50, Memory: budget.New(20_000), StopTimeout: time.Second}
			e, stop := start(t, s, to, options)
			const n = 400
			for i := range n {
				e.Accept(s.append(fmt.Sprint(i), subs[1+random.IntN(4)], subs[0]))
				if random.IntN(20) == 0 {
					advance(time.Duration(random.IntN(1000)) * time.Millisecond)
				}
				if random.IntN(200) == 0 {
					stop()
					e, stop = start(t, s, to, options)
				}
				e.mu.Lock()
				if e.held > 50+scarceLoad*5 || e.Memory.Used() > 20_000+attemptBytes+100 || e.workers > 20 {
					t.Errorf("held %d deliveries, %d bytes, %d workers", e.held, e.Memory.Used(), e.workers)
				}
				e.mu.Unlock()
			}
			advance(30 * time.Hour)
			e.mu.Lock()
			if e.held != 0 || e.Memory.Used() != 0 || e.places.total() != 0 {
				t.Errorf("at rest: %d held, %d bytes, %d in flight", e.held, e.Memory.Used(), e.places.total())
			}
			e.mu.Unlock()
			stop()
			if s.total(delivery.Pending) != 0 || s.total(delivery.Failed) != 0 {
				t.Errorf("seed %d: %d pending, %d failed; want none", seed, s.total(delivery.Pending), s.total(delivery.Failed))
			}
			for id, attempts := range s.attempts {
				for i, a := range attempts {
					if a.Number != i+1 {
						t.Errorf("seed %d: %v: attempt %d has number %d", seed, id, i+1, a.Number)
					}
				}
			}
		})
	}
}

// TestOrderingByResource publishes events about few resources to an endpoint that fails and delays at random, with stops
// in between: those of one resource arrive one at a time and in order, and a failing one holds nobody else.
func TestOrderingByResource(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 9))
			faults := rand.New(rand.NewPCG(seed, 10))
			s, to := newMemoryStore(), newEndpoints()
			orderOf := map[event.DeliveryID]uint64{}
			inFlight := map[uint64]int{}
			var arrived []event.DeliveryID
			sub := to.add("a", func(ctx context.Context, r payload.Request) egress.Result {
				to.mu.Lock()
				order := orderOf[r.Delivery]
				if inFlight[order]++; inFlight[order] > 1 {
					t.Errorf("seed %d: two deliveries about one resource at once", seed)
				}
				wait, fails := time.Duration(faults.IntN(50))*time.Millisecond, faults.IntN(10) < 3
				to.mu.Unlock()
				result := slow(wait)(ctx, r)
				to.mu.Lock()
				defer to.mu.Unlock()
				inFlight[order]--
				if result.StatusCode == 200 && fails {
					return egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode}
				}
				if result.StatusCode == 200 {
					arrived = append(arrived, r.Delivery)
				}
				return result
			})
			to.edit(sub, func(e *Endpoint) { e.Ordered = true })
			e, stop := start(t, s, to, Options{StopTimeout: time.Second})
			const n = 300
			for i := range n {
				s.mu.Lock()
				s.order = 1 + random.Uint64N(20)
				order := s.order
				s.mu.Unlock()
				deliveries := s.append(fmt.Sprint(i), sub)
				to.mu.Lock()
				orderOf[idOf(deliveries)] = order
				to.mu.Unlock()
				e.Accept(deliveries)
				if random.IntN(10) == 0 {
					advance(time.Duration(random.IntN(2000)) * time.Millisecond)
				}
				if random.IntN(100) == 0 {
					stop()
					e, stop = start(t, s, to, Options{StopTimeout: time.Second})
				}
			}
			advance(1000 * time.Hour)
			stop()
			if len(arrived) != n {
				t.Errorf("seed %d: %d arrived, want %d", seed, len(arrived), n)
			}
			last := map[uint64]event.Key{}
			for _, id := range arrived {
				if before := last[orderOf[id]]; bytes.Compare(before[:], id.Event[:]) > 0 {
					t.Errorf("seed %d: deliveries about one resource arrived out of order", seed)
				}
				last[orderOf[id]] = id.Event
			}
		})
	}
}

func TestAFailingResourceHoldsOnlyItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		var bad event.DeliveryID
		sub := to.add("a", func(_ context.Context, r payload.Request) egress.Result {
			if r.Delivery == bad && r.Number == 1 {
				return egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode}
			}
			return egress.Result{StatusCode: 200}
		})
		to.edit(sub, func(e *Endpoint) { e.Ordered = true })
		s.order = 1
		first := s.append("bad", sub)
		bad = idOf(first)
		e, stop := start(t, s, to, Options{})
		defer stop()
		e.Accept(first)
		for i := range 20 {
			s.mu.Lock()
			s.order = uint64(1 + i%4)
			s.mu.Unlock()
			e.Accept(s.append(fmt.Sprint(i), sub))
		}
		advance(time.Second)
		if s.total(delivery.Delivered) != 15 {
			t.Errorf("%d delivered while one resource fails, want the 15 of the others", s.total(delivery.Delivered))
		}
		advance(30 * time.Second)
		if s.total(delivery.Delivered) != 21 {
			t.Errorf("%d delivered in the end, want 21", s.total(delivery.Delivered))
		}
	})
}

// TestAllowedRate: what an endpoint allowed in a handshake bounds its rate, below what the spec says and where that says
// nothing, until it allows something else.
func TestAllowedRate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ spec, allowed, least, most int }{
		"without a limit":        {allowed: 600, least: 98, most: 135},
		"below the spec's":       {spec: 40, allowed: 600, least: 98, most: 135},
		"above the spec's":       {spec: 5, allowed: 600, least: 48, most: 53},
		"less than one a second": {allowed: 30, least: 5, most: 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, to := newMemoryStore(), newEndpoints()
				allowed := tc.allowed
				sub := to.add("a", func(context.Context, payload.Request) egress.Result {
					return egress.Result{StatusCode: 200, AllowedPerMinute: allowed}
				})
				to.edit(sub, func(e *Endpoint) { e.RequestsPerSecond = tc.spec })
				e, stop := start(t, s, to, Options{})
				defer stop()
				for i := range 1000 {
					e.Accept(s.append(fmt.Sprint(i), sub))
				}
				advance(10 * time.Second)
				if n := len(to.to(sub)); n < tc.least || n > tc.most {
					t.Errorf("%d attempts in 10 s, want %d to %d", n, tc.least, tc.most)
				}
				allowed = 0
				to.edit(sub, func(e *Endpoint) { e.RequestsPerSecond = 0 })
				e.Use(to, true)
				advance(time.Minute)
				if n := s.total(delivery.Delivered); n != 1000 {
					t.Errorf("%d delivered once all is allowed, want 1000", n)
				}
			})
		})
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		limited, free := to.add("limited", ok), to.add("free", ok)
		to.edit(limited, func(e *Endpoint) { e.RequestsPerSecond = 40 })
		e, stop := start(t, s, to, Options{})
		defer stop()
		for i := range 1000 {
			e.Accept(s.append(fmt.Sprint(i), limited, free))
		}
		advance(time.Millisecond)
		if n := len(to.to(free)); n != 1000 {
			t.Errorf("%d attempts at the endpoint without a limit, want 1000", n)
		}
		began := time.Now()
		advance(10 * time.Second)
		if n := len(to.to(limited)); n < 395 || n > 405 {
			t.Errorf("%d attempts in 10 s, want 400", n)
		}
		to.edit(limited, func(e *Endpoint) { e.RequestsPerSecond = 100 })
		e.Use(to, true)
		advance(3 * time.Second)
		if n := len(to.to(limited)); n < 690 || n > 710 {
			t.Errorf("%d attempts in %v, want 700", n, time.Since(began))
		}
	})
}
