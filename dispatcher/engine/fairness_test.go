package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

// addTo is add for a subscription of another namespace.
func (s *endpoints) addTo(ns, name string, answer func(context.Context, payload.Request) egress.Result) event.SubscriptionKey {
	key := s.add(ns+"/"+name, answer)
	s.edit(key, func(e *Endpoint) { e.Tenant = ns })
	return key
}

// hangFor never answers within the attempt's timeout.
func hangFor(timeout time.Duration) func(context.Context, payload.Request) egress.Result {
	return func(ctx context.Context, _ payload.Request) egress.Result {
		select {
		case <-time.After(timeout):
			return egress.Result{Reason: delivery.ReasonTimeout}
		case <-ctx.Done():
			return egress.Result{Reason: delivery.ReasonInterrupted}
		}
	}
}

// TestHangingEndpointsOfOthersDelayNobody: more endpoints hang than there are places, in one tenant or in many; each
// event of another tenant is attempted as soon as it is accepted.
func TestHangingEndpointsOfOthersDelayNobody(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ tenants, each int }{
		"one tenant":    {tenants: 1, each: 1200},
		"many tenants":  {tenants: 120, each: 10},
		"the same one ": {tenants: 0, each: 1200}, // as the healthy one's
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, to := newMemoryStore(), newEndpoints()
				healthy := to.addTo("healthy", "a", slow(2*time.Millisecond))
				e, stop := start(t, s, to, Options{MaxInFlight: 1024})
				defer stop()
				s.namespace = "healthy"
				e.Accept(s.append("first", healthy)) // from now on it is known to answer
				advance(10 * time.Millisecond)
				for i := range max(test.tenants, 1) {
					ns := fmt.Sprint("hostile-", i)
					if test.tenants == 0 {
						ns = "healthy"
					}
					var subs []event.SubscriptionKey
					for j := range test.each {
						subs = append(subs, to.addTo(ns, fmt.Sprint(j), hangFor(time.Minute)))
					}
					for range 5 {
						s.namespace = ns
						e.Accept(s.append(fmt.Sprint(ns, len(subs), i), subs...))
					}
				}
				s.namespace = "healthy"
				for i := range 70 {
					e.Accept(s.append(fmt.Sprint(i), healthy))
					accepted := time.Now()
					advance(time.Second)
					sent := to.to(healthy)
					if len(sent) != i+2 {
						t.Fatalf("event %d: %d attempts at the healthy endpoint", i, len(sent))
					}
					if waited := sent[i+1].at.Sub(accepted); waited > 0 {
						t.Fatalf("event %d waited %v for a place", i, waited)
					}
				}
			})
		})
	}
}

// load is what one tenant of the property does: endpoints, and events at a steady rate.
type load struct {
	name    string
	subs    []event.SubscriptionKey
	every   time.Duration
	size    int
	healthy bool
	longest time.Duration // that the endpoint takes to answer
}

// TestFairness: for random mixes of tenants with endpoints that are fast, slow, hang and fail, no healthy tenant waits
// longer than its own load explains: its queue of one place.
func TestFairness(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { fairness(t, seed) })
		})
	}
}

func fairness(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 77))
	s, to := newMemoryStore(), newEndpoints()
	loads := randomLoads(random, to)
	e, stop := start(t, s, to, Options{MaxInFlight: 8 * len(loads), Memory: budget.New(16 << 20)})
	defer stop()
	for _, l := range loads { // what is known of healthy endpoints is known from before
		if l.healthy {
			s.namespace = l.name
			e.Accept(s.append("warm", l.subs...))
		}
	}
	advance(time.Second)
	accepted := map[event.DeliveryID]time.Time{}
	next := make([]time.Duration, len(loads))
	for now := time.Duration(0); now < 45*time.Second; now += 10 * time.Millisecond {
		for i, l := range loads {
			if next[i] > now {
				continue
			}
			next[i] += l.every
			s.namespace, s.size = l.name, l.size
			deliveries := s.append(fmt.Sprint(l.name, now), l.subs[random.IntN(len(l.subs))])
			e.Accept(deliveries)
			if l.healthy {
				accepted[idOf(deliveries)] = time.Now()
			}
		}
		advance(10 * time.Millisecond)
	}
	for _, l := range loads {
		if !l.healthy {
			continue
		}
		bound := 5 * l.longest
		for _, sub := range l.subs {
			for _, sent := range to.to(sub) {
				if at, ok := accepted[sent.id]; ok && sent.number == 1 && sent.at.Sub(at) > bound {
					t.Errorf("an event of %s waited %v, want at most %v", l.name, sent.at.Sub(at), bound)
				}
			}
		}
	}
}

// randomLoads are up to 40 tenants; at least one is healthy.
func randomLoads(random *rand.Rand, to *endpoints) []load {
	var loads []load
	for i := range 2 + random.IntN(38) {
		l := load{name: fmt.Sprint("tenant-", i), size: 1 << random.IntN(17), every: time.Duration(1+random.IntN(10)) * 20 * time.Millisecond}
		l.healthy = i == 0 || random.IntN(3) == 0
		if l.healthy {
			l.longest = time.Duration(1+random.IntN(4)) * time.Millisecond
			for j := range 1 + random.IntN(3) {
				l.subs = append(l.subs, to.addTo(l.name, fmt.Sprint(j), slow(l.longest)))
			}
		} else {
			l.every = time.Duration(1+random.IntN(5)) * 10 * time.Millisecond
			for j := range 1 + random.IntN(60) {
				answer := []func(context.Context, payload.Request) egress.Result{
					hangFor(30 * time.Second), status(500), slow(5 * time.Second), slow(time.Millisecond),
					func(context.Context, payload.Request) egress.Result {
						return egress.Result{StatusCode: 429, Reason: delivery.ReasonStatusCode, RetryAfter: time.Minute}
					},
				}[random.IntN(5)]
				l.subs = append(l.subs, to.addTo(l.name, fmt.Sprint(j), answer))
			}
		}
		loads = append(loads, l)
	}
	return loads
}

// TestRetryAfterHoldsTheSubscriptionBack: an endpoint that answers 429 gets no further request but one probe a minute.
func TestRetryAfterHoldsTheSubscriptionBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", func(context.Context, payload.Request) egress.Result {
			return egress.Result{StatusCode: 429, Reason: delivery.ReasonStatusCode, RetryAfter: 10 * time.Minute}
		})
		other := to.add("b", ok)
		e, stop := start(t, s, to, Options{})
		defer stop()
		for i := range 1000 {
			e.Accept(s.append(fmt.Sprint(i), sub, other))
		}
		advance(time.Second)
		if n := len(to.to(sub)); n > 32 {
			t.Fatalf("%d requests at once to an endpoint that asked to wait, want at most the 32 under way", n)
		}
		if n := len(to.to(other)); n != 1000 {
			t.Errorf("%d of 1000 at the other endpoint", n)
		}
		before := len(to.to(sub))
		advance(9*time.Minute + 30*time.Second)
		if n := len(to.to(sub)) - before; n < 8 || n > 10 {
			t.Errorf("%d probes in 9.5 minutes, want one a minute", n)
		}
		to.answerWith(sub, ok)
		advance(time.Minute)
		if n := s.total(delivery.Delivered); n < 1950 {
			t.Errorf("%d delivered once the endpoint is back, want nearly 2000", n)
		}
	})
}

// TestAStaleConnectionIsNotAnAttempt: the request goes again at once, on a new connection.
func TestAStaleConnectionIsNotAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		s.size = 64 << 10
		sub := to.add("a", func(_ context.Context, r payload.Request) egress.Result {
			if !r.Fresh {
				return egress.Result{Reason: delivery.ReasonStale}
			}
			if len(r.Event.Body) < 64<<10 {
				return egress.Result{StatusCode: 400, Reason: delivery.ReasonStatusCode}
			}
			return egress.Result{StatusCode: 200}
		})
		e, stop := start(t, s, to, Options{})
		defer stop()
		e.Accept(s.append("1", sub))
		advance(time.Second)
		sent := to.to(sub)
		if len(sent) != 2 || sent[1].number != 1 || s.total(delivery.Delivered) != 1 {
			t.Errorf("%d requests, %d delivered; want 2 with number 1, and 1", len(sent), s.total(delivery.Delivered))
		}
		if used := e.Memory.Used(); used != 0 {
			t.Errorf("%d bytes are charged at rest", used)
		}
	})
}

// TestWaitingAttemptsHoldNoBody: what hangs gives its memory back once the request is written.
func TestWaitingAttemptsHoldNoBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		s.size = 1 << 20
		memory := budget.New(8 << 20)
		var subs []event.SubscriptionKey
		for i := range 200 {
			subs = append(subs, to.add(fmt.Sprint(i), hang))
		}
		e, stop := start(t, s, to, Options{Memory: memory})
		defer stop()
		for i, sub := range subs {
			e.Accept(s.append(fmt.Sprint(i), sub))
		}
		advance(5 * time.Second)
		waiting := 0
		for _, sub := range subs {
			waiting += len(to.to(sub))
		}
		if waiting != len(subs) {
			t.Errorf("%d of %d endpoints have their request", waiting, len(subs))
		}
		if used := memory.Used(); used > 4<<20 {
			t.Errorf("attempts that wait hold %d bytes", used)
		}
	})
}

// TestATenantsQuota bounds its attempts over all of its endpoints.
func TestATenantsQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		var subs []event.SubscriptionKey
		for i := range 10 {
			subs = append(subs, to.add(fmt.Sprint(i), slow(10*time.Second)))
			to.edit(subs[i], func(e *Endpoint) { e.TenantInFlight = 7 })
		}
		e, stop := start(t, s, to, Options{})
		defer stop()
		for i := range 20 {
			e.Accept(s.append(fmt.Sprint(i), subs...))
		}
		advance(time.Second)
		total := 0
		for _, sub := range subs {
			total += to.takePeak(sub)
		}
		if total != 7 {
			t.Errorf("%d in flight, want 7", total)
		}
		advance(time.Hour)
		if s.total(delivery.Delivered) != 200 {
			t.Errorf("%d delivered, want 200", s.total(delivery.Delivered))
		}
	})
}

// TestEventsOfEarlierVersionsArrive: an event that was stored under its namespace's name goes to the subscription that it was
// stored for.
func TestEventsOfEarlierVersionsArrive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub, other := to.add("a", ok), to.add("b", ok)
		to.edit(sub, func(e *Endpoint) { e.Tenant, e.Namespace = "uid-1", namespace })
		to.edit(other, func(e *Endpoint) { e.Tenant, e.Namespace = "uid-2", "clinic-b" })
		e, stop := start(t, s, to, Options{})
		defer stop()
		e.Accept(s.append("1", sub, other))
		advance(time.Second)
		if len(to.to(sub)) != 1 || len(to.to(other)) != 0 {
			t.Errorf("%d attempts at the subscription, %d at another tenant's; want 1 and 0", len(to.to(sub)), len(to.to(other)))
		}
	})
}

// TestEndedDeliveriesAreReported: quotas hear of each delivery that is not pending any more, once.
func TestEndedDeliveriesAreReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		a, b, failed := to.addTo("one", "a", ok), to.addTo("two", "b", ok), to.addTo("two", "c", status(500))
		to.edit(failed, func(e *Endpoint) { e.Retry.MaxAttempts = 2 })
		ended := map[string][2]int64{}
		e, stop := start(t, s, to, Options{Finished: func(tenant string, deliveries, bytes int64) {
			ended[tenant] = [2]int64{ended[tenant][0] + deliveries, ended[tenant][1] + bytes}
		}})
		s.size = 100
		for i := range 10 {
			s.namespace = "one"
			e.Accept(s.append(fmt.Sprint("one-", i), a))
			s.namespace = "two"
			e.Accept(s.append(fmt.Sprint("two-", i), b, failed))
		}
		advance(time.Minute)
		stop()
		if got, want := fmt.Sprint(ended), "map[one:[10 1000] two:[20 2000]]"; got != want {
			t.Errorf("ended are %s, want %s", got, want)
		}
	})
}

// TestOneTenantsLimitParksNoOther: tenants that wait for an end of their own attempts, because of their quota or their
// hanging endpoints, keep no other from a place that comes free.
func TestOneTenantsLimitParksNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		e, stop := start(t, s, to, Options{MaxInFlight: 80})
		defer stop()
		for i := range 30 { // each has its quota in flight, and more to send to endpoints of which nothing is known
			ns := fmt.Sprint("capped-", i)
			s.namespace = ns
			for j := range 3 {
				sub := to.addTo(ns, fmt.Sprint(j), hangFor(time.Minute))
				to.edit(sub, func(e *Endpoint) { e.TenantInFlight = 1 })
				e.Accept(s.append(fmt.Sprint(ns, j), sub))
			}
		}
		advance(2 * time.Second)
		s.namespace = "other"
		var subs []event.SubscriptionKey
		for i := range 50 {
			subs = append(subs, to.addTo("other", fmt.Sprint(i), slow(100*time.Millisecond)))
		}
		e.Accept(s.append("other", subs...))
		advance(30 * time.Second)
		if n := s.total(delivery.Delivered); n != len(subs) {
			t.Errorf("%d of %d were delivered while others hang", n, len(subs))
		}
	})
}

// TestSlowEndpointsKeepTheirPlaces: an endpoint that answers late is not taken for one that hangs, also where places are few.
func TestSlowEndpointsKeepTheirPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", slow(3*time.Second))
		e, stop := start(t, s, to, Options{MaxInFlight: 32})
		defer stop()
		for i := range 160 {
			e.Accept(s.append(fmt.Sprint(i), sub))
		}
		advance(10 * time.Second) // the first answers
		to.takePeak(sub)
		advance(10 * time.Second)
		if peak := to.takePeak(sub); peak < 10 {
			t.Errorf("%d in flight to an endpoint that answers late, want two thirds of the 16 places of its room", peak)
		}
		advance(40 * time.Second)
		if n := s.total(delivery.Delivered); n != 160 {
			t.Errorf("%d delivered in a minute, want 160", n)
		}
	})
}
