package delivery

import (
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
)

// Options are what an Engine needs. Store and Sender are required; each bound has a default.
type Options struct {
	Store  Store
	Sender Sender
	Logger logr.Logger
	// Registerer gets the engine's metrics; nil for none.
	Registerer prometheus.Registerer
	// Changed is called with the subscriptions whose counts or health changed, after that was recorded. It must not
	// block.
	Changed func(event.SubscriptionKey)

	// Taken is called when the work on a shard begins. It must not block.
	Taken func(shard int)

	// MaxInFlight bounds the attempts under way over all subscriptions: sockets, goroutines. Default 1024.
	MaxInFlight int
	// MaxHeld bounds the deliveries kept in memory over all subscriptions; the rest waits in the store. Default 65536.
	MaxHeld int
	// MaxHeldBytes bounds the bodies kept in memory before their attempt; the rest is read back. Default 64 MiB.
	MaxHeldBytes int
	// MaxInFlightBytes bounds the bodies of the attempts under way: while it is reached, none is started. One more body
	// of any size may go over it. Default 256 MiB.
	MaxInFlightBytes int
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
	o.MaxHeldBytes = defaultTo(o.MaxHeldBytes, 64<<20)
	o.MaxInFlightBytes = defaultTo(o.MaxInFlightBytes, 256<<20)
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
	// storeRetry is the pause after the store failed to answer.
	storeRetry = time.Second
)

// Engine delivers. Make one with New, hand it the endpoints with Use, and Run it.
type Engine struct {
	Options
	metrics  *metrics
	outcomes chan settlement

	mu        sync.Mutex
	endpoints Endpoints
	complete  bool          // whether a subscription that endpoints lacks does not exist
	leases    map[int]Lease // by shard
	lanes     map[event.SubscriptionKey]*lane
	serve     fifo // lanes with something ready and room in flight, in turn
	load      fifo // lanes with something due in the store
	wakes     wakeHeap
	inFlight  int // attempts under way
	held      int // deliveries in the lanes' ready queues
	heldBytes int // of bodies in memory before their attempt
	sentBytes int // of bodies in the attempts under way
	workers   int
	idle      int // workers that wait and were not called yet
	stopping  bool
	releases  int           // shards that are being given back
	work      *sync.Cond    // an idle worker is wanted
	loadWork  *sync.Cond    // a loader is wanted
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
		leases:   make(map[int]Lease),
		lanes:    make(map[event.SubscriptionKey]*lane),
		poke:     make(chan struct{}, 1),
	}
	e.work, e.loadWork, e.quiet = sync.NewCond(&e.mu), sync.NewCond(&e.mu), sync.NewCond(&e.mu)
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
}

// refit gives the lane its endpoint of now, or notes that it has none any more.
func (e *Engine) refit(l *lane) {
	l.endpoint = nil
	if endpoint, ok := e.endpoints.Endpoint(l.key); ok {
		if l.fit(endpoint, e.Now()); !l.removed.IsZero() {
			l.removed, l.sweepAt = time.Time{}, time.Time{}
		}
		return
	}
	if l.removed.IsZero() && e.complete {
		l.removed = e.Now()
		l.sweepAt = l.removed.Add(e.CancelGrace)
	}
}

// Accept takes up deliveries that are durable and due now. Those for which there is no room stay in the store and are
// read back. It never blocks on anything but the engine's lock.
func (e *Engine) Accept(deliveries []PendingDelivery) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.Now()
	for _, d := range deliveries {
		if _, owned := e.leases[ShardOf(d.ID.Subscription)]; !owned {
			continue // its owner finds it in the store
		}
		l := e.lane(d.ID.Subscription)
		if e.hasRoom(l, now) && !d.Position().Before(l.scanned) && !l.ordered(&d) {
			e.hold(l, d)
		} else {
			l.leave(d.Position())
		}
		e.arrange(l)
	}
}

// hasRoom tells whether a new delivery may go straight into the lane's memory. It may not where others wait in the
// store: they come first.
func (e *Engine) hasRoom(l *lane, now time.Time) bool {
	return !e.stopping && !l.due(now) && e.held < e.MaxHeld && l.ready.len() < l.room(e.MaxHeld-e.held) && (!l.opened || l.open())
}

// lane returns the subscription's lane, and makes one if there is none.
func (e *Engine) lane(key event.SubscriptionKey) *lane {
	l, ok := e.lanes[key]
	if !ok {
		l = newLane(key)
		l.lease = e.leases[ShardOf(key)]
		e.lanes[key] = l
		if e.endpoints != nil {
			e.refit(l)
		}
	}
	return l
}

// hold puts d, which is due, into the lane's memory.
func (e *Engine) hold(l *lane, d PendingDelivery) {
	if _, held := l.held[d.ID.Event]; held {
		return
	}
	if d.Event != nil {
		switch {
		case d.Event.holders > 0:
			d.Event.holders++
		case e.heldBytes+len(d.Event.Body) <= e.bytesFor(l):
			d.Event.holders = 1
			e.heldBytes += len(d.Event.Body)
		default:
			d.Event = nil
		}
	}
	l.keep(d.ID.Event)
	l.ready.push(d)
	e.held++
}

// bytesFor is how many bytes of bodies may be in memory for the lane to add one. Beyond its window, half of them are
// the others'.
func (e *Engine) bytesFor(l *lane) int {
	if l.ready.len() >= laneWindow {
		return e.MaxHeldBytes / 2
	}
	return e.MaxHeldBytes
}

// letGo gives back the memory of d's event.
func (e *Engine) letGo(d *PendingDelivery) {
	if d.Event == nil || d.Event.holders == 0 {
		return
	}
	if d.Event.holders--; d.Event.holders == 0 {
		e.heldBytes -= len(d.Event.Body)
	}
}

// arrange puts the lane into the queues it belongs into now, and sets its wake-up. Call it after every change.
func (e *Engine) arrange(l *lane) {
	now := e.Now()
	if l.closed || l.opened && !l.open() || l.failing() && l.ready.len() > laneWindow {
		e.shelve(l)
	}
	if !l.queued && e.serves(l) && !l.paceAt.After(now) {
		l.queued = true
		e.serve.push(l)
		e.summon()
	}
	if !l.wants && !l.loading && e.endpoints != nil && !e.stopping && e.wantsLoad(l, now) {
		l.wants = true
		e.load.push(l)
		e.loadWork.Signal()
	}
	e.setWake(l, now)
}

// serves tells whether the lane has something ready and room in flight.
func (e *Engine) serves(l *lane) bool {
	return l.ready.len() > 0 && l.inFlight < l.limit(e.MaxInFlight-e.inFlight, e.MaxInFlight)
}

// wantsLoad tells whether the lane should read from the store: its health, what fell due, or what aged out.
func (e *Engine) wantsLoad(l *lane, now time.Time) bool {
	if l.closed {
		return false
	}
	if !l.opened {
		return true
	}
	if !l.sweepAt.IsZero() && !l.sweepAt.After(now) {
		return true
	}
	if !l.open() {
		return false
	}
	if len(l.successors) > 0 {
		return true
	}
	if !l.due(now) {
		return false
	}
	if e.held >= e.MaxHeld {
		return l.ready.len() == 0 && l.inFlight == 0
	}
	return l.ready.len() <= l.window()/2
}

// shelve puts what a lane that is not open, or began to fail, has in memory back to the store, where it is anyway.
func (e *Engine) shelve(l *lane) {
	for l.ready.len() > 0 {
		d := l.ready.pop()
		e.held--
		e.letGo(&d)
		l.release(d.ID.Event)
		l.leave(d.Position())
	}
	if len(l.successors) > 0 { // they are found again from the beginning
		l.successors = nil
		l.leave(Position{})
	}
}

// setWake sets the time at which the lane is looked at again by itself.
func (e *Engine) setWake(l *lane, now time.Time) {
	var wake time.Time
	if l.sweepAt = e.nextSweep(l, now); l.sweepAt.After(now) {
		wake = l.sweepAt
	}
	if l.open() && l.backlogged && l.unloaded.Due.After(now) && (wake.IsZero() || l.unloaded.Due.Before(wake)) {
		wake = l.unloaded.Due
	}
	if l.paceAt.After(now) && e.serves(l) && (wake.IsZero() || l.paceAt.Before(wake)) {
		wake = l.paceAt
	}
	if wake.Equal(l.wake) {
		return
	}
	l.wake = wake
	switch {
	case wake.IsZero():
		if l.wakeIndex >= 0 {
			heap.Remove(&e.wakes, l.wakeIndex)
		}
		return
	case l.wakeIndex >= 0:
		heap.Fix(&e.wakes, l.wakeIndex)
	default:
		heap.Push(&e.wakes, l)
	}
	if e.wakes[0] == l {
		select {
		case e.poke <- struct{}{}:
		default:
		}
	}
}

// summon calls a worker: an idle one, or a new one if there may be more.
func (e *Engine) summon() {
	switch {
	case e.attempts == nil || e.stopping:
	case e.idle > 0:
		e.idle--
		e.work.Signal()
	case e.workers < e.MaxInFlight:
		e.workers++
		e.runs.Go(e.deliver)
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
	for range e.serve.len() {
		e.summon()
	}
}

// halt lets no attempt and no load begin any more; workers and loaders end after the one they are at.
func (e *Engine) halt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopping = true
	e.idle = 0
	e.work.Broadcast()
	e.loadWork.Broadcast()
}

// pause waits for d, or returns false once ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
