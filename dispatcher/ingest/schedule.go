package ingest

import (
	"context"
	"errors"
	"slices"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// caused is what one event causes.
type caused struct {
	subscriptions []*delivery.Subscription // of deliveries that are due at once
	plans         []store.Plan
	cancels       []store.Cancel
}

// What an event holds of each plan and each cancellation while their lists grow, and of each subscription that it cancels.
const (
	planHeld      = 3 * int64(unsafe.Sizeof(store.Plan{}))
	cancelHeld    = 3 * int64(unsafe.Sizeof(store.Cancel{}))
	cancelledHeld = 64
)

// scheduleMetrics count what schedules decide.
type scheduleMetrics struct {
	errors, decisions *prometheus.CounterVec
}

// The decisions that are not a plan.Reason.
const (
	decidedPlanned = "Planned"
	decidedFailed  = "Failed"
	decidedCancel  = "Cancel"
)

func newScheduleMetrics() *scheduleMetrics {
	m := &scheduleMetrics{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_schedule_errors_total",
			Help: "Evaluations of a subscription's schedule that failed, by reason. One of at, key or window fails the delivery, one of cancelOn cancels nothing.",
		}, []string{"reason"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_schedule_decisions_total",
			Help: "What schedules decided on events, by decision, before the store told repetitions and older events.",
		}, []string{"decision"}),
	}
	for _, reason := range expression.Reasons() {
		m.errors.WithLabelValues(string(reason))
	}
	for _, decision := range []string{decidedPlanned, decidedFailed, decidedCancel, string(plan.Past), string(plan.OutsideWindow), string(plan.TooFarAhead)} {
		m.decisions.WithLabelValues(decision)
	}
	return m
}

// evaluation decides what one event causes for subscriptions that have rules.
type evaluation struct {
	*filters
	scratch   *scratch
	turn      turn
	published routing.Published
	in        *incoming
	result    caused
	// cancelled are the subscriptions that the event cancels a delivery of: it causes nothing else for them.
	cancelled map[*delivery.Subscription]struct{}
}

// decide asks the rules of the subscriptions of a match, in turns by tenant. What it returns is charged.
func (f *filters) decide(ctx context.Context, s *scratch, m *match, in *incoming, now time.Time) (caused, error) {
	account := &s.body.account
	parsed := min(int64(len(in.data)+len(in.previous)), 2*expression.MaxValues) * parsedBytes
	if err := account.hold(parsed); err != nil {
		return caused{}, err
	}
	defer account.drop(parsed)
	variables := expression.Variables{Event: expression.NewEvent(in.id, string(in.eventType), in.timestamp, in.data, in.previous)}
	e := evaluation{
		filters: f, scratch: s, in: in, turn: turn{filters: f, tenant: account.tenant, place: &s.place},
		published: routing.Published{Variables: &variables, Type: in.eventType, Now: now, Resource: s.parser.resourceOf(in)},
	}
	err := e.run(ctx, m)
	e.turn.end()
	if err != nil {
		return caused{}, err
	}
	if len(s.kept) == len(m.subscriptions) {
		e.result.subscriptions = m.subscriptions
		return e.result, nil
	}
	if err := account.hold(int64(len(s.kept)) * matchBytes); err != nil {
		return caused{}, err
	}
	e.result.subscriptions = slices.Clone(s.kept)
	return e.result, nil
}

// run asks each rule. It puts the subscriptions of deliveries that are due at once into the scratch's kept.
func (e *evaluation) run(ctx context.Context, m *match) error {
	for _, route := range m.cancels {
		if err := e.turn.next(ctx); err != nil {
			return err
		}
		if err := e.cancel(route); err != nil {
			return err
		}
	}
	s := e.scratch
	s.kept = s.kept[:0]
	for i, sub := range m.subscriptions {
		var rules *routing.Rules
		if m.rules != nil {
			rules = m.rules[i]
		}
		if rules == nil {
			s.kept = append(s.kept, sub)
			continue
		}
		if _, cancelled := e.cancelled[sub]; cancelled {
			continue
		}
		if err := e.turn.next(ctx); err != nil {
			return err
		}
		switch {
		case !e.keeps(rules, sub, e.published.Variables):
		case !rules.HasSchedule():
			s.kept = append(s.kept, sub)
		default:
			if err := e.plan(sub, rules); err != nil {
				return err
			}
		}
	}
	return nil
}

// cancel asks a route whether the event cancels what it has planned.
func (e *evaluation) cancel(route *routing.Route) error {
	sub, s := route.Subscription, e.scratch
	keys, cancels := route.Rules.Cancels(e.published, s.keys[:0], func(err error) { e.failed(sub, err) })
	s.keys = keys[:0]
	if !cancels {
		return nil
	}
	if err := s.body.account.hold(cancelledHeld + int64(len(keys))*cancelHeld); err != nil {
		return err
	}
	if e.cancelled == nil {
		e.cancelled = make(map[*delivery.Subscription]struct{})
	}
	e.cancelled[sub] = struct{}{}
	for _, key := range keys {
		e.result.cancels = append(e.result.cancels, store.Cancel{Subscription: sub, Key: key, Timestamp: e.in.timestamp})
	}
	e.schedules.decisions.WithLabelValues(decidedCancel).Inc()
	return nil
}

// plan asks a schedule when the event is delivered.
func (e *evaluation) plan(sub *delivery.Subscription, rules *routing.Rules) error {
	if err := e.scratch.body.account.hold(planHeld); err != nil {
		return err
	}
	p := store.Plan{Subscription: sub, Timestamp: e.in.timestamp}
	var err error
	p.Key, p.Decision, err = rules.Plan(e.published)
	decided := decidedPlanned
	switch {
	case err != nil:
		p.Failed, decided = true, decidedFailed
		e.failed(sub, err)
	case !p.Decision.Planned():
		decided = string(p.Decision.Reason)
	}
	e.schedules.decisions.WithLabelValues(decided).Inc()
	e.result.plans = append(e.result.plans, p)
	return nil
}

// failed counts an evaluation of a schedule that failed.
func (e *evaluation) failed(sub *delivery.Subscription, err error) {
	if failure, ok := errors.AsType[*expression.Error](err); ok {
		e.schedules.errors.WithLabelValues(string(failure.Reason)).Inc()
		tell(e.options.ScheduleFailed, sub, failure)
	}
}

// resourceOf returns a function that returns the resource of an event, which it looks for once.
func (p *parser) resourceOf(in *incoming) func() string {
	found, id := false, ""
	return func() string {
		if !found {
			found, id = true, string(p.resourceID(in.data))
		}
		return id
	}
}

// planned is how many plans are pending.
func planned(plans []store.Plan) (n int64) {
	for i := range plans {
		if !plans[i].Failed && plans[i].Decision.Planned() {
			n++
		}
	}
	return n
}
