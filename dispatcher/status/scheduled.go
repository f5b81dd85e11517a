package status

import (
	"sync"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// Scheduled is what of a subscription's deliveries waits for its planned time.
type Scheduled struct {
	Count int64
	// Next is when the first is due; zero without any.
	Next time.Time
}

// scheduledCounts are what each subscription had scheduled when that was counted last.
type scheduledCounts struct {
	mu     sync.Mutex
	counts map[event.SubscriptionKey]Scheduled // one entry for each subscription with a schedule at most
}

// swap takes new counts, and returns the subscriptions of which the count changed.
func (s *scheduledCounts) swap(counts map[event.SubscriptionKey]Scheduled) (changed []event.SubscriptionKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, now := range counts {
		if before, known := s.counts[key]; !known || before.Count != now.Count || !before.Next.Equal(now.Next) {
			changed = append(changed, key)
		}
	}
	for key := range s.counts {
		if _, ok := counts[key]; !ok {
			changed = append(changed, key)
		}
	}
	s.counts = counts
	return changed
}

// show adds what a route has scheduled to its counts: nothing before the first counting, and without a schedule.
func (s *scheduledCounts) show(route *routing.Route, c *v1alpha1.DeliveryCounts) {
	s.mu.Lock()
	now, known := s.counts[route.Key]
	s.mu.Unlock()
	if !known || !route.Rules.HasSchedule() {
		return
	}
	c.Scheduled = &now.Count
	if !now.Next.IsZero() {
		c.NextScheduledTime = new(seconds(now.Next))
	}
	if c.OldestPendingTime == nil { // then nothing else is pending
		c.Pending = new(now.Count)
	}
}

// Scheduled takes what each subscription with a schedule has scheduled, as it was counted; the map is the Writer's from
// then on. Only what changed is written, within the budget of upkeep. It never blocks.
func (w *Writer) Scheduled(counts map[event.SubscriptionKey]Scheduled) {
	for _, key := range w.scheduled.swap(counts) {
		w.Changed(key)
	}
}
