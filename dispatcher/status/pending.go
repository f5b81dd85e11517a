package status

import (
	"maps"
	"sync"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// pending is what each subscription had to deliver when that was counted last.
type pending struct {
	mu      sync.Mutex
	counted bool
	counts  map[event.SubscriptionKey]int64 // those that have something: one entry for each subscription at most
}

// of returns a subscription's count, nil before the first counting.
func (p *pending) of(key event.SubscriptionKey) *int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.counted {
		return nil
	}
	return new(p.counts[key])
}

// swap takes new counts, and returns the subscriptions of which the count changed.
func (p *pending) swap(counts map[event.SubscriptionKey]int64) []event.SubscriptionKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.counts
	p.counts, p.counted = maps.Clone(counts), true
	var changed []event.SubscriptionKey
	for key, n := range p.counts {
		if before[key] != n {
			changed = append(changed, key)
		}
	}
	for key := range before {
		if _, ok := p.counts[key]; !ok {
			changed = append(changed, key)
		}
	}
	return changed
}

// Pending takes how many deliveries each subscription has pending, as they were counted; those that are not named have none. Only
// what changed is written, within the budget of upkeep. It never blocks.
func (w *Writer) Pending(counts map[event.SubscriptionKey]int64) {
	for _, key := range w.pending.swap(counts) {
		w.Changed(key)
	}
}

// carryPending lets the count that stands stand until there is another one.
func carryPending(wanted *v1alpha1.DeliveryCounts, before int64) {
	if wanted.Pending == nil && before >= 0 {
		wanted.Pending = &before
	}
}
