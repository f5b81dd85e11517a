package delivery

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
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
		e.Release(t.Context(), ShardOf(sub))
		if took := time.Since(before); took < 9*time.Second || took > 9100*time.Millisecond {
			t.Errorf("the release took %v, want 9s", took)
		}
		if s.total(Delivered) != 32 || len(to.to(sub)) != 32 {
			t.Errorf("%d delivered in %d attempts, want the 32 that were in flight", s.total(Delivered), len(to.to(sub)))
		}
		e.Accept(s.append("later", sub))
		advance(time.Minute)
		if len(to.to(sub)) != 32 {
			t.Error("an attempt was made after the release")
		}
		e.Take(Lease{Shard: ShardOf(sub), Epoch: 1})
		advance(time.Minute)
		if s.total(Delivered) != 101 || len(to.to(sub)) != 101 {
			t.Errorf("%d delivered in %d attempts after the shard came back, want 101 in 101", s.total(Delivered), len(to.to(sub)))
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
		e.Release(ctx, ShardOf(sub))
		if took := time.Since(before); took != 3*time.Second {
			t.Errorf("the release took %v, want 3s", took)
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
		s.epochs[ShardOf(sub)] = 2
		s.mu.Unlock()
		e.Lose(ShardOf(sub))
		advance(time.Minute)
		if s.total(Delivered) != 0 || len(to.to(sub)) != 1 {
			t.Errorf("%d recorded, %d attempts; want 0, 1", s.total(Delivered), len(to.to(sub)))
		}
		e.Take(Lease{Shard: ShardOf(sub), Epoch: 2})
		advance(time.Minute)
		if s.total(Delivered) != 1 {
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
		e.Notice(Backlog{Subscription: sub, Due: d.Due})
		synctest.Wait()
		if len(to.to(sub)) != 1 {
			t.Error("not delivered at the notice")
		}
	})
}
