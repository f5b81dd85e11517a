package engine

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

func TestReleaseWaitsForWhatIsInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", slow(10*time.Second))
		e, stop := start(t, s, to, Options{})
		defer stop()
		for i := range 100 {
			e.Accept(s.append(fmt.Sprint(i), sub))
		}
		advance(time.Second)
		before := time.Now()
		e.Release(t.Context(), delivery.ShardOf(sub))
		if took := time.Since(before); took < 9*time.Second || took > 9100*time.Millisecond {
			t.Errorf("the release took %v, want 9s", took)
		}
		if s.total(delivery.Delivered) != 32 || len(to.to(sub)) != 32 {
			t.Errorf("%d delivered in %d attempts, want the 32 that were in flight", s.total(delivery.Delivered), len(to.to(sub)))
		}
		e.Accept(s.append("later", sub))
		advance(time.Minute)
		if len(to.to(sub)) != 32 {
			t.Error("an attempt was made after the release")
		}
		e.Take(delivery.Lease{Shard: delivery.ShardOf(sub), Epoch: 1})
		advance(time.Minute)
		if s.total(delivery.Delivered) != 101 || len(to.to(sub)) != 101 {
			t.Errorf("%d delivered in %d attempts after the shard came back, want 101 in 101", s.total(delivery.Delivered), len(to.to(sub)))
		}
	})
}

func TestAReleaseEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", hang)
		e, stop := start(t, s, to, Options{})
		defer stop()
		e.Accept(s.append("1", sub))
		advance(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		before := time.Now()
		e.Release(ctx, delivery.ShardOf(sub))
		if took := time.Since(before); took != 3*time.Second {
			t.Errorf("the release took %v, want 3s", took)
		}
	})
}

func TestAStopGivesEachShardBackAsSoonAsItsAttemptsEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		quick, retried, slowly, never := to.add("a", ok), to.add("b", status(500)), to.add("c", slow(10*time.Second)), to.add("d", hang)
		if n := len(map[int]bool{delivery.ShardOf(quick): true, delivery.ShardOf(retried): true, delivery.ShardOf(slowly): true, delivery.ShardOf(never): true}); n != 4 {
			t.Fatalf("the subscriptions are in %d shards, want 4", n)
		}
		e, stop := start(t, s, to, Options{StopTimeout: 20 * time.Second})
		for i := range 100 {
			e.Accept(s.append(fmt.Sprint(i), quick, slowly))
		}
		e.Accept(s.append("retried", retried))
		e.Accept(s.append("never", never))
		advance(time.Second)

		var mu sync.Mutex
		given, delivered := map[int]time.Duration{}, map[int]int{}
		stopped := time.Now()
		s.given = func(shard int) {
			mu.Lock()
			defer mu.Unlock()
			given[shard], delivered[shard] = time.Since(stopped), s.total(delivery.Delivered)
		}
		stop()
		if took := time.Since(stopped); took < 20*time.Second || took > 20100*time.Millisecond {
			t.Errorf("the stop took %v, want 20s", took)
		}
		for shard := range delivery.Shards {
			want, recorded := time.Duration(0), 100
			switch shard {
			case delivery.ShardOf(slowly):
				want, recorded = 9*time.Second, 132
			case delivery.ShardOf(never):
				want, recorded = 20*time.Second, 132
			}
			if late := given[shard] - want; late < 0 || late > 100*time.Millisecond || delivered[shard] != recorded {
				t.Errorf("shard %d was given back %v after the stop, with %d deliveries recorded; want %v, %d", shard, given[shard], delivered[shard], want, recorded)
			}
		}
		if n := len(to.to(slowly)); n != 32 {
			t.Errorf("%d attempts, want the 32 that were in flight", n)
		}

		s.given = nil
		to.answerWith(retried, ok)
		to.answerWith(never, ok)
		_, stop = start(t, s, to, Options{})
		defer stop()
		advance(time.Minute)
		for sub, want := range map[event.SubscriptionKey]int{quick: 100, slowly: 100, retried: 2, never: 2} {
			if n := len(to.to(sub)); n != want {
				t.Errorf("%d attempts by both engines together, want %d", n, want)
			}
		}
		if s.total(delivery.Pending) != 0 {
			t.Errorf("%d deliveries are left", s.total(delivery.Pending))
		}
	})
}

func TestAStaleOwnersOutcomesAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", slow(10*time.Second))
		e, stop := start(t, s, to, Options{})
		defer stop()
		e.Accept(s.append("1", sub))
		advance(time.Second)
		s.mu.Lock()
		s.epochs[delivery.ShardOf(sub)] = 2
		s.mu.Unlock()
		e.Lose(delivery.ShardOf(sub))
		advance(time.Minute)
		if s.total(delivery.Delivered) != 0 || len(to.to(sub)) != 1 {
			t.Errorf("%d recorded, %d attempts; want 0, 1", s.total(delivery.Delivered), len(to.to(sub)))
		}
		e.Take(delivery.Lease{Shard: delivery.ShardOf(sub), Epoch: 2})
		advance(time.Minute)
		if s.total(delivery.Delivered) != 1 {
			t.Error("not delivered under the new lease")
		}
	})
}

func TestNoticeOfWhatWasStoredElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", ok)
		e, stop := start(t, s, to, Options{})
		defer stop()
		advance(time.Second)
		d := s.append("1", sub)[0]
		advance(time.Second)
		if len(to.to(sub)) != 0 {
			t.Fatal("delivered without a notice")
		}
		e.Notice(delivery.Backlog{Subscription: sub, Due: d.Due})
		synctest.Wait()
		if len(to.to(sub)) != 1 {
			t.Error("not delivered at the notice")
		}
	})
}

// TestLimitsHoldAcrossHandOvers lets one engine after another work on the same store, each for a second. What the store
// keeps is enough: a breaker that is open stays open, and a rate is exceeded by no more than a burst for each of them.
// TestOrderingByResource does the same with ordered deliveries.
func TestLimitsHoldAcrossHandOvers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		limited := to.add("limited", ok)
		to.edit(limited, func(e *Endpoint) { e.RequestsPerSecond = 40 })
		dead := to.add("dead", func(context.Context, payload.Request) egress.Result {
			<-time.After(100 * time.Millisecond)
			return egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode}
		})
		e, stop := start(t, s, to, Options{})
		for i := range 1000 {
			e.Accept(s.append(fmt.Sprint(i), limited, dead))
		}
		advance(time.Second)
		const others = 10
		to.takePeak(dead)
		for range others {
			stop()
			_, stop = start(t, s, to, Options{})
			advance(time.Second)
		}
		stop()
		if n, burst := len(to.to(limited)), 40/paceBurst; n < 40*others || n > 40*(1+others)+burst*(1+others) {
			t.Errorf("%d attempts in %d s at 40 a second", n, 1+others)
		}
		if peak := to.takePeak(dead); peak != 1 {
			t.Errorf("%d attempts at once at an endpoint whose breaker was open, want 1", peak)
		}
	})
}
