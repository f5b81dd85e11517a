package pull

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
	"github.com/clinikapi/eventflow/dispatcher/places"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// The bounds of a call.
const (
	// DefaultLimit is how many deliveries a page has at most, unless a call asks for others.
	DefaultLimit = 100
	// MaxLimit is how many a call may ask for.
	MaxLimit = 500
	// MaxWait is how long a call waits for deliveries at most.
	MaxWait = 60 * time.Second
	// maxPageBytes is from where on a page ends; one delivery may be larger.
	maxPageBytes = 1 << 20
	// MaxCalls are under way at once at most, over all tenants: each is a connection and a goroutine.
	MaxCalls = 512
	// callsPart is the part of the connections that calls may hold: the rest is for publishes, whoever waits.
	callsPart = 4
	// readers are the calls that read the store at once, maxReaders those that wait for that.
	readers, maxReaders = 8, MaxCalls
	// assembly bounds the time that one page is worked on; what is not in it then comes with the next.
	assembly = 5 * time.Second
	// maxLooked is how many deliveries one page looks through for some that can be answered.
	maxLooked = 2000
	// pollPause is how often a call that waits looks by itself: for what another process stored, and what was planned meanwhile.
	pollPause = time.Second
)

// The errors of a call, beside those of the store, of the context and of a cursor.
var (
	// ErrNotFound: the namespace has no such subscription, or it is not known here yet.
	ErrNotFound = errors.New("no such subscription")
	// ErrNotPulled: the subscription's deliveries go to an endpoint.
	ErrNotPulled = errors.New("the subscription is not one that is pulled")
	// ErrSuspended: its deliveries wait until spec.suspend is false.
	ErrSuspended = errors.New("the subscription is suspended")
	// ErrWaiting: it is not accepted, and its deliveries wait until it is.
	ErrWaiting = errors.New("the subscription is not accepted")
	// ErrTooMany: the tenant has its share of calls under way.
	ErrTooMany = errors.New("too many pulls of the tenant are under way")
	// ErrNoMemory: the tenant has its share of memory in use.
	ErrNoMemory = errors.New("too much memory of the tenant is in use")
)

// Maker makes the request of a delivery; payload.Sender is one.
type Maker interface {
	Make(ctx context.Context, r payload.Request, use func(egress.Request) error) (egress.Result, error)
}

// Options are what a Puller needs.
type Options struct {
	Store store.Store
	Maker Maker
	// Routes returns the current routing table, nil while there is none.
	Routes func() *routing.Table
	// Memory is charged, by tenant, with pages.
	Memory *budget.Budget
	// Connections is how many the clients may have open; a quarter of them is calls at most. 0 for no bound but MaxCalls.
	Connections int
	// Finished is told of deliveries of a tenant that are not pending any more, and the bytes of their bodies.
	Finished func(tenant string, deliveries, bytes int64)
	// Changed is told of subscriptions of which deliveries changed, GivenUp of deliveries that failed. Neither must block.
	Changed func(event.SubscriptionKey)
	GivenUp func(event.DeliveryID)
	// Now is the time by the store's clock.
	Now        func() time.Time
	Logger     logr.Logger
	Registerer prometheus.Registerer
}

// Puller answers pulls. It is safe for concurrent use.
type Puller struct {
	options Options
	calls   *budget.Budget // by tenant
	turns   *places.Pool   // of reading
	waiters waiters
	metrics *metrics
	drained chan struct{}
	// poll is pollPause, and assembly the constant of this name, but in tests.
	poll, assembly time.Duration

	mu    sync.Mutex
	pages map[string]int // that hold memory, by tenant
}

// calls is how many calls may be under way. Two is the least: so there is one for each of two tenants.
func (o *Options) calls() int64 {
	if o.Connections == 0 {
		return MaxCalls
	}
	return int64(max(min(MaxCalls, o.Connections/callsPart), 2))
}

// New returns a Puller. It fails if the metrics are registered already.
func New(o Options) (*Puller, error) {
	p := &Puller{options: o, calls: budget.New(o.calls()), turns: places.New(readers, maxReaders), drained: make(chan struct{}), poll: pollPause, assembly: assembly, pages: make(map[string]int)}
	var err error
	if p.metrics, err = newMetrics(o.Registerer, func() float64 { return float64(p.calls.Used()) }); err != nil {
		return nil, fmt.Errorf("register the metrics of pulls: %w", err)
	}
	return p, nil
}

// Drain makes no call wait any more. It is called once.
func (p *Puller) Drain() { close(p.drained) }

// Stored wakes the calls that wait for what became durable and is due.
func (p *Puller) Stored(fanouts []delivery.Fanout) {
	p.waiters.wake(func(yield func(event.SubscriptionKey)) {
		for i := range fanouts {
			for _, sub := range fanouts[i].Subscriptions {
				yield(sub.Key)
			}
		}
	})
}

// Resumed wakes the calls that wait for what a replay made due.
func (p *Puller) Resumed(deliveries []delivery.PendingDelivery) {
	p.waiters.wake(func(yield func(event.SubscriptionKey)) {
		for i := range deliveries {
			yield(deliveries[i].ID.Subscription)
		}
	})
}

// Request is one call.
type Request struct {
	Tenant string
	// Subscription's name.
	Subscription string
	// After is the cursor of a page whose deliveries were handled; "" for none.
	After string
	// Handled is how many of that page's deliveries are acknowledged, from its first on; all if it is negative.
	Handled int
	// Wait is how long to wait for deliveries if none is due; up to MaxWait.
	Wait time.Duration
	// Limit is how many deliveries to answer, 1 to MaxLimit.
	Limit int
	// Allowed returns nil if the client still may pull. It is asked before what came after a wait is answered; its error is the
	// call's. Nil allows it.
	Allowed func() error
}

// Pull acknowledges what the request's cursor names, and returns what is due then, waiting for it. The page is to be released
// once it was written. An empty page means that nothing that can be answered was found for as long as the call waited.
func (p *Puller) Pull(ctx context.Context, r Request) (*Page, error) {
	if !p.calls.Take(r.Tenant, 1) {
		p.metrics.refused.WithLabelValues(refusedPlaces).Inc()
		return nil, ErrTooMany
	}
	page, err := p.pull(ctx, &r)
	release := func() {
		if page != nil {
			p.give(r.Tenant, page)
		}
		p.calls.Give(r.Tenant, 1)
	}
	if err != nil {
		release()
		return nil, err
	}
	page.release = release
	return page, nil
}

// charge takes memory for a page. The first delivery of a tenant's only page may go beyond its share, so that a tenant goes on
// whatever the others hold.
func (p *Puller) charge(tenant string, page *Page, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := page.held == 0
	if first {
		n += pageBytes
	}
	memory := p.options.Memory
	if !memory.Take(tenant, n) && (!first || p.pages[tenant] > 0 || !memory.TakeOver(tenant, n)) {
		p.metrics.refused.WithLabelValues(refusedMemory).Inc()
		return false
	}
	if page.held += n; first {
		p.pages[tenant]++
	}
	return true
}

// give gives back the memory of a page.
func (p *Puller) give(tenant string, page *Page) { p.giveTo(tenant, page, 0) }

// giveTo gives back what a page holds beyond held.
func (p *Puller) giveTo(tenant string, page *Page, held int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if page.held <= held {
		return
	}
	p.options.Memory.Give(tenant, page.held-held)
	if page.held = held; held > 0 {
		return
	}
	if p.pages[tenant]--; p.pages[tenant] == 0 {
		delete(p.pages, tenant)
	}
}

func (p *Puller) pull(ctx context.Context, r *Request) (*Page, error) {
	route, err := p.route(r)
	if err != nil {
		return nil, err
	}
	woken := p.waiters.enter(route.Key) // before the first look, so that nothing comes between
	defer p.waiters.leave(route.Key, woken)
	acknowledged := 0
	if r.After != "" {
		if acknowledged, err = p.acknowledge(ctx, route, r); err != nil {
			return nil, err
		}
	}
	until := time.Now().Add(min(r.Wait, MaxWait))
	waited := false // since the client was allowed to pull
	for {
		if route, err = p.route(r); err == nil {
			err = open(route)
		}
		if err != nil {
			return nil, err
		}
		page, next, err := p.page(ctx, route, r.Limit)
		if err != nil {
			return nil, err
		}
		if waited && page.Count > 0 && r.Allowed != nil {
			p.give(route.Tenant(), page) // asking may take long, and what was found may be cancelled meanwhile: it is made anew
			if err := r.Allowed(); err != nil {
				return nil, err
			}
			waited = false
			continue
		}
		page.Acknowledged = acknowledged
		if page.Count > 0 || !p.wait(ctx, woken, until, next) {
			p.metrics.deliveries.WithLabelValues(resultAnswered).Add(float64(page.Count))
			return page, ctx.Err()
		}
		waited = true
	}
}

// route finds the subscription. One that was made again meanwhile is another.
func (p *Puller) route(r *Request) (*routing.Route, error) {
	table := p.options.Routes()
	if table == nil {
		return nil, ErrNotFound
	}
	route, ok := table.Named(r.Tenant, r.Subscription)
	switch {
	case !ok:
		return nil, ErrNotFound
	case !route.Endpoint.Pull:
		return nil, ErrNotPulled
	}
	return route, nil
}

// open returns why nothing of the subscription is answered now; nil if it is.
func open(route *routing.Route) error {
	switch {
	case route.Endpoint.Target == nil:
		return ErrWaiting
	case route.Endpoint.Suspended:
		return ErrSuspended
	}
	return nil
}

// wait waits for something to be due, and reports whether to look again. next is when the first delivery is due, zero if none is
// known.
func (p *Puller) wait(ctx context.Context, woken <-chan struct{}, until, next time.Time) bool {
	pause := p.poll
	if !next.IsZero() {
		pause = min(pause, max(next.Sub(p.options.Now()), 0)+time.Millisecond)
	}
	left := time.Until(until)
	if left <= 0 {
		return false
	}
	timer := time.NewTimer(min(pause, left))
	defer timer.Stop()
	select {
	case <-woken:
	case <-timer.C:
	case <-ctx.Done():
		return false
	case <-p.drained:
		return false
	}
	return true
}

// acknowledge makes Delivered what the cursor names and is pending still, and returns how many deliveries that are. Once it was
// read, it is done whether or not the client waits.
func (p *Puller) acknowledge(ctx context.Context, route *routing.Route, r *Request) (int, error) {
	c, err := parseCursor(r.After, route.Key, p.options.Now())
	if err != nil {
		return 0, err
	}
	if r.Handled >= 0 {
		c.prints = c.prints[:min(r.Handled, len(c.prints))]
	}
	if err := p.turns.Acquire(ctx, route.Tenant(), 1); err != nil {
		return 0, turnError(err)
	}
	defer p.turns.Release(route.Tenant(), 1)
	outcomes, err := p.named(ctx, &c)
	if len(outcomes) == 0 {
		return 0, err
	}
	settled, failed := p.settle(ctx, route, outcomes) // also of what was found before an error: the next call has less to look for
	p.metrics.deliveries.WithLabelValues(resultAcknowledged).Add(float64(settled))
	return settled, errors.Join(err, failed)
}

// turnError is that of a tenant whose calls wait for each other.
func turnError(err error) error {
	if errors.Is(err, places.ErrFull) {
		return ErrTooMany
	}
	return err
}

const (
	// ackBatch is how many deliveries are looked at at once for an acknowledgement: the store may read their bodies along.
	ackBatch = 64
	// maxNamed is how many are looked at: what a page may have looked through, and as many that were stored late among them.
	maxNamed = 2 * maxLooked
)

// named returns the outcomes of the deliveries that the cursor names and that are pending where they were. With an error, it
// returns those that it found before.
func (p *Puller) named(ctx context.Context, c *cursor) (outcomes []delivery.Outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.assembly)
	defer cancel()
	prints := make(map[fingerprint]struct{}, len(c.prints))
	for _, f := range c.prints {
		prints[f] = struct{}{}
	}
	now := p.options.Now()
	until := c.last.Due
	if now.Before(until) {
		until = now // what is not due was not answered, whatever the cursor says
	}
	from, looked := c.first, 0
	for more := true; more && len(prints) > 0 && looked < maxNamed; {
		var found []delivery.PendingDelivery
		if found, from, more, err = p.options.Store.Due(ctx, c.subscription, from, until, ackBatch, nil); err != nil {
			return outcomes, err
		}
		looked += ackBatch
		for _, d := range found {
			f := fingerprintOf(d.Position())
			if _, ok := prints[f]; !ok {
				continue
			}
			delete(prints, f)
			d.Event = nil
			outcomes = append(outcomes, delivery.Outcome{Delivery: d, State: delivery.Delivered, Attempt: &delivery.Attempt{
				Number: d.Attempts + 1, Started: c.given, Duration: max(now.Sub(c.given), 0),
			}})
		}
		more = more && !c.last.Before(from)
	}
	return outcomes, nil
}

// settle writes outcomes, and tells those who count deliveries. It returns how many took effect.
func (p *Puller) settle(ctx context.Context, route *routing.Route, outcomes []delivery.Outcome) (int, error) {
	settled, err := p.options.Store.Settle(context.WithoutCancel(ctx), outcomes)
	if err != nil {
		return 0, err
	}
	var count int
	var ended, size int64
	for i, did := range settled {
		if !did {
			continue
		}
		count++
		if o := &outcomes[i]; o.State != delivery.Pending {
			ended, size = ended+1, size+int64(o.Delivery.Size)
			if o.State == delivery.Failed {
				p.options.GivenUp(o.Delivery.ID)
			}
		}
	}
	if ended > 0 {
		p.options.Finished(route.Tenant(), ended, size)
	}
	p.options.Changed(route.Key)
	return count, nil
}
