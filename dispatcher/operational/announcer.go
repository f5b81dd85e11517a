package operational

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	// lookPause is how often what waits for a rate or for the store is looked at.
	lookPause = time.Second
	// retryPause is how long a tenant waits whose event could not be stored.
	retryPause = 10 * time.Second
	// maxAge is how long an event is tried.
	maxAge = time.Hour
	// stopTimeout bounds what is tried at the stop.
	stopTimeout = 3 * time.Second
)

// Publication is an operational event on its way to the store.
type Publication struct {
	Tenant string
	// About is the subscription that gets none of it.
	About     event.SubscriptionKey
	ID        string
	Type      event.Type
	Timestamp time.Time
	Data      []byte
}

// Options are what an Announcer works with. Only Logger and Registerer may be left out.
type Options struct {
	// Table is the routing table of now; nil until there is one.
	Table func() *routing.Table
	// Get returns a delivery as store.Store does.
	Get func(ctx context.Context, tenant string, id event.DeliveryID) (store.Record, error)
	// Publish returns once the event is durable. An answer without an id says that every filter refused it.
	Publish func(ctx context.Context, p Publication) (store.Accepted, error)
	// Now is the store's clock.
	Now        func() time.Time
	Logger     logr.Logger
	Registerer prometheus.Registerer
}

// Announcer publishes operational events. It is safe for concurrent use.
type Announcer struct {
	options Options
	metrics *metrics
	waiting waiting
	called  chan struct{} // there is something to do
	work    sync.WaitGroup
}

// New returns an announcer that publishes once it runs.
func New(options Options) (*Announcer, error) {
	a := &Announcer{options: options, waiting: newWaiting(), called: make(chan struct{}, 1)}
	var err error
	if a.metrics, err = newMetrics(options.Registerer, a.waiting.held); err != nil {
		return nil, fmt.Errorf("register the metrics of operational events: %w", err)
	}
	return a, nil
}

// Note takes what happened, if another subscription of the tenant wants to hear of it. It never blocks for long.
func (a *Announcer) Note(h engine.Happening) { a.note(&happening{Happening: h}) }

func (a *Announcer) note(h *happening) {
	table := a.options.Table()
	if table == nil {
		return
	}
	route, ok := table.Get(h.Subscription)
	if !ok || !wanted(table, route, h.Type) {
		return
	}
	switch result := a.waiting.add(route.Tenant(), h, a.options.Now()); result {
	case "":
		a.call()
	default:
		a.metrics.count(h.Type, result)
	}
}

// wanted reports whether a subscription other than the route's matches the type.
func wanted(table *routing.Table, route *routing.Route, typ event.Type) bool {
	if table.Count(route.Tenant(), typ) == 0 {
		return false
	}
	for _, sub := range table.Match(route.Tenant(), typ, nil) {
		if sub.Key != route.Key {
			return true
		}
	}
	return false
}

// Run publishes until ctx ends, and then what is left, for a moment.
func (a *Announcer) Run(ctx context.Context) {
	tick := time.NewTimer(lookPause)
	defer tick.Stop()
	for looks := false; ; {
		a.start(ctx)
		if !looks && a.waiting.any() {
			looks = true
			tick.Reset(lookPause)
		}
		select {
		case <-ctx.Done():
			a.finish(context.WithoutCancel(ctx))
			return
		case <-a.called:
		case <-tick.C:
			looks = false
			a.waiting.look(a.options.Now())
		}
	}
}

// call makes Run look for what is next.
func (a *Announcer) call() {
	select {
	case a.called <- struct{}{}:
	default:
	}
}

// finish tries all that is left once.
func (a *Announcer) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	a.work.Wait() // what was under way ends with its context
	a.waiting.release()
	for a.start(ctx) && ctx.Err() == nil {
		select {
		case <-a.called:
		case <-ctx.Done():
		}
	}
	a.work.Wait()
	if left := a.waiting.drop(func(h *happening) { a.metrics.count(h.Type, resultDropped) }); left > 0 {
		a.options.Logger.Info("Operational events were not stored before the stop", "events", left)
	}
}

// start publishes what is next, each in a goroutine of its own, as long as there are places. It reports whether any is
// under way.
func (a *Announcer) start(ctx context.Context) bool {
	for ctx.Err() == nil {
		tenant, h := a.waiting.next()
		if h == nil {
			break
		}
		a.work.Go(func() {
			a.tryPublish(ctx, tenant, h)
			a.call()
		})
	}
	return a.waiting.underWay()
}

// tryPublish publishes, or puts what could not be stored back.
func (a *Announcer) tryPublish(ctx context.Context, tenant string, h *happening) {
	now := a.options.Now()
	result, err := a.publish(ctx, tenant, h)
	switch {
	case err == nil:
		if result != "" {
			a.metrics.count(h.Type, result)
		}
		a.waiting.done(tenant)
	case now.Sub(h.At) >= maxAge:
		a.options.Logger.Error(err, "An operational event could not be stored for an hour; it is dropped", "type", h.Type)
		a.metrics.count(h.Type, resultDropped)
		a.waiting.done(tenant)
	default:
		a.options.Logger.V(1).Info("An operational event could not be stored; trying again", "type", h.Type, "reason", err.Error())
		a.waiting.putBack(tenant, h, now.Add(retryPause))
	}
}

// publish makes the event and publishes it. It returns no result for one that is not to be told after all.
func (a *Announcer) publish(ctx context.Context, tenant string, h *happening) (result string, err error) {
	route, ok := a.options.Table().Get(h.Subscription)
	if !ok || route.Tenant() != tenant {
		return "", nil // the subscription was deleted meanwhile
	}
	var record *store.Record
	if h.Type == event.DeliveryFailed {
		r, err := a.options.Get(ctx, tenant, h.Delivery)
		switch {
		case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrErased):
			return "", nil
		case err != nil:
			return "", fmt.Errorf("read the delivery that was given up: %w", err)
		case r.Type.IsOperational():
			return "", nil // no event is about the delivery of such an event
		}
		record = &r
	}
	data, err := h.data(route, record)
	if err != nil {
		return "", err
	}
	accepted, err := a.options.Publish(ctx, Publication{
		Tenant: tenant, About: h.Subscription, ID: h.id(), Type: h.Type, Timestamp: h.At, Data: data,
	})
	switch {
	case err != nil:
		return "", err
	case accepted.ID == "":
		return "", nil
	case accepted.Repeated:
		return resultRepeated, nil
	default:
		return resultStored, nil
	}
}
