package dispatcher

import (
	"context"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/payload"
	"github.com/clinikapi/eventflow/dispatcher/tracing"
)

// traceTimeout bounds how long the stop waits for the last spans to be exported.
const traceTimeout = 2 * time.Second

// tracedSender makes a span of each attempt for an event whose publish was traced, and passes the context on to the
// endpoint.
type tracedSender struct {
	engine.Sender
	dispatcher *dispatcher
}

// traced returns next, which makes spans if anything is traced.
func (d *dispatcher) traced(next engine.Sender) engine.Sender {
	if d.tracer == nil {
		return next
	}
	return &tracedSender{next, d}
}

// Send makes one attempt.
func (s *tracedSender) Send(ctx context.Context, r payload.Request) egress.Result {
	r.Traceparent = r.Event.Traceparent
	span := s.dispatcher.tracer.Deliver(r.Traceparent, func() tracing.Attempt { return s.dispatcher.attemptOf(&r) })
	if span != nil {
		r.Traceparent = span.Traceparent()
	}
	result := s.Sender.Send(ctx, r)
	reason := string(result.Reason)
	if result.Reason == delivery.ReasonRecheck {
		reason = ""
	}
	span.End(result.StatusCode, reason)
	return result
}

// attemptOf is what the span of an attempt says.
func (d *dispatcher) attemptOf(r *payload.Request) tracing.Attempt {
	a := tracing.Attempt{EventType: string(r.Event.Type), Delivery: r.Delivery.String(), Number: r.Number}
	if table := d.table.Load(); table != nil {
		if route, ok := table.Get(r.Delivery.Subscription); ok {
			a.Namespace, a.Subscription = route.Namespace, route.Name
		}
	}
	return a
}

// closeTracer exports what is left.
func (d *dispatcher) closeTracer() {
	ctx, cancel := context.WithTimeout(context.Background(), traceTimeout)
	defer cancel()
	if err := d.tracer.Close(ctx); err != nil {
		d.Logger.V(1).Info("The last traces could not be exported", "reason", err.Error())
	}
}
