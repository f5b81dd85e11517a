package pull

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/envelope"
	"github.com/clinikapi/eventflow/dispatcher/payload"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Page is the answer to a call.
type Page struct {
	// Body is the answer in JSON: {"deliveries": [{"id", "type", "attempt", "headers", "body"}], "cursor"}. The body of a
	// delivery is in base64.
	Body []byte
	// Count is how many deliveries it has, Acknowledged how many the call acknowledged.
	Count, Acknowledged int

	held    int64 // of the tenant's memory
	release func()
}

// Release gives back the memory of the page. It is called once, when Body is not read any more.
func (p *Page) Release() { p.release() }

// view is a delivery as answers have it.
type view struct {
	ID      string            `json:"id"`
	Type    string            `json:"type"`
	Attempt int               `json:"attempt"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

// part is where the text of a delivery stands in the body of a page.
type part struct {
	at         delivery.Position
	begin, end int
}

const (
	// pageBytes and deliveryBytes are what a page, and each delivery in it, hold beside bodies: headers, up to what a
	// subscription may add to them, its fingerprint, what was read from the store.
	pageBytes     = 4 << 10
	deliveryBytes = 4 << 10
	// bodyCopies are the body, its base64 and the answer's, which grows by doubling.
	bodyCopies = 6
	// pageBatch is how many deliveries are read from the store at once.
	pageBatch = 32
	// maxOutcomes are settled at once: until then they are held beside the page.
	maxOutcomes = 256
)

// assembling is the work on one page.
type assembling struct {
	*Puller
	route    *routing.Route
	limit    int
	page     *Page
	cursor   cursor
	outcomes []delivery.Outcome // of what cannot be answered
	settled  bool               // whether outcomes were kept already
	looked   int
	parts    []part // of the page's body, one for each delivery
	full     bool
	err      error // why the page ends, if it is empty
}

// page makes a page of what is due. next is when the first delivery that is not due is, zero if there is none.
func (p *Puller) page(ctx context.Context, route *routing.Route, limit int) (page *Page, next time.Time, err error) {
	if err := p.turns.Acquire(ctx, route.Tenant(), 1); err != nil {
		return nil, next, turnError(err)
	}
	defer p.turns.Release(route.Tenant(), 1)
	a := &assembling{Puller: p, route: route, limit: limit, page: &Page{}}
	a.cursor.subscription, a.cursor.given = route.Key, p.options.Now()
	defer func() {
		if err != nil || page.Count == 0 {
			p.give(route.Tenant(), a.page)
		}
	}()
	a.page.Body = append(a.page.Body, `{"deliveries":[`...)
	if next, err = a.read(ctx); err == nil && a.page.Count == 0 {
		err = a.err
	}
	// What was found out is kept whatever ends the page: else the next one would end at the same place.
	if failed := a.keep(ctx); failed != nil {
		return nil, next, failed
	}
	if err != nil && !a.goesOn(ctx, err) {
		return nil, next, err
	}
	if failed := a.drop(ctx); failed != nil {
		return nil, next, failed
	}
	if err != nil || len(a.parts) > a.page.Count && a.page.Count == 0 { // an empty page, and the next one is another
		next = a.cursor.given
	}
	text := ""
	if a.page.Count > 0 {
		text = a.cursor.String()
	}
	a.page.Body = append(append(append(a.page.Body, `],"cursor":"`...), text...), "\"}\n"...)
	return a.page, next, nil
}

// drop takes out of the page what is not pending any more where it was: it was cancelled while the page was made.
func (a *assembling) drop(ctx context.Context) error {
	if len(a.parts) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.assembly)
	defer cancel()
	at := make([]delivery.Position, len(a.parts))
	for i := range a.parts {
		at[i] = a.parts[i].at
	}
	still, err := a.options.Store.StillPending(ctx, a.route.Key, at)
	if err != nil || !slices.Contains(still, false) {
		return err
	}
	body := a.page.Body[:a.parts[0].begin] // each text moves to the left
	a.page.Count, a.cursor.prints = 0, a.cursor.prints[:0]
	for i, p := range a.parts {
		if !still[i] {
			continue
		}
		if a.page.Count > 0 {
			body = append(body, ',')
		}
		body = append(body, a.page.Body[p.begin:p.end]...)
		a.cursor.add(p.at)
		a.page.Count++
	}
	a.page.Body = body
	return nil
}

// goesOn reports whether the next page gets further than this one, which has nothing.
func (a *assembling) goesOn(ctx context.Context, err error) bool {
	return a.settled && ctx.Err() == nil && (errors.Is(err, ErrNoMemory) || errors.Is(err, context.DeadlineExceeded))
}

// keep settles the outcomes so far.
func (a *assembling) keep(ctx context.Context) error {
	if len(a.outcomes) == 0 {
		return nil
	}
	n, err := a.settle(ctx, a.route, a.outcomes)
	a.settled = a.settled || n > 0
	a.outcomes = a.outcomes[:0]
	return err
}

// read goes through what is due until the page is full.
func (a *assembling) read(ctx context.Context) (next time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.assembly)
	defer cancel()
	now := a.cursor.given // no delivery of a cursor is due after it was given
	var from delivery.Position
	for more := true; more; {
		var found []delivery.PendingDelivery
		found, from, more, err = a.options.Store.Due(ctx, a.route.Key, from, now, min(pageBatch, a.limit-a.page.Count), nil)
		if err != nil {
			return next, a.late(ctx, err)
		}
		for i := range found {
			if a.add(ctx, &found[i], now); a.full {
				return now, nil
			}
			found[i].Event = nil
		}
		if len(a.outcomes) >= maxOutcomes {
			if err := a.keep(ctx); err != nil {
				return next, err
			}
		}
		switch {
		case more && from.Due.After(now):
			return from.Due, nil
		case more && a.looked >= maxLooked:
			return now.Add(pollPause), nil
		}
	}
	return next, nil
}

// late is no error where the page has something, and its time is up.
func (a *assembling) late(ctx context.Context, err error) error {
	if a.page.Count > 0 && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil
	}
	return err
}

// stop ends the page, for a reason that is told if it is empty.
func (a *assembling) stop(err error) { a.full, a.err = true, err }

// add adds a delivery to the page. What cannot be answered is passed over: it has an outcome, or ages, and holds no memory.
func (a *assembling) add(ctx context.Context, d *delivery.PendingDelivery, now time.Time) {
	if a.looked++; !now.Before(a.route.Endpoint.Retry.Expires(*d)) {
		return // the engine is about to give it up
	}
	if a.page.Count > 0 && len(a.page.Body)+d.Size > maxPageBytes {
		a.stop(nil)
		return
	}
	count, held := a.page.Count, a.page.held
	if !a.charge(deliveryBytes + bodyCopies*int64(d.Size)) {
		a.stop(ErrNoMemory)
		return
	}
	if a.make(ctx, d, now); a.page.Count == count {
		a.giveTo(a.route.Tenant(), a.page, held)
	}
}

// make makes the request of a delivery that was charged, and adds it to the page, or notes why it is passed over.
func (a *assembling) make(ctx context.Context, d *delivery.PendingDelivery, now time.Time) {
	endpoint := a.route.Endpoint
	ev, ok := a.event(ctx, d)
	if !ok {
		return
	}
	result, err := a.options.Maker.Make(ctx, payload.Request{
		Target: endpoint.Target, Recipe: endpoint.Recipe, Event: ev, Delivery: d.ID, Number: d.Attempts + 1,
		Planned: d.Planned, Tenant: endpoint.Tenant, Traceparent: ev.Traceparent,
	}, func(r egress.Request) error { return a.write(r, d) })
	switch {
	case err != nil:
		a.stop(err)
	case result.Reason == delivery.ReasonInterrupted:
		a.stop(ErrNoMemory)
	case result.Reason == delivery.ReasonRecheck:
		a.end(d, delivery.Outcome{State: delivery.Cancelled, Reason: delivery.ReasonRecheck})
	case result.Reason != "":
		a.metrics.deliveries.WithLabelValues(resultUnmade).Inc()
		o := delivery.Outcome{Attempt: &delivery.Attempt{Number: d.Attempts + 1, Started: result.Started, Duration: result.Duration, Reason: result.Reason}}
		o.State, o.Due = endpoint.Retry.After(*d, result, now, rand.Float64())
		a.end(d, o)
	default:
		if a.page.Count++; a.page.Count == a.limit || len(a.page.Body) >= maxPageBytes {
			a.stop(nil)
		}
	}
}

// end notes an outcome of a delivery that is not answered.
func (a *assembling) end(d *delivery.PendingDelivery, o delivery.Outcome) {
	o.Delivery = *d
	o.Delivery.Event = nil
	a.outcomes = append(a.outcomes, o)
}

func (a *assembling) charge(n int64) bool { return a.Puller.charge(a.route.Tenant(), a.page, n) }

// event returns the delivery's event, if it can be answered.
func (a *assembling) event(ctx context.Context, d *delivery.PendingDelivery) (*delivery.Event, bool) {
	ev := d.Event
	if ev == nil {
		var err error
		switch ev, err = a.options.Store.Event(ctx, d.ID.Event); {
		case err == nil:
		case errors.Is(err, store.ErrErased):
			a.end(d, delivery.Outcome{State: delivery.Failed})
			return nil, false
		case errors.Is(err, store.ErrDamaged), errors.Is(err, envelope.ErrDamaged), errors.Is(err, store.ErrNotFound):
			a.options.Logger.Error(err, "An event cannot be read; its delivery is not answered", "delivery", d.ID)
			return nil, false
		default: // the others behind it must not go before it
			a.stop(err)
			return nil, false
		}
	}
	if ev.Tenant != a.route.Endpoint.Tenant && ev.Tenant != a.route.Endpoint.Namespace {
		// Cannot happen; if it does, this line is what keeps one tenant's data from another.
		a.options.Logger.Error(nil, "An event of another tenant was about to be answered; the delivery is given up", "delivery", d.ID, "tenant", ev.Tenant, "subscriptionTenant", a.route.Endpoint.Tenant)
		a.end(d, delivery.Outcome{State: delivery.Failed})
		return nil, false
	}
	return ev, true
}

// write writes a delivery into the page, signed now.
func (a *assembling) write(r egress.Request, d *delivery.PendingDelivery) error {
	if over := int64(len(r.Body) - d.Size); over > 0 && !a.charge(bodyCopies*over) {
		return ErrNoMemory
	}
	fields, err := egress.Fields(r, time.Now())
	if err != nil {
		return fmt.Errorf("sign a delivery: %w", err)
	}
	v := view{ID: d.ID.String(), Type: string(r.Type), Attempt: r.Number, Headers: make(map[string]string, len(fields)), Body: base64.StdEncoding.EncodeToString(r.Body)}
	for _, f := range fields {
		if other, twice := v.Headers[f.Name]; twice {
			f.Value = other + ", " + f.Value // RFC 9110, section 5.3
		}
		v.Headers[f.Name] = f.Value
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write a delivery: %w", err)
	}
	if a.page.Count > 0 {
		a.page.Body = append(a.page.Body, ',')
	}
	begin := len(a.page.Body)
	a.page.Body = append(a.page.Body, text...)
	a.parts = append(a.parts, part{d.Position(), begin, len(a.page.Body)})
	a.cursor.add(d.Position())
	return nil
}
