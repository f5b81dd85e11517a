package engine

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

// plan gives the first delivery of a fan-out a planned time, and returns it as a store hands it out.
func (s *memoryStore) plan(fanouts []delivery.Fanout) delivery.PendingDelivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := idOf(fanouts)
	d := s.pending[id]
	d.Planned = d.Due
	s.pending[id] = d
	return d
}

// TestStart: a planned delivery goes only if the store starts it, each time it is attempted; one that is not pending any
// more is dropped; a store that fails is asked again.
func TestStart(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		starts   []started
		wantSent int
		wantAsks int
	}{
		"started":           {starts: []started{{ok: true}, {ok: true}}, wantSent: 2, wantAsks: 2},
		"cancelled":         {starts: []started{{}}, wantAsks: 1},
		"cancelled between": {starts: []started{{ok: true}, {}}, wantSent: 1, wantAsks: 2},
		"store fails":       {starts: []started{{err: errStore}, {ok: true}, {ok: true}}, wantSent: 2, wantAsks: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, to := newMemoryStore(), newEndpoints()
				sub := to.add("a", failing(1))
				e, stop := start(t, s, to, Options{})
				defer stop()
				s.mu.Lock()
				s.starts = tc.starts
				s.mu.Unlock()
				e.Resume([]delivery.PendingDelivery{s.plan(s.append("evt-1", sub))})
				advance(time.Hour)
				if got := len(to.to(sub)); got != tc.wantSent || s.asked != tc.wantAsks {
					t.Errorf("%d sent, %d asked, want %d and %d", got, s.asked, tc.wantSent, tc.wantAsks)
				}
				if e.held != 0 || e.places.total() != 0 || len(e.lanes[sub].held) != 0 || e.Memory.Used() != 0 {
					t.Errorf("something is still held: %d, %d, %d, %d bytes", e.held, e.places.total(), len(e.lanes[sub].held), e.Memory.Used())
				}
			})
		})
	}
}

// TestReasons: what ends without an attempt says why.
func TestReasons(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer     func(context.Context, payload.Request) egress.Result
		deleted    bool
		wantState  delivery.State
		wantReason delivery.Reason
		wantTries  int
	}{
		"recheck": {answer: func(context.Context, payload.Request) egress.Result {
			return egress.Result{Reason: delivery.ReasonRecheck}
		}, wantState: delivery.Cancelled, wantReason: delivery.ReasonRecheck},
		"given up": {answer: func(context.Context, payload.Request) egress.Result {
			return egress.Result{StatusCode: 400, Reason: delivery.ReasonStatusCode, GiveUp: true}
		}, wantState: delivery.Failed, wantTries: 1},
		"deleted": {answer: status(500), deleted: true, wantState: delivery.Cancelled, wantReason: delivery.ReasonSubscriptionDeleted, wantTries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, to := newMemoryStore(), newEndpoints()
				sub := to.add("a", tc.answer)
				e, stop := start(t, s, to, Options{})
				defer stop()
				fanouts := s.append("evt-1", sub)
				e.Accept(fanouts)
				advance(time.Second)
				if tc.deleted {
					to.mu.Lock()
					delete(to.table, sub)
					to.mu.Unlock()
					e.Use(to, true)
				}
				advance(time.Minute)
				s.mu.Lock()
				defer s.mu.Unlock()
				id := idOf(fanouts)
				if s.finished[id] != tc.wantState || s.reasons[id] != tc.wantReason || len(s.attempts[id]) != tc.wantTries {
					t.Errorf("%s, %q, %d attempts, want %s, %q, %d", s.finished[id], s.reasons[id], len(s.attempts[id]), tc.wantState, tc.wantReason, tc.wantTries)
				}
			})
		})
	}
}

// TestDeletedWhilePlanned: what is planned for next year ends with its subscription.
func TestDeletedWhilePlanned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, to := newMemoryStore(), newEndpoints()
		sub := to.add("a", status(200))
		e, stop := start(t, s, to, Options{})
		defer stop()
		fanouts := s.append("evt-1", sub)
		id := idOf(fanouts)
		s.mu.Lock()
		d := s.pending[id]
		d.Due = d.Due.Add(365 * 24 * time.Hour)
		d.Planned, d.Since = d.Due, d.Due
		s.pending[id] = d
		s.mu.Unlock()
		e.Notice(delivery.Backlog{Subscription: sub, Due: d.Due})
		advance(time.Second)
		to.mu.Lock()
		delete(to.table, sub)
		to.mu.Unlock()
		e.Use(to, true)
		advance(time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.finished[id] != delivery.Cancelled || s.reasons[id] != delivery.ReasonSubscriptionDeleted {
			t.Errorf("it is %s, %q, want Cancelled, SubscriptionDeleted", s.finished[id], s.reasons[id])
		}
	})
}

// TestRepeats: one attempt is repeated for a closed connection and for an access token, and no more often.
func TestRepeats(t *testing.T) {
	t.Parallel()
	for stale, want := range map[int]delivery.State{0: delivery.Delivered, 1: delivery.Delivered, 2: delivery.Delivered, 3: delivery.Pending} {
		synctest.Test(t, func(t *testing.T) {
			s, to := newMemoryStore(), newEndpoints()
			calls := 0
			sub := to.add("a", func(_ context.Context, r payload.Request) egress.Result {
				if calls++; calls <= stale {
					return egress.Result{StatusCode: 401, Reason: delivery.ReasonTokenRefused}
				}
				if r.Fresh != (stale > 0) {
					t.Errorf("fresh %t after %d", r.Fresh, stale)
				}
				return egress.Result{StatusCode: 200}
			})
			e, stop := start(t, s, to, Options{})
			defer stop()
			fanouts := s.append("evt-1", sub)
			e.Accept(fanouts)
			advance(time.Second)
			s.mu.Lock()
			defer s.mu.Unlock()
			if id := idOf(fanouts); len(s.attempts[id]) != 1 || s.attempts[id][0].Reason.Repeats() || (s.finished[id] == delivery.Delivered) != (want == delivery.Delivered) {
				t.Errorf("%d stale: %s, %d attempts", stale, s.finished[id], len(s.attempts[id]))
			}
		})
	}
}
