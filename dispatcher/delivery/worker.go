package delivery

import (
	"time"

	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// deliver makes attempts until the engine stops or has enough idle workers.
func (e *Engine) deliver() {
	for {
		l, d, endpoint, ok := e.next()
		if !ok {
			return
		}
		e.attempt(l, d, endpoint)
	}
}

// next waits for a delivery to attempt. Lanes are served in turn, one delivery each.
func (e *Engine) next() (*lane, PendingDelivery, *Endpoint, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.stopping {
		if e.serve.len() == 0 || e.sentBytes >= e.MaxInFlightBytes {
			if e.idle >= maxIdleWorkers {
				break
			}
			e.idle++
			e.work.Wait() // who wakes it has taken it from idle
			continue
		}
		l := e.serve.pop()
		l.queued = false
		if !e.serves(l) || !l.paced(e.Now()) { // it may have changed since it was queued
			e.arrange(l)
			continue
		}
		d := l.ready.pop()
		e.held--
		l.inFlight++
		e.inFlight++
		e.sentBytes += d.Size
		e.arrange(l)
		return l, d, l.endpoint, true
	}
	e.workers--
	return nil, PendingDelivery{}, nil, false
}

// attempt sends d once, and passes on what follows from the answer.
func (e *Engine) attempt(l *lane, d PendingDelivery, endpoint *Endpoint) {
	ev, err := d.Event, error(nil)
	if ev == nil {
		ev, err = e.Store.Event(e.attempts, d.ID.Event)
	}
	switch {
	case err != nil:
		e.putBack(l, d, err)
		return
	case ev.Namespace != endpoint.Namespace:
		// Cannot happen; if it does, this line is what keeps one tenant's data from another.
		e.Logger.Error(nil, "An event of another namespace was about to be delivered; the delivery is given up", "delivery", d.ID, "namespace", ev.Namespace, "subscriptionNamespace", endpoint.Namespace)
		e.finish(l, Outcome{Delivery: d, State: Failed}, egress.Result{})
		return
	}
	result := e.Sender.Send(e.attempts, egress.Request{
		Target: endpoint.Target, Delivery: d.ID, Type: ev.Type, Number: d.Attempts + 1, Body: ev.Body,
	})
	if result.Reason == egress.ReasonInterrupted {
		e.putBack(l, d, nil)
		return
	}
	e.metrics.observe(d, result)
	e.finish(l, e.outcome(d, endpoint, result), result)
}

// outcome decides what follows from the result of an attempt of d.
func (e *Engine) outcome(d PendingDelivery, endpoint *Endpoint, result egress.Result) Outcome {
	o := Outcome{Delivery: d, Attempt: &Attempt{
		Number: d.Attempts + 1, Started: result.Started, Duration: result.Duration, StatusCode: result.StatusCode, Reason: result.Reason,
	}}
	o.State, o.Due = endpoint.Retry.After(d, result, e.Now(), e.Jitter())
	if result.StatusCode == statusGone {
		o.Gone = endpoint.Generation
	}
	return o
}

// statusGone is 410 (RFC 9110, section 15.5.11): the endpoint is not there any more, and will not be.
const statusGone = 410

// finish takes the attempt's result into account at once, and hands the outcome to the recorder. It blocks while the
// store is too far behind.
func (e *Engine) finish(l *lane, o Outcome, result egress.Result) {
	e.mu.Lock()
	e.land(l, &o.Delivery)
	if o.Attempt != nil {
		if result.Delivered() {
			l.failures, l.gone = 0, 0
		} else {
			l.failures++
		}
		if o.Gone != 0 {
			l.gone = o.Gone
		}
	}
	o.Delivery.Event, o.Epoch = nil, l.lease.Epoch
	e.arrange(l)
	e.mu.Unlock()
	e.outcomes <- settlement{lane: l, outcome: o}
}

// putBack leaves d pending as it was: the engine stopped before an answer came, or the store could not give the event.
func (e *Engine) putBack(l *lane, d PendingDelivery, cause error) {
	if cause != nil && e.attempts.Err() == nil {
		e.Logger.Error(cause, "Reading an event failed; its delivery waits", "delivery", d.ID)
		if endpoint := l.endpoint; endpoint != nil && !e.Now().Before(endpoint.Retry.Expires(d)) {
			e.finish(l, Outcome{Delivery: d, State: Failed}, egress.Result{})
			return
		}
		time.AfterFunc(storeRetry, func() { e.again(l, d) }) // until then it is held
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.land(l, &d)
	if cause == nil {
		l.release(d.ID.Event)
		l.leave(d.Position())
	}
	e.arrange(l)
}

// land takes d out of flight.
func (e *Engine) land(l *lane, d *PendingDelivery) {
	l.inFlight--
	e.inFlight--
	full := e.sentBytes >= e.MaxInFlightBytes
	e.sentBytes -= d.Size
	e.letGo(d)
	e.calmed()
	if full && e.sentBytes < e.MaxInFlightBytes {
		for range e.serve.len() {
			e.summon()
		}
	}
}

// again puts d, which is still held, back among the ready.
func (e *Engine) again(l *lane, d PendingDelivery) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping || l.closed {
		l.release(d.ID.Event)
		e.calmed()
		return
	}
	d.Event = nil
	l.ready.push(d)
	e.held++
	e.arrange(l)
}
