package engine

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

// told collects what an engine says happened.
type told struct {
	mu  sync.Mutex
	all []Happening
}

func (c *told) happened(h Happening) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, h)
}

// take returns what was told since the last call, and the types of it.
func (c *told) take() (all []Happening, types []event.Type) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, c.all = c.all, nil
	for _, h := range all {
		types = append(types, h.Type)
	}
	return all, types
}

func wantTold(t *testing.T, c *told, want ...event.Type) []Happening {
	t.Helper()
	all, types := c.take()
	if !slices.Equal(types, want) {
		t.Errorf("told of %v, want %v", types, want)
	}
	return all
}

// TestHealthIsToldOnce: an endpoint that begins to fail, is gone or recovers is told of when it does, and not again; what
// was told has been recorded.
func TestHealthIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to, c := newMemoryStore(), newEndpoints(), &told{}
		sub := to.add("a", status(500))
		e, stop := start(t, s, to, Options{Happened: c.happened})
		defer stop()
		for i := range BreakerThreshold - 1 {
			e.Accept(s.append(string(rune('a'+i)), sub))
		}
		advance(time.Second)
		wantTold(t, c)
		e.Accept(s.append("tenth", sub))
		advance(time.Second)
		failing := wantTold(t, c, event.EndpointFailing)
		if counts, err := s.Counts(t.Context(), sub); err != nil || counts.FailuresInARow != BreakerThreshold {
			t.Errorf("told of before it was recorded: %+v, %v", counts, err)
		}
		if h := failing[0]; h.Subscription != sub || h.Attempts != BreakerThreshold || h.StatusCode != 500 || h.Reason != delivery.ReasonStatusCode || !h.Run.IsZero() {
			t.Errorf("failing as %+v", h)
		}
		advance(time.Minute) // it goes on failing
		wantTold(t, c)
		to.answerWith(sub, ok)
		advance(time.Hour)
		wantTold(t, c, event.EndpointRecovered)
		if s.total(delivery.Pending) != 0 {
			t.Fatal("not all was delivered")
		}
		to.answerWith(sub, status(statusGone))
		e.Accept(s.append("gone", sub))
		advance(time.Second)
		gone := wantTold(t, c, event.EndpointGone)
		if h := gone[0]; h.Generation != 1 || h.StatusCode != statusGone || h.Run.IsZero() {
			t.Errorf("gone as %+v", h)
		}
		to.answerWith(sub, ok)
		to.edit(sub, func(endpoint *Endpoint) { endpoint.Generation = 2 })
		e.Use(to, true)
		advance(time.Hour)
		wantTold(t, c, event.EndpointRecovered)
	})
}

// TestStopsAreToldAgain: a process that takes over an endpoint that is failing or gone says so, under the same names.
func TestStopsAreToldAgain(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int{"failing": 500, "gone": statusGone} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, to := newMemoryStore(), newEndpoints()
				sub := to.add("a", status(code))
				first := &told{}
				e, stop := start(t, s, to, Options{Happened: first.happened})
				for i := range BreakerThreshold {
					e.Accept(s.append(string(rune('a'+i)), sub))
				}
				advance(time.Second)
				stop()
				before, types := first.take()
				if len(before) == 0 || code == statusGone && slices.Contains(types[1:], event.EndpointGone) {
					t.Fatalf("told of %v", types)
				}
				again := &told{}
				_, stop = start(t, s, to, Options{Happened: again.happened})
				defer stop()
				advance(time.Second)
				after, typesAgain := again.take()
				if code == statusGone { // the ten that were in flight are a run of failures as well
					types, before = types[:1], before[:1]
					typesAgain, after = typesAgain[len(typesAgain)-1:], after[len(after)-1:]
				}
				if !slices.Equal(types, typesAgain) || before[0].Run != after[0].Run || before[0].Generation != after[0].Generation {
					t.Errorf("told of %+v, and then of %+v", before, after)
				}
			})
		})
	}
}

// TestGivenUpIsTold: each delivery that is given up is told of, by an attempt or by its age, and none that is cancelled.
func TestGivenUpIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to, c := newMemoryStore(), newEndpoints(), &told{}
		once := to.add("once", status(500))
		to.edit(once, func(e *Endpoint) { e.Retry.MaxAttempts = 1 })
		suspended := to.add("suspended", ok)
		to.edit(suspended, func(e *Endpoint) { e.Suspended = true })
		deleted := to.add("deleted", status(500))
		e, stop := start(t, s, to, Options{Happened: c.happened})
		defer stop()
		fanouts := s.append("1", once)
		e.Accept(fanouts)
		advance(time.Second)
		h := wantTold(t, c, event.DeliveryFailed)[0]
		if h.Delivery != idOf(fanouts) || h.Attempts != 1 || h.StatusCode != 500 {
			t.Errorf("given up as %+v", h)
		}
		fanouts = s.append("2", suspended)
		e.Accept(fanouts)
		e.Accept(s.append("3", deleted))
		advance(time.Second)
		to.mu.Lock()
		delete(to.table, deleted)
		to.mu.Unlock()
		e.Use(to, true)
		advance(80 * time.Hour)
		h = wantTold(t, c, event.DeliveryFailed)[0]
		if h.Delivery != idOf(fanouts) || h.Attempts != 0 || h.Reason != "" {
			t.Errorf("aged out as %+v", h)
		}
	})
}

// TestGoneIsToldOnce: attempts that were in flight at the same time are told that the endpoint is gone, too.
func TestGoneIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to, c := newMemoryStore(), newEndpoints(), &told{}
		sub := to.add("a", func(ctx context.Context, r payload.Request) egress.Result {
			slow(time.Second)(ctx, r)
			return status(statusGone)(ctx, r)
		})
		e, stop := start(t, s, to, Options{Happened: c.happened})
		defer stop()
		e.Accept(s.append("1", sub))
		e.Accept(s.append("2", sub))
		advance(10 * time.Second)
		if n := len(to.to(sub)); n != 2 {
			t.Fatalf("%d attempts at once", n)
		}
		wantTold(t, c, event.EndpointGone)
	})
}
