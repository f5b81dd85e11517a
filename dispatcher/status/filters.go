package status

import (
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// filterQuiet is how long after its last failure a filter counts as healthy again.
const filterQuiet = 10 * time.Minute

// filters are the last failures of subscriptions' filters: one entry for each subscription at most.
type filters struct {
	mu       sync.Mutex
	failures map[event.SubscriptionKey]filterFailure
}

// filterFailure is why a filter failed last.
type filterFailure struct {
	reason, message string
	at              time.Time
}

// note takes up a failure, and reports whether it is news.
func (f *filters) note(key event.SubscriptionKey, failure filterFailure) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, known := f.failures[key]
	if f.failures == nil {
		f.failures = make(map[event.SubscriptionKey]filterFailure)
	}
	f.failures[key] = failure
	return !known || before.reason != failure.reason || before.message != failure.message
}

// of returns the last failure, if it is not long ago, and for how long it counts.
func (f *filters) of(key event.SubscriptionKey, now time.Time) (failure filterFailure, left time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	failure, known := f.failures[key]
	if left = filterQuiet - now.Sub(failure.at); known && left <= 0 {
		delete(f.failures, key)
		return filterFailure{}, 0
	}
	if !known {
		return filterFailure{}, 0
	}
	return failure, left
}

// forget drops the failures of subscriptions that a table does not have.
func (f *filters) forget(table *routing.Table) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.failures {
		if _, ok := table.Get(key); !ok {
			delete(f.failures, key)
		}
	}
}

// FilterFailed notes that a subscription's filter failed for an event. The message shows nothing of the event. It never
// blocks.
func (w *Writer) FilterFailed(key event.SubscriptionKey, reason, message string) {
	if w.filters.note(key, filterFailure{reason, message, time.Now()}) {
		w.Changed(key)
		w.upkeep.AddAfter(key, filterQuiet)
	}
}

// filterHealthy is the condition of a route's filter; none without one.
func (w *Writer) filterHealthy(route *routing.Route) []metav1.Condition {
	if route.Filter == nil {
		return nil
	}
	failure, left := w.filters.of(route.Key, time.Now())
	c := metav1.Condition{
		Type: v1alpha1.ConditionFilterHealthy, ObservedGeneration: route.Generation, Status: metav1.ConditionTrue,
		Reason: v1alpha1.ReasonEvaluated, Message: fmt.Sprintf("No evaluation failed within the last %d minutes", int(filterQuiet.Minutes())),
	}
	if left > 0 {
		c.Status, c.Reason = metav1.ConditionFalse, failure.reason
		c.Message = fmt.Sprintf("The filter failed for an event within the last %d minutes: %s; spec.filterErrors decides on such events", int(filterQuiet.Minutes()), failure.message)
		w.upkeep.AddAfter(route.Key, left)
	}
	return []metav1.Condition{c}
}
