package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// Options are what an Engine needs. Store and Sender are required; each bound has a default.
type Options struct {
	Store  delivery.Store
	Sender Sender
	Logger logr.Logger
	// Registerer gets the engine's metrics; nil for none.
	Registerer prometheus.Registerer
	// Changed is called with the subscriptions whose counts or health changed, after that was recorded. It must not
	// block.
	Changed func(event.SubscriptionKey)

	// Taken is called when the work on a shard begins. It must not block.
	Taken func(shard int)

	// Happened is called with what happened to a subscription and its consumer's operator may want to hear, after it was
	// recorded. It must neither block nor call the engine.
	Happened func(Happening)

	// MaxInFlight bounds the attempts under way over all subscriptions: sockets, goroutines. Default 1024.
	MaxInFlight int
	// TenantInFlight bounds the attempts of each tenant under way where its endpoints say nothing else; 0 for no bound.
	TenantInFlight int
	// Finished is told of deliveries of a tenant that are not pending any more, and the bytes of their bodies. It must not
	// block.
	Finished func(tenant string, deliveries, bytes int64)
	// MaxHeld bounds the deliveries kept in memory over all subscriptions; the rest waits in the store. Default 65536.
	MaxHeld int
	// Memory is charged, by tenant, with the bodies that wait for their attempt and with those of the attempts under way
	// until they are written. Default 320 MiB of the engine's own.
	Memory *budget.Budget
	// Patience is how long an attempt may wait for its answer in the place of one that answers soon. Default 1 s.
	Patience time.Duration
	// StopTimeout is how long attempts that are in flight at the stop may take to finish. Default 20 s.
	StopTimeout time.Duration
	// CancelGrace is how long after a subscription's deletion its deliveries are cancelled. They stop at once; the
	// grace is for a deletion that is a mistake of the moment. Default 10 s.
	CancelGrace time.Duration

	// Now is the wall clock, which must not jump while the process runs. Default time.Now.
	Now func() time.Time
	// Jitter returns a random number in [0, 1). Default math/rand/v2.
	Jitter func() float64
}

func (o *Options) applyDefaults() {
	o.MaxInFlight = defaultTo(o.MaxInFlight, 1024)
	o.MaxHeld = defaultTo(o.MaxHeld, 1<<16)
	o.Patience = defaultTo(o.Patience, time.Second)
	if o.Memory == nil {
		o.Memory = budget.New(defaultMemory)
	}
	o.StopTimeout = defaultTo(o.StopTimeout, 20*time.Second)
	o.CancelGrace = defaultTo(o.CancelGrace, 10*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Changed == nil {
		o.Changed = func(event.SubscriptionKey) {}
	}
	if o.Finished == nil {
		o.Finished = func(string, int64, int64) {}
	}
	if o.Happened == nil {
		o.Happened = func(Happening) {}
	}
	if o.Taken == nil {
		o.Taken = func(int) {}
	}
}

func defaultTo[T int | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

const (
	// loaders is how many lanes read from the store at once.
	loaders = 4
	// maxIdleWorkers is how many workers stay to wait for work.
	maxIdleWorkers = 64
	// acceptBatch is how many deliveries of a fan-out are taken up before the engine's lock is free for a moment.
	acceptBatch = 512
	// storeRetry is the pause after the store failed to answer.
	storeRetry = time.Second
	// defaultMemory is the budget of an engine that shares none.
	defaultMemory = 320 << 20
)

// Engine delivers. Make one with New, hand it the endpoints with Use, and Run it.
type Engine struct {
	Options
	metrics  *metrics
	outcomes chan settlement   // of attempts
	swept    chan []settlement // of one search each, for what is finished without an attempt

	mu        sync.Mutex
	endpoints Endpoints
	complete  bool                   // whether a subscription that endpoints lacks does not exist
	leases    map[int]delivery.Lease // by shard
	lanes     map[event.SubscriptionKey]*lane
	tenants   map[string]*tenant
	serve     [rooms]turns  // tenants with something to serve
	turn      room          // that was served last
	load      fifo[*tenant] // tenants with something to load from the store
	sweeps    fifo[*tenant] // tenants with something to finish without an attempt
	places    places
	hurried   flights // attempts in prompt and trial, in the order in which they started
	wakes     wakeHeap
	wakeAt    time.Time // when wakeLanes looks next
	feedAt    time.Time // when it looks for memory for tenants that are starved; zero if none is
	held      int       // deliveries in the lanes' ready queues
	workers   int
	idle      int // workers that wait and were not called yet
	called    int // workers that were called and have not looked yet
	stopping  bool
	releases  int           // shards that are being given back
	work      *sync.Cond    // an idle worker is wanted
	loadWork  *sync.Cond    // a loader is wanted
	sweepWork *sync.Cond    // something is to be finished without an attempt
	quiet     *sync.Cond    // an attempt ended, or an outcome was recorded, while a shard is given back
	poke      chan struct{} // the earliest wake-up changed

	runs     sync.WaitGroup  // workers, loaders, the waker
	attempts context.Context // ends when attempts in flight are to be given up
}

// New returns an engine that does nothing until Run.
func New(options Options) *Engine {
	options.applyDefaults()
	e := &Engine{
		Options:  options,
		outcomes: make(chan settlement, recordBatch*2),
		swept:    make(chan []settlement),
		leases:   make(map[int]delivery.Lease),
		lanes:    make(map[event.SubscriptionKey]*lane),
		tenants:  make(map[string]*tenant),
		places:   places{all: options.MaxInFlight},
		poke:     make(chan struct{}, 1),
	}
	for r := range room(rooms) {
		e.serve[r].room, e.serve[r].parked.room = r, r
	}
	e.work, e.loadWork, e.quiet = sync.NewCond(&e.mu), sync.NewCond(&e.mu), sync.NewCond(&e.mu)
	e.sweepWork = sync.NewCond(&e.mu)
	e.metrics = newMetrics(e, options.Registerer)
	return e
}

// Use makes endpoints the ones to deliver to from now on. Deliveries of a subscription that is not among them stop at
// once. If complete is set, the subscription does not exist, and they are cancelled after CancelGrace; else they wait.
// It costs by the subscriptions that have something to deliver.
func (e *Engine) Use(endpoints Endpoints, complete bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.endpoints, e.complete = endpoints, complete
	for _, l := range e.lanes {
		e.refit(l)
		e.arrange(l)
	}
	e.requota()
}

// Limit makes tenantInFlight the bound of each tenant's attempts under way where its endpoints say nothing else, from now
// on; see Options.TenantInFlight. Attempts under way beyond a lower bound go on.
func (e *Engine) Limit(tenantInFlight int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.TenantInFlight == tenantInFlight {
		return
	}
	e.TenantInFlight = tenantInFlight
	for _, l := range e.lanes {
		if l.endpoint != nil {
			e.assign(l, l.endpoint)
		}
	}
	e.requota()
}

// requota looks again at the tenants whose quota may have changed.
func (e *Engine) requota() {
	for r := range e.serve {
		e.serve[r].unparkAll()
		for _, t := range e.tenants {
			e.serve[r].recheck(t, &e.places)
		}
	}
	e.summonAll()
}

// refit gives the lane its endpoint of now, or notes that it has none any more.
func (e *Engine) refit(l *lane) {
	l.endpoint = nil
	if endpoint, ok := e.endpoints.Endpoint(l.key); ok {
		if l.fit(endpoint, e.Now()); !l.removed.IsZero() {
			l.removed, l.sweepAt = time.Time{}, time.Time{}
		}
		e.assign(l, endpoint)
		return
	}
	if l.removed.IsZero() && e.complete {
		l.removed = e.Now()
		l.sweepAt = l.removed.Add(e.CancelGrace)
	}
}

// Accept takes up the deliveries of fan-outs that are durable and due now. Those for which there is no room stay in the
// store and are read back. It never blocks on anything but the engine's lock.
func (e *Engine) Accept(fanouts []delivery.Fanout) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.Now()
	taken := 0
	for i := range fanouts {
		for _, sub := range fanouts[i].Subscriptions {
			if taken++; taken%acceptBatch == 0 { // others' attempts do not wait for a large fan-out
				e.mu.Unlock()
				e.mu.Lock()
			}
			d := fanouts[i].Delivery(sub)
			e.accept(&d, now)
		}
	}
}

// Resume takes up deliveries that a replay made pending again, as Accept does new ones.
func (e *Engine) Resume(deliveries []delivery.PendingDelivery) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.Now()
	for i := range deliveries {
		e.accept(&deliveries[i], now)
	}
}

func (e *Engine) accept(d *delivery.PendingDelivery, now time.Time) {
	if _, owned := e.leases[delivery.ShardOf(d.ID.Subscription)]; !owned {
		return // its owner finds it in the store
	}
	l := e.lane(d.ID.Subscription)
	if e.hasRoom(l, now) && !d.Position().Before(l.scanned) && !l.ordered(d) {
		e.keep(l, *d)
	} else {
		l.leave(d.Position())
	}
	e.arrange(l)
}

// hasRoom reports whether a new delivery may go straight into the lane's memory. It may not where others wait in the
// store: they come first.
func (e *Engine) hasRoom(l *lane, now time.Time) bool {
	return !e.stopping && !l.pulled() && !l.due(now) && e.fits(l.tenant) && l.ready.len() < l.capacity(e.MaxHeld-e.held) && (!l.opened || l.open())
}

// fits reports whether the tenant may have another delivery in memory.
func (e *Engine) fits(t *tenant) bool { return fits(t.held, e.held, e.MaxHeld) }

// lane returns the subscription's lane, and makes one if there is none.
func (e *Engine) lane(key event.SubscriptionKey) *lane {
	l, ok := e.lanes[key]
	if !ok {
		l = newLane(key, e.tenant(""))
		l.lease = e.leases[delivery.ShardOf(key)]
		e.lanes[key] = l
		if e.endpoints != nil {
			e.refit(l)
		}
	}
	return l
}

// tenant returns the tenant with the given name, and makes one if there is none. The one without a name has the lanes of
// subscriptions that were gone when the lane was made, until their tenant is known.
func (e *Engine) tenant(name string) *tenant {
	t, ok := e.tenants[name]
	if !ok {
		t = &tenant{name: name}
		e.tenants[name] = t
	}
	return t
}

// assign makes the lane its endpoint's tenant's.
func (e *Engine) assign(l *lane, endpoint *Endpoint) {
	e.move(l, endpoint.Tenant)
	l.orphan = false
	t := l.tenant
	t.use.quota = endpoint.TenantInFlight
	if t.use.quota == DefaultInFlight {
		t.use.quota = e.TenantInFlight
	}
}

// move makes the lane the tenant's.
func (e *Engine) move(l *lane, name string) {
	if l.tenant.name == name {
		return
	}
	t := e.tenant(name)
	t.lanes++
	t.held += l.ready.len()
	l.tenant.held -= l.ready.len()
	e.forget(l)
	l.tenant, l.queued, l.listed = t, false, [rooms]bool{}
}

// forget takes the lane from its tenant.
func (e *Engine) forget(l *lane) {
	l.tenant.lanes--
	e.dismiss(l.tenant)
}

// dismiss forgets the tenant if nothing is left of it.
func (e *Engine) dismiss(t *tenant) {
	if t.lanes == 0 && t.use.total() == 0 && t.standing == [rooms]standing{} && !t.loading && !t.sweeping {
		delete(e.tenants, t.name)
	}
}

// keep puts d, which is due, into the lane's memory.
func (e *Engine) keep(l *lane, d delivery.PendingDelivery) {
	if _, held := l.held[d.ID.Event]; held {
		return
	}
	if d.Event != nil && !e.share(l, d.Event) {
		d.Event = nil
	}
	l.keep(d.ID.Event)
	l.ready.push(d)
	l.tenant.held++
	e.held++
}

// eventBytes is what an event in memory costs beside its body.
const eventBytes = 512

// share keeps the event for one more delivery; it returns false if there is no memory for it. What waits has half of the
// memory, so that attempts always find some; what a lane has beyond its window has a quarter.
func (e *Engine) share(l *lane, ev *delivery.Event) bool {
	if ev.Charge.Holders == 0 {
		part := e.Memory.Limit() / 2
		if l.ready.len() >= laneWindow {
			part /= 2
		}
		if !e.take(l.tenant, int64(len(ev.Body))+eventBytes, part) {
			return false
		}
		ev.Charge.Payer = l.tenant
	}
	ev.Charge.Holders++
	return true
}

// letGo gives back the memory of d's event.
func (e *Engine) letGo(d *delivery.PendingDelivery) {
	ev := d.Event
	d.Event = nil
	if ev == nil || ev.Charge.Holders == 0 {
		return
	}
	if ev.Charge.Holders--; ev.Charge.Holders == 0 {
		e.give(ev.Charge.Payer.(*tenant), int64(len(ev.Body))+eventBytes)
		e.feed()
	}
}

// summon calls a worker: an idle one, or a new one if there may be more.
func (e *Engine) summon() {
	switch {
	case e.attempts == nil || e.stopping:
	case e.idle > 0:
		e.idle--
		e.called++
		e.work.Signal()
	case e.workers < e.MaxInFlight:
		e.workers++
		e.called++
		e.runs.Go(e.deliver)
	}
}

// summonAll calls a worker for each tenant whose turn is to come.
func (e *Engine) summonAll() {
	for r := range e.serve {
		for range e.serve[r].ready.len() {
			e.summon()
		}
	}
}

// Run delivers until ctx ends. Then it starts no attempt any more and gives each shard back as soon as its attempts in
// flight ended and their outcomes are recorded, which they have StopTimeout for. Whatever is still pending stays in the
// store. Use must have been called before.
func (e *Engine) Run(ctx context.Context) error {
	if e.endpoints == nil {
		return errors.New("run the delivery engine: it has no endpoints yet")
	}
	attempts, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	recorded := make(chan struct{})
	go func() { e.record(attempts); close(recorded) }()
	owning, disown := context.WithCancel(context.WithoutCancel(ctx))
	defer disown()
	owned := make(chan error, 1)
	e.start(attempts)
	go func() { owned <- e.Store.Own(owning, e) }()

	var err error
	waking, sleep := context.WithCancel(ctx)
	defer sleep()
	woken := make(chan struct{})
	go func() { e.wakeLanes(waking); close(woken) }()
	select {
	case <-ctx.Done():
	case err = <-owned:
		owned <- nil
	}
	sleep()
	<-woken
	e.halt()
	timeout := time.AfterFunc(e.StopTimeout, abort)
	defer timeout.Stop()
	disown()
	err = errors.Join(err, <-owned)
	e.runs.Wait()
	close(e.outcomes)
	close(e.swept)
	<-recorded
	return err
}

// start lets workers and loaders begin.
func (e *Engine) start(attempts context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.attempts = attempts
	for range loaders {
		e.runs.Go(e.loadLanes)
	}
	e.runs.Go(e.sweepLanes)
	e.summonAll()
}

// halt lets no attempt and no load begin any more; workers and loaders end after the one they are at.
func (e *Engine) halt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopping = true
	e.idle = 0
	e.work.Broadcast()
	e.loadWork.Broadcast()
	e.sweepWork.Broadcast()
}

// pause waits before the store is tried again, or returns false once ctx ended.
func pause(ctx context.Context) bool {
	t := time.NewTimer(storeRetry)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
