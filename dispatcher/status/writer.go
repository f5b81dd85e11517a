package status

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	// newsPerSecond is the budget of writes for what an author waits for: that a change of a spec is in the status.
	newsPerSecond = 300
	// upkeepLeast and upkeepMost bound the budget of all writes for what deliveries change, health and counts; in between it is
	// what brings each subscription up to date within upkeepRound. After a rest there may be upkeepAtOnce.
	upkeepLeast  = 20
	upkeepMost   = 150
	upkeepRound  = 40 * time.Second
	upkeepAtOnce = 300
	// A subscription's status is written writesAtOnce times in a row for what its deliveries change, and then every
	// writePause: neither an endpoint that flaps nor a busy one can use up the budget of others of its tenant.
	writesAtOnce = 3
	writePause   = 40 * time.Second
	// touchPause is how long changes are gathered before they are looked at; countPause how long a subscription's
	// counts rest after they changed, so that a busy one is written once for many deliveries.
	touchPause = 200 * time.Millisecond
	countPause = time.Second
	// newsWriters and upkeepWriters are how many writes are under way at once.
	newsWriters   = 16
	upkeepWriters = 8
	// writeTimeout bounds one write.
	writeTimeout = 10 * time.Second
	// maxRetrying is how many of a subscription's retrying deliveries are shown.
	maxRetrying = 10
	// firstRetry and lastRetry bound the wait after a failed write.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 15 * time.Second
)

// Store is what a Writer reads.
type Store interface {
	Counts(ctx context.Context, sub event.SubscriptionKey) (delivery.Counts, error)
	Retrying(ctx context.Context, sub event.SubscriptionKey, limit int) ([]store.RetryingDelivery, error)
	OldestPending(ctx context.Context, sub event.SubscriptionKey) (time.Time, error)
}

// Client reads and writes the status of subscriptions.
type Client interface {
	// Get returns the status that stands.
	Get(ctx context.Context, route *routing.Route) (v1alpha1.WebhookSubscriptionStatus, error)
	// List calls each with the uid and the status of every subscription that this process may list. It asks for pages.
	List(ctx context.Context, each func(identity string, status v1alpha1.WebhookSubscriptionStatus)) error
	// Apply writes what this field owner has to say.
	Apply(ctx context.Context, route *routing.Route, status v1alpha1.WebhookSubscriptionStatus) error
}

// Writer keeps the status of a routing table's subscriptions up to date. Make one with New, and Run it.
type Writer struct {
	store  Store
	client Client
	logger logr.Logger

	// owns reports whether a subscription's status is this process's to write.
	owns func(event.SubscriptionKey) bool
	// byRevision is set if somebody else says by which generation of each subscription deliveries are made.
	byRevision   bool
	news, upkeep queue
	lies         *order // of upkeep

	mu    sync.Mutex
	table *routing.Table
	// recalled is the table that an earlier process worked by; nil if there is none, or table is set.
	recalled *routing.Table
	// shown is what the API server shows, as far as this process knows.
	shown map[event.SubscriptionKey]shown
	// fresh are the subscriptions that came into the table, or changed in it, and are not written yet. Nothing is asked about
	// those that came.
	fresh   map[event.SubscriptionKey]change
	touched map[event.SubscriptionKey]struct{}
	signal  chan struct{} // something was touched
	// surveying is set while what stands of some subscriptions is yet to be found out; survey wakes up who does that.
	surveying bool
	survey    chan struct{}
	pending   pending
	scheduled scheduledCounts
	filters   filters
}

// change is what became of a subscription in the table, and when.
type change struct {
	came bool // else it changed
	at   time.Time
}

// freshFor is how long a change counts as one that nobody else has written: a dispatcher that has just started knows of
// changes before it knows which subscriptions are its own.
const freshFor = 30 * time.Second

type queue struct {
	workqueue.TypedRateLimitingInterface[event.SubscriptionKey]
	budget *rate.Limiter
}

func newQueue(perSecond, atOnce int, order workqueue.Queue[event.SubscriptionKey]) queue {
	return queue{
		workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[event.SubscriptionKey](firstRetry, lastRetry),
			workqueue.TypedRateLimitingQueueConfig[event.SubscriptionKey]{
				DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[event.SubscriptionKey]{
					Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[event.SubscriptionKey]{Queue: order}),
				}),
			}),
		rate.NewLimiter(rate.Limit(perSecond), atOnce),
	}
}

// New returns a Writer that does nothing until Run. It writes the subscriptions that owns tells it to: where several
// dispatchers share a store, each writes those that it delivers to.
func New(s Store, client Client, owns func(event.SubscriptionKey) bool, logger logr.Logger) *Writer {
	w := &Writer{
		store: s, client: client, owns: owns, logger: logger,
		news:    newQueue(newsPerSecond, newsPerSecond, workqueue.DefaultQueue[event.SubscriptionKey]()),
		shown:   make(map[event.SubscriptionKey]shown),
		fresh:   make(map[event.SubscriptionKey]change),
		touched: make(map[event.SubscriptionKey]struct{}),
		signal:  make(chan struct{}, 1),
		survey:  make(chan struct{}, 1),
	}
	w.lies = newOrder(w.tenantOf)
	w.upkeep = newQueue(upkeepLeast, upkeepAtOnce, w.lies)
	return w
}

// tenantOf returns whose a subscription is, "" if the table does not have it. It is called by the queues: what calls those does not
// hold the lock.
func (w *Writer) tenantOf(key event.SubscriptionKey) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if route, ok := get(w.table, key); ok {
		return route.Tenant()
	}
	return ""
}

// ByRevision makes the Writer leave the generation out, and all else that says nothing yet: the manager concludes from one report
// of the table's revision what is programmed. See docs/adr/0014. It is called before Use and Run.
func (w *Writer) ByRevision() { w.byRevision = true }

// Recall notes the table that an earlier process worked by: what differs from it in the next one is news.
func (w *Writer) Recall(table *routing.Table) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.table == nil {
		w.recalled = table
	}
}

// Use makes table the one whose subscriptions are written. Call it once the dispatcher works by that table.
func (w *Writer) Use(table *routing.Table) {
	w.upkeep.budget.SetLimit(upkeepRate(table.Len()))
	w.mu.Lock()
	before, first := w.table, w.table == nil
	if first {
		before = w.recalled
	}
	w.table, w.recalled = table, nil
	w.filters.forget(table)
	for key := range w.shown {
		if _, ok := table.Get(key); !ok {
			delete(w.shown, key)
		}
	}
	for key := range w.fresh {
		if _, ok := table.Get(key); !ok {
			delete(w.fresh, key)
		}
	}
	var fresh []event.SubscriptionKey
	if before != nil { // else there is no telling what is news
		fresh = w.compare(before, table)
	}
	w.mu.Unlock()
	for _, key := range fresh {
		w.news.Add(key)
	}
	if first {
		w.requestSurvey()
	}
}

// compare notes which subscriptions came or changed since the table before, and returns them.
func (w *Writer) compare(before, table *routing.Table) (fresh []event.SubscriptionKey) {
	for route := range table.All() {
		old, found := before.Get(route.Key)
		switch {
		case !found && w.byRevision:
			w.shown[route.Key] = shownOf(v1alpha1.WebhookSubscriptionStatus{}) // and nothing has to be
			continue
		case !found:
			w.fresh[route.Key] = change{came: true, at: time.Now()}
		case old.Generation != route.Generation || old.Endpoint.Generation != route.Endpoint.Generation || (old.Endpoint.Target == nil) != (route.Endpoint.Target == nil):
			w.fresh[route.Key] = change{came: w.fresh[route.Key].came, at: time.Now()}
		default:
			continue
		}
		fresh = append(fresh, route.Key)
	}
	return fresh
}

// upkeepRate is how many writes a second there may be for what deliveries change, for n subscriptions.
func upkeepRate(n int) rate.Limit {
	return rate.Limit(min(max(float64(n)/upkeepRound.Seconds(), upkeepLeast), upkeepMost))
}

func get(table *routing.Table, key event.SubscriptionKey) (*routing.Route, bool) {
	if table == nil {
		return nil, false
	}
	return table.Get(key)
}

// Taken notes that the subscriptions of a shard are this process's from now on. It never blocks.
func (w *Writer) Taken(shard int) {
	var fresh []event.SubscriptionKey
	w.mu.Lock()
	for key := range w.shown { // somebody else may have written it since
		if delivery.ShardOf(key) == shard {
			delete(w.shown, key)
		}
	}
	for key, change := range w.fresh {
		switch {
		case delivery.ShardOf(key) != shard:
		case time.Since(change.at) > freshFor:
			delete(w.fresh, key)
		default:
			fresh = append(fresh, key)
		}
	}
	w.mu.Unlock()
	for _, key := range fresh {
		w.news.Add(key)
	}
	w.requestSurvey()
}

// Changed notes that something became of one of the subscription's deliveries. It never blocks.
func (w *Writer) Changed(key event.SubscriptionKey) {
	w.mu.Lock()
	w.touched[key] = struct{}{}
	w.mu.Unlock()
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) {
	var running sync.WaitGroup
	for range newsWriters {
		running.Go(func() { w.work(ctx, w.news) })
	}
	for range upkeepWriters {
		running.Go(func() { w.work(ctx, w.upkeep) })
	}
	running.Go(func() { w.sort(ctx) })
	running.Go(func() { w.surveys(ctx) })
	<-ctx.Done()
	w.Close()
	running.Wait()
}

// Close ends what New began. Run does so when it ends; a Writer that never runs has to be closed.
func (w *Writer) Close() {
	w.news.ShutDown()
	w.upkeep.ShutDown()
}

// sort puts what was touched into the queue it belongs into.
func (w *Writer) sort(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.signal:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(touchPause):
		}
		w.mu.Lock()
		touched := w.touched
		w.touched = make(map[event.SubscriptionKey]struct{})
		w.mu.Unlock()
		for key := range touched {
			w.file(ctx, key)
		}
	}
}

// file queues a subscription whose status may not say any more what is true: a change of health is news if there was none for
// a while, and a count can wait.
func (w *Writer) file(ctx context.Context, key event.SubscriptionKey) {
	counts, err := w.store.Counts(ctx, key)
	w.mu.Lock()
	route, ok := get(w.table, key)
	stands, known := w.shown[key]
	surveying := w.surveying
	w.mu.Unlock()
	if err != nil || !ok || !known && surveying { // the survey comes to it
		return
	}
	wait := stands.wait(time.Now())
	switch {
	case !known:
		w.upkeep.Add(key)
	case w.saysOf(route, counts, stands):
		w.lies.tell(key, wrong{size: stands.lie(counts)})
		w.upkeep.AddAfter(key, max(wait, countPause))
	default:
		w.lies.tell(key, wrong{size: wrongHealth, news: stands.rested(time.Now())})
		w.upkeep.AddAfter(key, wait)
	}
}

// work takes what is next once there may be a write, so that nothing goes before what is more urgent then.
func (w *Writer) work(ctx context.Context, q queue) {
	for spent := true; ; {
		if spent {
			if err := q.budget.Wait(ctx); err != nil {
				return
			}
		}
		key, stop := q.Get()
		if stop {
			return
		}
		var err error
		switch spent, err = w.write(ctx, key); {
		case err == nil:
			q.Forget(key)
		case ctx.Err() != nil:
		default:
			// An API server that is unavailable is none of an operator's surprises; one that refuses is.
			level := 1
			if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
				level = 0
			}
			w.logger.V(level).Info("Writing a subscription's status failed; trying again", "error", err.Error())
			w.lies.tell(key, wrong{size: wrongHealth})
			q.AddRateLimited(key)
		}
		q.Done(key)
	}
}

// write brings one subscription's status up to date, if it is not. It reports whether it asked anything of the API server.
func (w *Writer) write(ctx context.Context, key event.SubscriptionKey) (asked bool, err error) {
	w.mu.Lock()
	route, ok := get(w.table, key)
	before, known := w.shown[key]
	fresh, isFresh := w.fresh[key]
	w.mu.Unlock()
	if !ok || !w.owns(key) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if !known && !fresh.came {
		asked = true
		stands, err := w.client.Get(ctx, route)
		if apierrors.IsNotFound(err) {
			return true, nil // deleted; the table will say so
		}
		if err != nil {
			return true, fmt.Errorf("read the status: %w", err)
		}
		before = shownOf(ours(stands))
	}
	wanted, err := w.wanted(ctx, route)
	if err != nil {
		return true, err // the store is busy: no more is asked of it than otherwise
	}
	carryTransitions(wanted.Conditions, before.conditions, time.Now())
	carryPending(wanted.Deliveries, before.pending)
	after := shownOf(wanted)
	after.next = before.next
	if w.says(before, after) {
		after = before
	} else {
		asked = true
		err := w.client.Apply(ctx, route, wanted)
		if apierrors.IsNotFound(err) || errors.Is(err, errAnother) {
			return true, nil
		}
		if err != nil {
			return true, fmt.Errorf("apply the status: %w", err)
		}
		if !isFresh {
			after.count(time.Now())
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now, ok := get(w.table, key); ok {
		w.shown[key] = after
		if now == route {
			delete(w.fresh, key)
		}
	}
	return asked, nil
}

// wanted is what is to be said of the route now; transition times are not filled in.
func (w *Writer) wanted(ctx context.Context, route *routing.Route) (v1alpha1.WebhookSubscriptionStatus, error) {
	counts, err := w.store.Counts(ctx, route.Key)
	if err != nil {
		return v1alpha1.WebhookSubscriptionStatus{}, fmt.Errorf("read the counts: %w", err)
	}
	oldest, err := w.store.OldestPending(ctx, route.Key)
	if err != nil {
		return v1alpha1.WebhookSubscriptionStatus{}, fmt.Errorf("read the oldest pending delivery: %w", err)
	}
	status := v1alpha1.WebhookSubscriptionStatus{
		ProgrammedGeneration: w.generation(route), Conditions: w.conditions(route, counts), Deliveries: deliveryCounts(counts, oldest, w.pending.of(route.Key)),
	}
	w.scheduled.show(route, status.Deliveries)
	if counts.Retrying > 0 {
		retrying, err := w.store.Retrying(ctx, route.Key, maxRetrying)
		if err != nil {
			return v1alpha1.WebhookSubscriptionStatus{}, fmt.Errorf("read the retrying deliveries: %w", err)
		}
		for _, d := range retrying {
			status.Retrying = append(status.Retrying, v1alpha1.RetryingDelivery{
				DeliveryID: d.ID.String(), EventType: string(d.Type), Attempts: int32(d.Attempts),
				LastStatusCode: int32(d.LastStatusCode), NextAttemptTime: seconds(d.Due),
			})
		}
	}
	return status, nil
}

func deliveryCounts(counts delivery.Counts, oldest time.Time, pending *int64) *v1alpha1.DeliveryCounts {
	c := &v1alpha1.DeliveryCounts{Pending: pending, Delivered: &counts.Delivered, Retrying: &counts.Retrying, Failed: &counts.Failed}
	if oldest.IsZero() {
		c.Pending = new(int64(0)) // whatever was counted before
	} else {
		c.OldestPendingTime = new(seconds(oldest))
	}
	if !counts.LastDelivered.IsZero() {
		c.LastDeliveredTime = new(seconds(counts.LastDelivered))
	}
	if f := counts.LastFailure; !f.Started.IsZero() {
		c.LastFailure = &v1alpha1.AttemptFailure{Time: seconds(f.Started), StatusCode: int32(f.StatusCode), Reason: string(f.Reason)}
	}
	return c
}

// conditions are all that this package says of a route.
func (w *Writer) conditions(route *routing.Route, counts delivery.Counts) []metav1.Condition {
	return append(conditions(route, counts), w.rulesHealthy(route)...)
}

// seconds is t as the API server keeps it, so that what is read back compares equal.
func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second).Local()) }

// written are the types of the conditions that this package writes.
var written = []string{
	v1alpha1.ConditionEndpointHealthy, v1alpha1.ConditionFilterHealthy, v1alpha1.ConditionScheduleHealthy, v1alpha1.ConditionTransformHealthy,
}

// ours is the part of a status that this package writes.
func ours(s v1alpha1.WebhookSubscriptionStatus) v1alpha1.WebhookSubscriptionStatus {
	kept := v1alpha1.WebhookSubscriptionStatus{ProgrammedGeneration: s.ProgrammedGeneration, Deliveries: s.Deliveries, Retrying: s.Retrying}
	for _, c := range s.Conditions {
		if slices.Contains(written, c.Type) {
			kept.Conditions = append(kept.Conditions, c)
		}
	}
	return kept
}
