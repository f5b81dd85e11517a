package engine

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// TestCancellingOfOnesDelaysNoOther: one tenant's subscriptions with a large backlog are deleted, while recording takes its
// time. Another tenant's deliveries are cancelled, and others are delivered and recorded, as if it were alone.
func TestCancellingOfOnesDelaysNoOther(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		subs, each int
		restarted  bool // the engine starts when the subscriptions are gone already
	}{
		"one subscription":                   {subs: 1, each: 20000},
		"many subscriptions":                 {subs: 100, each: 200},
		"many subscriptions after a restart": {subs: 100, each: 200, restarted: true},
		"many, each more than a batch":       {subs: 40, each: 500, restarted: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { cancelling(t, test.subs, test.each, test.restarted) })
		})
	}
}

func cancelling(t *testing.T, subs, each int, restarted bool) {
	const grace, mine = 10 * time.Second, 10
	s, to := newMemoryStore(), newEndpoints()
	s.recordTime = 100 * time.Microsecond // each
	var gone []event.SubscriptionKey
	for i := range subs {
		gone = append(gone, to.addTo("greedy", fmt.Sprint("gone-", i), hang))
		to.edit(gone[i], func(e *Endpoint) { e.Suspended = true })
	}
	left := to.addTo("other", "gone", hang)
	to.edit(left, func(e *Endpoint) { e.Suspended = true })
	live := to.addTo("other", "live", slow(time.Millisecond))
	to.edit(live, func(e *Endpoint) { e.Ordered = true })
	s.namespace = "greedy"
	for i := range each {
		s.append(fmt.Sprint(i), gone...)
	}
	s.namespace = "other"
	var wait []event.DeliveryID
	for i := range mine {
		wait = append(wait, idOf(s.append(fmt.Sprint(i), left)))
	}
	remove := func() {
		to.mu.Lock()
		defer to.mu.Unlock()
		for _, sub := range append(gone, left) {
			delete(to.table, sub)
		}
	}
	if restarted {
		remove()
	}
	var counted sync.Mutex
	finished := map[string]int64{}
	e, stop := start(t, s, to, Options{CancelGrace: grace, Finished: func(tenant string, deliveries, _ int64) {
		counted.Lock()
		defer counted.Unlock()
		finished[tenant] += deliveries
	}})
	defer stop()
	if !restarted {
		remove()
		e.Use(to, true)
	}
	advance(grace)
	s.order = 1
	published, recorded := time.Now(), time.Duration(0)
	for i := range 20 {
		e.Accept(s.append(fmt.Sprint("live-", i), live))
	}
	cancelled, all := time.Duration(0), time.Duration(0)
	for all == 0 && time.Since(published) < time.Minute {
		advance(5 * time.Millisecond)
		switch since := time.Since(published); {
		case s.total(delivery.Delivered) == 20 && recorded == 0:
			recorded = since
		case s.states(wait, delivery.Cancelled) && cancelled == 0:
			cancelled = since
		case s.total(delivery.Pending) == 0:
			all = since
		}
	}
	t.Logf("the greedy tenant's were cancelled after %v, the other's after %v; its deliveries in order were recorded after %v", all, cancelled, recorded)
	if all == 0 {
		t.Fatalf("%d deliveries are pending after a minute", s.total(delivery.Pending))
	}
	if cancelled == 0 || cancelled > all/4 {
		t.Errorf("%d deliveries were cancelled after %v, those of the other tenant after %v", mine, cancelled, all)
	}
	want := map[string]int64{"greedy": int64(subs * each), "other": mine + 20}
	if restarted { // no quota counts what was gone before
		want = map[string]int64{"other": 20}
	}
	counted.Lock()
	defer counted.Unlock()
	if !maps.Equal(finished, want) {
		t.Errorf("the quotas were given back %v, want %v", finished, want)
	}
	if most := 20 * 100 * time.Millisecond; recorded == 0 || recorded > most { // each waits for one batch at most
		t.Errorf("20 deliveries in order took %v, want %v at most", recorded, most)
	}
}

// states reports whether all of the deliveries are in the state.
func (s *memoryStore) states(ids []event.DeliveryID, state delivery.State) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if s.finished[id] != state {
			return false
		}
	}
	return true
}
