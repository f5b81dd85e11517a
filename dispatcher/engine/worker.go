package engine

import (
	"fmt"
	"sync"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

// deliver makes attempts until the engine stops or has enough idle workers.
func (e *Engine) deliver() {
	f := spareFlights.Get().(*flight)
	for called := true; e.next(f, called); called = false {
		e.attempt(f)
	}
	*f = flight{}
	spareFlights.Put(f)
}

// spareFlights are those of workers that have ended: under load, workers come and go.
var spareFlights = sync.Pool{New: func() any { return new(flight) }}

// next waits for a delivery to attempt, and takes it into flight. It returns false if the worker is to end. called is set
// if the worker was made to look.
func (e *Engine) next(f *flight, called bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for ; !e.stopping; called = true {
		if called {
			e.called--
		}
		if e.pick(f) {
			return true
		}
		if e.idle >= maxIdleWorkers {
			break
		}
		e.idle++
		e.work.Wait() // summon has decremented idle already
	}
	e.workers--
	return false
}

// pick takes the delivery whose turn it is into flight: rooms take turns, in each room its tenants, and of each tenant its
// lanes. It returns false if nothing may start now.
func (e *Engine) pick(f *flight) bool {
	for range rooms {
		e.turn = (e.turn + 1) % rooms
		q := &e.serve[e.turn]
		for t := q.next(); t != nil; t = q.next() {
			if e.pickFrom(t, e.turn, f) {
				return true
			}
		}
	}
	return false
}

// pickFrom takes a delivery of the tenant into flight, if it has one for the room, and a place and memory for it.
func (e *Engine) pickFrom(t *tenant, r room, f *flight) bool {
	if t.serve[r].len() == 0 {
		e.dismiss(t)
		return false
	}
	if !e.places.admits(r, &t.use) {
		e.serve[r].park(t)
		e.unpark(r)
		return false
	}
	l := e.nextLane(t, r)
	if l == nil {
		e.again(t, r)
		return false
	}
	charged := 2*int64(l.ready.items[0].Size) + attemptBytes
	if !e.charge(t, charged) {
		l.queued, l.listed[r] = true, true
		t.serve[r].push(l)
		e.serve[r].starve(t)
		if e.feedAt.IsZero() {
			e.feedAt = e.Now().Add(starvedPause)
			e.rouse()
		}
		return false
	}
	if l.limiter != nil && !l.paced(e.Now()) {
		e.give(t, charged)
		e.arrange(l)
		e.again(t, r)
		return false
	}
	e.launch(f, l, charged)
	e.arrange(l)
	e.again(t, r)
	return true
}

// nextLane takes the tenant's lane whose turn it is; nil if it has nothing to serve in the room any more.
func (e *Engine) nextLane(t *tenant, r room) *lane {
	l := t.serve[r].pop()
	if l.tenant != t {
		return nil // it was the tenant's when it was queued
	}
	l.listed[r] = false
	if !l.queued || l.queuedIn != r {
		return nil
	}
	l.queued = false
	at := l.startAt()
	if l.room() != r || !e.serves(l) || !at.IsZero() && at.After(e.Now()) { // it changed since it was queued
		e.arrange(l)
		return nil
	}
	return l
}

// again lets the tenant wait for its next turn, if it has more to serve, and sees to it that a worker comes for it.
func (e *Engine) again(t *tenant, r room) {
	if t.serve[r].len() > 0 && e.serve[r].enter(t) && e.called <= 0 {
		e.summon()
	}
}

// attempt sends the delivery in flight once, and passes on what follows from the answer.
func (e *Engine) attempt(f *flight) {
	result, err := e.send(f)
	switch {
	case err != nil:
		e.putBack(f, err)
	case result.Reason == delivery.ReasonInterrupted:
		e.putBack(f, nil)
	case result.Reason == reasonForeign:
		e.finish(f, delivery.Outcome{Delivery: f.delivery, State: delivery.Failed}, egress.Result{})
	case result.Reason == reasonDropped:
		e.drop(f)
	case result.Reason == delivery.ReasonRecheck:
		e.finish(f, delivery.Outcome{Delivery: f.delivery, State: delivery.Cancelled, Reason: delivery.ReasonRecheck}, egress.Result{})
	default:
		e.metrics.observe(f.delivery, result)
		e.finish(f, e.outcome(f.delivery, f.endpoint, result), result)
	}
}

// The engine's own reasons, which nobody sees.
const (
	reasonForeign delivery.Reason = "Foreign" // the event is another namespace's
	reasonDropped delivery.Reason = "Dropped" // the store says that the delivery is not pending any more
)

// keptBody is the size up to which a body is kept while its answer is awaited: less than what it costs to let it go.
const keptBody = 2 << 10

// maxRepeats is how often one attempt is repeated at once: because its connection was closed, and because its access
// token is not taken any more.
const maxRepeats = 2

// send makes the attempt, and repeats it while its reason says so. A planned delivery is started first: what comes of
// that is reasonDropped if it is not pending any more.
func (e *Engine) send(f *flight) (result egress.Result, err error) {
	if !f.delivery.Planned.IsZero() {
		started, err := e.Store.Start(e.attempts, f.delivery)
		if err != nil {
			return result, fmt.Errorf("start a planned delivery: %w", err)
		}
		if !started {
			return egress.Result{Reason: reasonDropped}, nil
		}
	}
	var written func()
	if f.delivery.Size > keptBody {
		written = func() { e.written(f) }
	}
	for repeats := 0; ; repeats++ {
		ev := f.delivery.Event
		if ev == nil {
			if ev, err = e.Store.Event(e.attempts, f.delivery.ID.Event); err != nil {
				return result, err
			}
		}
		if ev.Tenant != f.endpoint.Tenant && ev.Tenant != f.endpoint.Namespace {
			// Cannot happen; if it does, this line is what keeps one tenant's data from another.
			e.Logger.Error(nil, "An event of another tenant was about to be delivered; the delivery is given up", "delivery", f.delivery.ID, "tenant", ev.Tenant, "subscriptionTenant", f.endpoint.Tenant)
			return egress.Result{Reason: reasonForeign}, nil
		}
		result = e.Sender.Send(e.attempts, payload.Request{
			Target: f.endpoint.Target, Recipe: f.endpoint.Recipe, Event: ev, Delivery: f.delivery.ID, Number: f.delivery.Attempts + 1,
			Planned: f.delivery.Planned, Tenant: f.endpoint.Tenant, Fresh: repeats > 0, Written: written,
		})
		switch {
		case !result.Reason.Repeats():
			return result, nil
		case repeats == maxRepeats: // no connection is stale that is new
			result.Reason = delivery.ReasonStatusCode
			return result, nil
		}
	}
}

// outcome decides what follows from the result of an attempt of d.
func (e *Engine) outcome(d delivery.PendingDelivery, endpoint *Endpoint, result egress.Result) delivery.Outcome {
	o := delivery.Outcome{Delivery: d, Attempt: &delivery.Attempt{
		Number: d.Attempts + 1, Started: result.Started, Duration: result.Duration, StatusCode: result.StatusCode, Reason: result.Reason,
	}}
	o.State, o.Due = endpoint.Retry.After(d, result, e.Now(), e.Jitter())
	if result.StatusCode == statusGone && !result.Delivered() {
		o.Gone = endpoint.Generation
	}
	return o
}

// statusGone is 410 (RFC 9110, section 15.5.11): the endpoint is not there any more, and will not be.
const statusGone = 410

// finish takes the attempt's result into account at once, and hands the outcome to the recorder. It blocks while the
// store is too far behind.
func (e *Engine) finish(f *flight, o delivery.Outcome, result egress.Result) {
	l := f.lane
	e.mu.Lock()
	e.land(f)
	before := l.health()
	if o.Attempt != nil {
		l.saw(result, o, e.Now(), e.Patience)
	}
	now := before.to(l.health())
	o.Delivery.Event, o.Epoch = nil, l.lease.Epoch
	e.arrange(l)
	e.mu.Unlock()
	e.outcomes <- settlement{lane: l, outcome: o, became: now}
}

// saw takes into account what an attempt that ended now showed of the endpoint.
func (l *lane) saw(r egress.Result, o delivery.Outcome, now time.Time, patience time.Duration) {
	if r.Delivered() {
		l.failures, l.gone = 0, 0
		if at := r.Started.Add(r.Duration); at.After(l.delivered) {
			l.delivered = at
		}
	} else {
		l.failures++
	}
	if o.Gone != 0 {
		l.gone = o.Gone
	}
	l.evidence = evidenceOf(r, patience)
	longest := probePause
	if l.endpoint != nil {
		longest = l.endpoint.Retry.MaxAge
		if r.StatusCode != 0 && l.allowed != r.AllowedPerMinute {
			l.allowed = r.AllowedPerMinute
			l.pace(now)
		}
	}
	l.hold = l.hold.saw(r, now, longest)
}

// drop lets go of a delivery that the store has ended already: its outcome is there, and was counted.
func (e *Engine) drop(f *flight) {
	l, d := f.lane, f.delivery
	e.mu.Lock()
	defer e.mu.Unlock()
	e.land(f)
	l.release(d.ID.Event)
	if l.loading && l.settled != nil { // what the load found may be older
		l.settled[d.ID.Event] = struct{}{}
	}
	e.arrange(l)
	e.calmed()
}

// putBack leaves the delivery pending as it was: the engine stopped before an answer came, or the store could not give
// the event.
func (e *Engine) putBack(f *flight, cause error) {
	l, d := f.lane, f.delivery
	d.Event = nil
	if cause != nil && e.attempts.Err() == nil {
		e.Logger.Error(cause, "The store failed; a delivery waits", "delivery", d.ID)
		if endpoint := f.endpoint; !e.Now().Before(endpoint.Retry.Expires(d)) {
			e.finish(f, delivery.Outcome{Delivery: d, State: delivery.Failed}, egress.Result{})
			return
		}
		time.AfterFunc(storeRetry, func() { e.retry(l, d) }) // until then it is held
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.land(f)
	if cause == nil {
		l.release(d.ID.Event)
		l.leave(d.Position())
	}
	e.arrange(l)
}

// retry puts d, which is still held, back among the ready.
func (e *Engine) retry(l *lane, d delivery.PendingDelivery) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping || l.closed {
		l.release(d.ID.Event)
		e.calmed()
		return
	}
	l.ready.push(d)
	l.tenant.held++
	e.held++
	e.arrange(l)
}
