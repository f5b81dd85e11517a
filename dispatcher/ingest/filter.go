package ingest

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/places"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

const (
	// filterTurn is how long a tenant's rules are evaluated before the next tenant's get their turn. One evaluation
	// may take longer, by expression.CostLimit.
	filterTurn = 5 * time.Millisecond
	// filterWaiters is how many events may wait for their turn.
	filterWaiters = 8192
	// filterRetry is when to come again if too many wait.
	filterRetry = 2 * time.Second
	// parsedBytes is what parsing holds for each byte of an event's JSON at most: two bytes make a value.
	parsedBytes = 75
)

// filters evaluates the filters and schedules of subscriptions. One processor at least is left to what has none.
type filters struct {
	turns     *places.Pool
	failures  *prometheus.CounterVec
	schedules *scheduleMetrics
	options   *Options
}

func newFilters(options *Options) (*filters, error) {
	f := &filters{
		options: options,
		turns:   places.New(runtime.GOMAXPROCS(0)-1, filterWaiters),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_filter_errors_total",
			Help: "Evaluations of a subscription's filter that failed, by reason; spec.filterErrors says what became of the event.",
		}, []string{"reason"}),
		schedules: newScheduleMetrics(),
	}
	for _, reason := range expression.Reasons() {
		f.failures.WithLabelValues(string(reason))
	}
	if options.Registerer == nil {
		return f, nil
	}
	return f, errors.Join(options.Registerer.Register(f.failures), options.Registerer.Register(f.schedules.errors), options.Registerer.Register(f.schedules.decisions))
}

// turn is a tenant's turn to have rules evaluated.
type turn struct {
	filters *filters
	tenant  string
	place   *place // of the publish, which has none while it waits and evaluates
	began   time.Time
	held    bool
}

// next begins the turn or, after filterTurn, lets others have theirs.
func (t *turn) next(ctx context.Context) error {
	if t.held && time.Since(t.began) <= filterTurn {
		return nil
	}
	t.end()
	t.place.give()
	err := t.filters.turns.Acquire(ctx, t.tenant, 1)
	if errors.Is(err, places.ErrFull) {
		return newProblem(overloaded, "more of the namespace's events wait for their filters than is its share; send the request again after the time in Retry-After").retry(filterRetry)
	}
	t.began, t.held = time.Now(), err == nil
	return err
}

// end gives the turn back.
func (t *turn) end() {
	if t.held {
		t.filters.turns.Release(t.tenant, 1)
		t.held = false
	}
}

// keeps asks one filter, and counts its failure.
func (f *filters) keeps(rules *routing.Rules, sub *delivery.Subscription, variables *expression.Variables) bool {
	keep, err := rules.Keeps(variables)
	if failure, ok := errors.AsType[*expression.Error](err); ok {
		f.failures.WithLabelValues(string(failure.Reason)).Inc()
		tell(f.options.FilterFailed, sub, failure)
	}
	return keep
}

// tell passes a failure on to the one who wants to hear of it.
func tell(hook func(event.SubscriptionKey, *expression.Error), sub *delivery.Subscription, failure *expression.Error) {
	if hook != nil {
		hook(sub.Key, failure)
	}
}
