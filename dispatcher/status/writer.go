package status

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/api/equality"
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
	// conditionsPerSecond and countsPerSecond are the budget of writes.
	conditionsPerSecond = 300
	countsPerSecond     = 20
	// touchPause is how long changes are gathered before they are looked at; countPause how long a subscription's
	// counts rest after they changed, so that a busy one is written once for many deliveries.
	touchPause = 200 * time.Millisecond
	countPause = time.Second
	// writers is how many writes are under way at once, for conditions and for counts each.
	writers = 4
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
	// Apply writes what this field owner has to say.
	Apply(ctx context.Context, route *routing.Route, status v1alpha1.WebhookSubscriptionStatus) error
}

// Writer keeps the status of a routing table's subscriptions up to date. Make one with New, and Run it.
type Writer struct {
	store  Store
	client Client
	logger logr.Logger

	// owns tells whether a subscription's status is this process's to write.
	owns               func(event.SubscriptionKey) bool
	conditions, counts queue

	mu      sync.Mutex
	table   *routing.Table
	written map[event.SubscriptionKey]v1alpha1.WebhookSubscriptionStatus
	touched map[event.SubscriptionKey]struct{}
	signal  chan struct{} // something was touched
}

type queue struct {
	workqueue.TypedRateLimitingInterface[event.SubscriptionKey]
	budget *rate.Limiter
}

func newQueue(perSecond int) queue {
	return queue{
		workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[event.SubscriptionKey](firstRetry, lastRetry)),
		rate.NewLimiter(rate.Limit(perSecond), perSecond),
	}
}

// New returns a Writer that does nothing until Run. It writes the subscriptions that owns tells it to: where several
// dispatchers share a store, each writes those that it delivers to.
func New(s Store, client Client, owns func(event.SubscriptionKey) bool, logger logr.Logger) *Writer {
	return &Writer{
		store: s, client: client, owns: owns, logger: logger,
		conditions: newQueue(conditionsPerSecond), counts: newQueue(countsPerSecond),
		written: make(map[event.SubscriptionKey]v1alpha1.WebhookSubscriptionStatus),
		touched: make(map[event.SubscriptionKey]struct{}),
		signal:  make(chan struct{}, 1),
	}
}

// Use makes table the one whose subscriptions are written. Call it once the dispatcher works by that table.
func (w *Writer) Use(table *routing.Table) {
	w.mu.Lock()
	before := w.table
	w.table = table
	for key := range w.written {
		if _, ok := table.Get(key); !ok {
			delete(w.written, key)
		}
	}
	w.mu.Unlock()
	for route := range table.All() {
		if old, ok := get(before, route.Key); !ok || old.Generation != route.Generation || old.Endpoint.Generation != route.Endpoint.Generation || (old.Endpoint.Target == nil) != (route.Endpoint.Target == nil) {
			w.conditions.Add(route.Key)
		}
	}
}

func get(table *routing.Table, key event.SubscriptionKey) (*routing.Route, bool) {
	if table == nil {
		return nil, false
	}
	return table.Get(key)
}

// Taken notes that the subscriptions of a shard are this process's from now on. It never blocks.
func (w *Writer) Taken(shard int) {
	w.mu.Lock()
	table := w.table
	for key := range w.written { // somebody else may have written it since
		if delivery.ShardOf(key) == shard {
			delete(w.written, key)
		}
	}
	w.mu.Unlock()
	if table == nil {
		return
	}
	for route := range table.All() {
		if delivery.ShardOf(route.Key) == shard {
			w.conditions.Add(route.Key)
		}
	}
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
	for range writers {
		running.Go(func() { w.work(ctx, w.conditions) })
		running.Go(func() { w.work(ctx, w.counts) })
	}
	running.Go(func() { w.sort(ctx) })
	<-ctx.Done()
	w.conditions.ShutDown()
	w.counts.ShutDown()
	running.Wait()
}

// sort puts what was touched into the queue it belongs into: a change of health is news, a count can wait.
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
			if w.isNews(ctx, key) {
				w.conditions.Add(key)
			} else {
				w.counts.AddAfter(key, countPause)
			}
		}
	}
}

// isNews tells whether the conditions differ from what was written.
func (w *Writer) isNews(ctx context.Context, key event.SubscriptionKey) bool {
	counts, err := w.store.Counts(ctx, key)
	w.mu.Lock()
	defer w.mu.Unlock()
	route, ok := get(w.table, key)
	if err != nil || !ok {
		return false
	}
	return !sameConditions(conditions(route, counts), w.written[key].Conditions)
}

func (w *Writer) work(ctx context.Context, q queue) {
	for {
		key, stop := q.Get()
		if stop {
			return
		}
		switch err := w.write(ctx, key, q.budget); {
		case err == nil:
			q.Forget(key)
		case ctx.Err() != nil:
		default:
			// An API server that is away is none of an operator's surprises; one that refuses is.
			level := 1
			if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
				level = 0
			}
			w.logger.V(level).Info("Writing a subscription's status failed; trying again", "error", err.Error())
			q.AddRateLimited(key)
		}
		q.Done(key)
	}
}

// write brings one subscription's status up to date, if it is not.
func (w *Writer) write(ctx context.Context, key event.SubscriptionKey, budget *rate.Limiter) error {
	w.mu.Lock()
	route, ok := get(w.table, key)
	before, known := w.written[key]
	w.mu.Unlock()
	if !ok || !w.owns(key) {
		return nil
	}
	if err := budget.Wait(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if !known {
		stands, err := w.client.Get(ctx, route)
		if apierrors.IsNotFound(err) {
			return nil // deleted; the table will say so
		}
		if err != nil {
			return fmt.Errorf("read the status: %w", err)
		}
		before = ours(stands)
	}
	wanted, err := w.wanted(ctx, route)
	if err != nil {
		return err
	}
	carryTransitions(wanted.Conditions, before.Conditions, time.Now())
	if !equality.Semantic.DeepEqual(wanted, before) {
		err := w.client.Apply(ctx, route, wanted)
		if apierrors.IsNotFound(err) || errors.Is(err, errAnother) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("apply the status: %w", err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := get(w.table, key); ok {
		w.written[key] = wanted
	}
	return nil
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
	status := v1alpha1.WebhookSubscriptionStatus{Conditions: conditions(route, counts), Deliveries: deliveryCounts(counts, oldest)}
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

func deliveryCounts(counts delivery.Counts, oldest time.Time) *v1alpha1.DeliveryCounts {
	c := &v1alpha1.DeliveryCounts{Delivered: &counts.Delivered, Retrying: &counts.Retrying, Failed: &counts.Failed}
	if !oldest.IsZero() {
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

// seconds is t as the API server keeps it, so that what is read back compares equal.
func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second).Local()) }

// ours is the part of a status that this package writes.
func ours(s v1alpha1.WebhookSubscriptionStatus) v1alpha1.WebhookSubscriptionStatus {
	kept := v1alpha1.WebhookSubscriptionStatus{Deliveries: s.Deliveries, Retrying: s.Retrying}
	for _, wanted := range []string{v1alpha1.ConditionProgrammed, v1alpha1.ConditionEndpointHealthy} {
		for _, c := range s.Conditions {
			if c.Type == wanted {
				kept.Conditions = append(kept.Conditions, c)
			}
		}
	}
	return kept
}

// sameConditions compares all but the transition times.
func sameConditions(a, b []metav1.Condition) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		x.LastTransitionTime, y.LastTransitionTime = metav1.Time{}, metav1.Time{}
		if x != y {
			return false
		}
	}
	return true
}
