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

// filterQuiet is how long after its last failure a filter, or a schedule, counts as healthy again.
const filterQuiet = 10 * time.Minute

// filters are the last failures of subscriptions' filters and schedules: one entry for each of them at most.
type filters struct {
	mu       sync.Mutex
	failures map[failing]filterFailure
}

// failing is the filter or the schedule of a subscription, by the type of its condition.
type failing struct {
	key       event.SubscriptionKey
	condition string
}

// filterFailure is why a filter or a schedule failed last.
type filterFailure struct {
	reason, message string
	at              time.Time
}

// note takes up a failure, and reports whether it is news.
func (f *filters) note(of failing, failure filterFailure) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, known := f.failures[of]
	if f.failures == nil {
		f.failures = make(map[failing]filterFailure)
	}
	f.failures[of] = failure
	return !known || before.reason != failure.reason || before.message != failure.message
}

// of returns the last failure, if it is not long ago, and for how long it counts.
func (f *filters) of(of failing, now time.Time) (failure filterFailure, left time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	failure, known := f.failures[of]
	if left = filterQuiet - now.Sub(failure.at); known && left <= 0 {
		delete(f.failures, of)
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
	for of := range f.failures {
		if _, ok := table.Get(of.key); !ok {
			delete(f.failures, of)
		}
	}
}

// FilterFailed notes that a subscription's filter failed for an event. The message shows nothing of the event. It never
// blocks.
func (w *Writer) FilterFailed(key event.SubscriptionKey, reason, message string) {
	w.evaluationFailed(failing{key, v1alpha1.ConditionFilterHealthy}, reason, message)
}

// ScheduleFailed is FilterFailed of schedules.
func (w *Writer) ScheduleFailed(key event.SubscriptionKey, reason, message string) {
	w.evaluationFailed(failing{key, v1alpha1.ConditionScheduleHealthy}, reason, message)
}

// RequestFailed is FilterFailed of what is evaluated at an attempt: recheck, lookup, redact, transform, outcome.
func (w *Writer) RequestFailed(key event.SubscriptionKey, reason, message string) {
	w.evaluationFailed(failing{key, v1alpha1.ConditionTransformHealthy}, reason, message)
}

func (w *Writer) evaluationFailed(of failing, reason, message string) {
	if w.filters.note(of, filterFailure{reason, message, time.Now()}) {
		w.Changed(of.key)
		w.upkeep.AddAfter(of.key, filterQuiet)
	}
}

// rulesHealthy are the conditions of a route's filter and of its schedule; none of what it has not.
func (w *Writer) rulesHealthy(route *routing.Route) (all []metav1.Condition) {
	if route.Rules.HasFilter() {
		all = append(all, w.evaluated(route, v1alpha1.ConditionFilterHealthy,
			"The filter failed for an event within the last %d minutes: %s; spec.filterErrors decides on such events"))
	}
	if route.Rules.HasSchedule() {
		all = append(all, w.evaluated(route, v1alpha1.ConditionScheduleHealthy,
			"The schedule failed for an event within the last %d minutes: %s; a delivery that could not be planned is Failed with reason ScheduleFailed, and what could not be cancelled is not"))
	}
	if route.Endpoint.Recipe.Evaluates() {
		all = append(all, w.evaluated(route, v1alpha1.ConditionTransformHealthy,
			"Making a request, or reading its answer, failed for a delivery within the last %d minutes: %s; a delivery whose request cannot be made is retried"))
	}
	return all
}

// evaluated is a condition of what is evaluated for each event.
func (w *Writer) evaluated(route *routing.Route, condition, failed string) metav1.Condition {
	failure, left := w.filters.of(failing{route.Key, condition}, time.Now())
	c := metav1.Condition{
		Type: condition, ObservedGeneration: route.Generation, Status: metav1.ConditionTrue,
		Reason: v1alpha1.ReasonEvaluated, Message: fmt.Sprintf("No evaluation failed within the last %d minutes", int(filterQuiet.Minutes())),
	}
	if left > 0 {
		c.Status, c.Reason = metav1.ConditionFalse, failure.reason
		c.Message = fmt.Sprintf(failed, int(filterQuiet.Minutes()), failure.message)
		w.upkeep.AddAfter(route.Key, left)
	}
	return c
}
