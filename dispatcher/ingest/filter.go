package ingest

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/places"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

const (
	// filterTurn is how long a tenant's filters are evaluated before the next tenant's get their turn. One evaluation
	// may take longer, by expression.CostLimit.
	filterTurn = 5 * time.Millisecond
	// filterWaiters is how many events may wait for their turn.
	filterWaiters = 8192
	// filterRetry is when to come again if too many wait.
	filterRetry = 2 * time.Second
	// parsedBytes is what parsing holds for each byte of an event's JSON at most: two bytes make a value.
	parsedBytes = 75
)

// filters evaluates the filters of subscriptions. One processor at least is left to what has none.
type filters struct {
	turns    *places.Pool
	failures *prometheus.CounterVec
	failed   func(sub event.SubscriptionKey, err *expression.Error) // may be nil
}

func newFilters(registerer prometheus.Registerer, failed func(event.SubscriptionKey, *expression.Error)) (*filters, error) {
	f := &filters{
		turns: places.New(runtime.GOMAXPROCS(0)-1, filterWaiters),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_filter_errors_total",
			Help: "Evaluations of a subscription's filter that failed, by reason; spec.filterErrors says what became of the event.",
		}, []string{"reason"}),
		failed: failed,
	}
	for _, reason := range expression.Reasons() {
		f.failures.WithLabelValues(string(reason))
	}
	if registerer == nil {
		return f, nil
	}
	return f, registerer.Register(f.failures)
}

// selected returns the subscriptions of the match whose filter keeps the event: those of the match if all do. What it
// returns beside those is charged.
func (f *filters) selected(ctx context.Context, s *scratch, m *match, in *incoming) ([]*delivery.Subscription, error) {
	account := &s.body.account
	parsed := min(int64(len(in.data)+len(in.previous)), 2*expression.MaxValues) * parsedBytes
	if err := account.hold(parsed); err != nil {
		return nil, err
	}
	defer account.drop(parsed)
	err := f.evaluate(ctx, s, m, expression.NewEvent(in.id, string(in.eventType), in.timestamp, in.data, in.previous))
	if err != nil || len(s.kept) == len(m.subscriptions) {
		return m.subscriptions, err
	}
	if err := account.hold(int64(len(s.kept)) * matchBytes); err != nil {
		return nil, err
	}
	return slices.Clone(s.kept), nil
}

// evaluate asks each filter, in turns by tenant, and puts the subscriptions that it keeps into s.kept.
func (f *filters) evaluate(ctx context.Context, s *scratch, m *match, ev *expression.Event) error {
	s.kept = s.kept[:0]
	tenant := s.body.account.tenant
	if err := f.enter(ctx, tenant); err != nil {
		return err
	}
	began, variables := time.Now(), expression.Variables{Event: ev}
	for i, sub := range m.subscriptions {
		filter := m.filters[i]
		if filter != nil && time.Since(began) > filterTurn {
			f.turns.Release(tenant)
			if err := f.enter(ctx, tenant); err != nil {
				return err
			}
			began = time.Now()
		}
		if filter == nil || f.keeps(filter, sub, &variables) {
			s.kept = append(s.kept, sub)
		}
	}
	f.turns.Release(tenant)
	return nil
}

func (f *filters) enter(ctx context.Context, tenant string) error {
	err := f.turns.Acquire(ctx, tenant)
	if errors.Is(err, places.ErrFull) {
		return newProblem(overloaded, "more of the namespace's events wait for their filters than is its share; send the request again after the time in Retry-After").retry(filterRetry)
	}
	return err
}

// keeps asks one filter, and counts its failure.
func (f *filters) keeps(filter *routing.Filter, sub *delivery.Subscription, variables *expression.Variables) bool {
	keep, err := filter.Keeps(variables)
	if failure, ok := errors.AsType[*expression.Error](err); ok {
		f.failures.WithLabelValues(string(failure.Reason)).Inc()
		if f.failed != nil {
			f.failed(sub.Key, failure)
		}
	}
	return keep
}
