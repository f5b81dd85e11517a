package payload

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/places"
)

// Request is one attempt to be made.
type Request struct {
	Target *egress.Target
	// Recipe is nil for a subscription that gets its events as they are stored.
	Recipe   *Recipe
	Event    *delivery.Event
	Delivery event.DeliveryID
	// Number counts the delivery's attempts: 1, 2, 3, …
	Number int
	// Planned is the time that a schedule gave the delivery; zero without one.
	Planned time.Time
	// Tenant is the subscription's.
	Tenant string
	// Traceparent is egress.Request's.
	Traceparent string
	// Fresh and Written are egress.Request's. Event is not read any more after Written.
	Fresh   bool
	Written func()
}

// Client makes requests. egress.Client is the one that dispatchers use.
type Client interface {
	Send(ctx context.Context, r egress.Request) egress.Result
	Fetch(ctx context.Context, d egress.Document) ([]byte, egress.Result)
}

// The uses of expressions at an attempt, as metrics and failures name them.
const (
	UseRecheck   = "recheck"
	UseLookup    = "lookup"
	UseRedact    = "redact"
	UseTransform = "transform"
	UseOutcome   = "outcome"
)

// Failure is why an expression of a subscription had no result. Its message shows no data.
type Failure struct {
	// Use is one of the constants.
	Use string
	// Reason is one of expression.Reasons, or LookupFailed where the document could not be read.
	Reason, Message string
}

// Options are what a Sender needs. Client is required.
type Options struct {
	Client Client
	// Memory is charged, by tenant, with what making a request holds; nil charges nothing.
	Memory *budget.Budget
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
	// Failed is told of each failure of a subscription's expressions; nil for nobody. It must not block.
	Failed func(event.SubscriptionKey, Failure)
	// Now is the wall clock, for recheck. Default time.Now.
	Now func() time.Time
}

// Sender makes attempts. It is safe for concurrent use.
type Sender struct {
	options Options
	turns   *places.Pool // for evaluations, by tenant
	errors  *prometheus.CounterVec
}

// New returns a Sender.
func New(o Options) (*Sender, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Failed == nil {
		o.Failed = func(event.SubscriptionKey, Failure) {}
	}
	s := &Sender{options: o, turns: places.New(runtime.GOMAXPROCS(0)-1, maxWaiters)}
	s.errors = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eventflow_expression_errors_total",
		Help: "Evaluations at an attempt that failed, by use (recheck, lookup, redact, transform, outcome) and reason.",
	}, []string{"use", "reason"})
	for _, use := range []string{UseRecheck, UseLookup, UseRedact, UseTransform, UseOutcome} {
		for _, reason := range expression.Reasons() {
			s.errors.WithLabelValues(use, string(reason))
		}
	}
	if o.Registerer == nil {
		return s, nil
	}
	return s, o.Registerer.Register(s.errors)
}

// Send makes one attempt, as egress.Client's does. Beside the reasons of that, it returns delivery.ReasonRecheck if the
// delivery is not wanted any more, and the attempt was not made; ReasonLookupFailed and ReasonTransformFailed, with
// nothing sent; and ReasonNotSuccess.
func (s *Sender) Send(ctx context.Context, r Request) egress.Result {
	if r.Recipe == nil {
		return s.options.Client.Send(ctx, egress.Request{
			Target: r.Target, Delivery: r.Delivery, Type: r.Event.Type, Number: r.Number,
			Body: r.Event.Body, Tenant: r.Tenant, Traceparent: r.Traceparent, Fresh: r.Fresh, Written: r.Written,
		})
	}
	return s.follow(ctx, r)
}

// follow makes an attempt as its recipe says.
func (s *Sender) follow(ctx context.Context, r Request) egress.Result {
	a := &attempt{
		sender: s, recipe: r.Recipe, target: r.Target, delivery: r.Delivery, number: r.Number, planned: r.Planned,
		begun: time.Now(), memory: account{budget: s.options.Memory, tenant: r.Tenant},
		kept: account{budget: s.options.Memory, tenant: r.Tenant},
	}
	defer a.kept.dropAll()
	defer a.memory.dropAll()
	within, cancel := context.WithDeadline(ctx, a.begun.Add(r.Target.TimeLimit()))
	defer cancel()
	request, err := a.make(within, r.Event)
	if err != nil {
		return a.failed(ctx, within, err)
	}
	request.Tenant, request.Traceparent, request.Fresh = r.Tenant, r.Traceparent, r.Fresh
	written := r.Written
	request.Written = func() {
		a.memory.dropAll()
		if written != nil {
			written()
		}
	}
	r.Event = nil // what waits for the answer holds no event
	answer := request.Answer
	result := s.options.Client.Send(ctx, request)
	a.judge(ctx, answer, &result)
	return result
}

// refusal is why an attempt ends before its request.
type refusal struct {
	reason  delivery.Reason
	message string
}

func (r *refusal) Error() string { return r.message }

// failed is the result of an attempt that ended before its request.
func (a *attempt) failed(ctx, within context.Context, err error) egress.Result {
	result := egress.Result{Started: a.begun, Duration: time.Since(a.begun), Reason: delivery.ReasonTransformFailed}
	var known *refusal
	switch {
	case ctx.Err() != nil:
		result.Reason = delivery.ReasonInterrupted
	case errors.As(err, &known):
		result.Reason = known.reason
	case within.Err() != nil:
		result.Reason = delivery.ReasonTimeout
	}
	return result
}
