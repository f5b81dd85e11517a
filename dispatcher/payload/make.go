package payload

import (
	"context"
	"errors"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// Make makes the request of one attempt, and hands it to use in place of an endpoint, for a consumer that pulls. use must not
// keep the request: its memory is charged until use returns. The result is that of Send for an attempt that ended before its
// request. Its Reason is empty if use was called; then err is use's.
func (s *Sender) Make(ctx context.Context, r Request, use func(egress.Request) error) (result egress.Result, err error) {
	a := &attempt{
		sender: s, recipe: r.Recipe, target: r.Target, delivery: r.Delivery, number: r.Number, planned: r.Planned,
		begun: time.Now(), memory: account{budget: s.options.Memory, tenant: r.Tenant},
		kept: account{budget: s.options.Memory, tenant: r.Tenant},
	}
	defer a.kept.dropAll()
	defer a.memory.dropAll()
	request := egress.Request{Target: r.Target, Delivery: r.Delivery, Type: r.Event.Type, Number: r.Number, Body: r.Event.Body}
	if r.Recipe != nil {
		within, cancel := context.WithDeadline(ctx, a.begun.Add(r.Target.TimeLimit()))
		defer cancel()
		if request, err = a.make(within, r.Event); err != nil {
			return a.unmade(ctx, err), nil
		}
	}
	request.Tenant, request.Traceparent = r.Tenant, r.Traceparent
	return egress.Result{Started: a.begun}, use(request)
}

// unmade is failed, but for memory that was not to be had in time: nobody waits for it here.
func (a *attempt) unmade(ctx context.Context, err error) egress.Result {
	var known *refusal
	if !errors.As(err, &known) {
		return egress.Result{Started: a.begun, Reason: delivery.ReasonInterrupted}
	}
	return a.failed(ctx, ctx, err)
}
