package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

// TestABurstStaysInMemory publishes more than a lane's window, and less than the engine may hold.
func TestABurstStaysInMemory(t *testing.T) {
	t.Parallel()
	const n, window = 3000, 4000
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		var up atomic.Bool
		burst := to.add("burst", func(ctx context.Context, r payload.Request) egress.Result {
			if !up.Load() {
				return slow(time.Minute)(ctx, r)
			}
			return ok(ctx, r)
		})
		other := to.add("other", slow(time.Minute))
		e, stop := start(t, s, to, Options{MaxHeld: window, Memory: budget.New(2 << 20)})
		defer stop()
		for i := range n {
			e.Accept(s.append(fmt.Sprint(i), burst))
		}
		for i := range laneWindow {
			e.Accept(s.append(fmt.Sprint("other-", i), other))
		}
		synctest.Wait()
		e.mu.Lock()
		b, o := e.lanes[burst], e.lanes[other]
		if got := b.ready.len(); got < window/2-100 || got > window/2 { // some are in flight already
			t.Errorf("the burst has %d in memory, want nearly half of %d", got, window)
		}
		if o.backlogged || o.ready.len() == 0 {
			t.Errorf("the other lane has %d in memory, and backlogged is %t: want all of its own", o.ready.len(), o.backlogged)
		}
		for _, d := range o.ready.items {
			if d.Event == nil {
				t.Error("the other lane's bodies have to be read back")
				break
			}
		}
		e.mu.Unlock()
		up.Store(true)
		advance(10 * time.Minute)
		if got := s.total(delivery.Delivered); got != n+laneWindow {
			t.Errorf("%d delivered, want %d", got, n+laneWindow)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if size := cap(b.ready.items); size > 2*laneWindow {
			t.Errorf("the queue keeps room for %d", size)
		}
		if b.peak > 4*laneWindow {
			t.Errorf("the set of what is held keeps room for %d", b.peak)
		}
	})
}

// TestAFailingLaneGivesItsMemoryBack lets an endpoint fail while a burst to it is in memory.
func TestAFailingLaneGivesItsMemoryBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		var up atomic.Bool
		sub := to.add("a", func(ctx context.Context, r payload.Request) egress.Result {
			if up.Load() {
				return ok(ctx, r)
			}
			<-time.After(time.Second)
			return egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode}
		})
		e, stop := start(t, s, to, Options{})
		defer stop()
		const n = 3000
		for i := range n {
			e.Accept(s.append(fmt.Sprint(i), sub))
		}
		synctest.Wait()
		held := func() int {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.held
		}
		if got := held(); got < n-64 {
			t.Errorf("%d are in memory before it fails, want nearly %d", got, n)
		}
		advance(10 * time.Second)
		if got := held(); got > laneWindow {
			t.Errorf("%d are in memory while it fails, want at most %d", got, laneWindow)
		}
		up.Store(true)
		advance(time.Hour)
		if got := s.total(delivery.Delivered); got != n {
			t.Errorf("%d delivered, want %d", got, n)
		}
	})
}
