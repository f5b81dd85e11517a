package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const dispatcher = "eventflow-system/default"

// cluster is the API server, as far as a Runner uses it.
type cluster struct {
	mu       sync.Mutex
	objects  map[string]*v1alpha1.WebhookReplay
	version  int
	watchers map[*watcher]bool
	writes   int
	down     bool
	scoped   bool // only namespaces may be listed
}

var errDown = errors.New("the API server is down")

func keyOf(namespace, name string) string { return namespace + "/" + name }

func (c *cluster) send(kind watch.EventType, r *v1alpha1.WebhookReplay) {
	for w := range c.watchers {
		w.events <- watch.Event{Type: kind, Object: r.DeepCopy()}
	}
}

// watcher is one watch. Its channel has room for all that a test does.
type watcher struct {
	*cluster
	events chan watch.Event
}

func (w *watcher) ResultChan() <-chan watch.Event { return w.events }

func (w *watcher) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watchers, w)
}

// put stores an object as it is to be.
func (c *cluster) put(r *v1alpha1.WebhookReplay) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	r.ResourceVersion = fmt.Sprint(c.version)
	_, ok := c.objects[keyOf(r.Namespace, r.Name)]
	c.objects[keyOf(r.Namespace, r.Name)] = r
	c.send(map[bool]watch.EventType{true: watch.Modified, false: watch.Added}[ok], r)
}

func (c *cluster) change(namespace, name string, f func(*v1alpha1.WebhookReplay)) {
	r := c.get(namespace, name)
	f(r)
	c.put(r)
}

func (c *cluster) get(namespace, name string) *v1alpha1.WebhookReplay {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.objects[keyOf(namespace, name)].DeepCopy()
}

func (c *cluster) written() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

func (c *cluster) remove(namespace, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(watch.Deleted, c.objects[keyOf(namespace, name)])
	delete(c.objects, keyOf(namespace, name))
}

func (c *cluster) List(_ context.Context, namespace string, _ metav1.ListOptions) (*v1alpha1.WebhookReplayList, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errDown
	}
	if c.scoped && namespace == "" {
		return nil, apierrors.NewForbidden(schema.GroupResource{}, "", nil)
	}
	list := &v1alpha1.WebhookReplayList{}
	list.ResourceVersion = fmt.Sprint(c.version)
	for _, r := range c.objects {
		if namespace == "" || r.Namespace == namespace {
			list.Items = append(list.Items, *r.DeepCopy())
		}
	}
	return list, nil
}

func (c *cluster) Watch(_ context.Context, _ metav1.ListOptions) (watch.Interface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errDown
	}
	w := &watcher{c, make(chan watch.Event, 10_000)}
	c.watchers[w] = true
	return w, nil
}

func (c *cluster) Get(_ context.Context, namespace, name string) (*v1alpha1.WebhookReplay, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errDown
	}
	r, ok := c.objects[keyOf(namespace, name)]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	return r.DeepCopy(), nil
}

func (c *cluster) Apply(ctx context.Context, of *v1alpha1.WebhookReplay, progress v1alpha1.ReplayProgress) (*v1alpha1.WebhookReplay, error) {
	c.mu.Lock()
	down := c.down
	r, ok := c.objects[keyOf(of.Namespace, of.Name)]
	c.writes++
	c.mu.Unlock()
	switch {
	case down || ctx.Err() != nil:
		return nil, errDown
	case !ok:
		return nil, apierrors.NewNotFound(schema.GroupResource{}, of.Name)
	case r.UID != of.UID:
		return nil, apierrors.NewConflict(schema.GroupResource{}, of.Name, nil)
	}
	r = r.DeepCopy()
	r.Status.Dispatchers = slices.DeleteFunc(r.Status.Dispatchers, func(p v1alpha1.ReplayProgress) bool { return p.Name == progress.Name })
	r.Status.Dispatchers = append(r.Status.Dispatchers, progress)
	c.put(r.DeepCopy())
	return c.get(r.Namespace, r.Name), nil
}

// deliveries are a store in memory, as far as a replay uses one. The embedded interface is nil: what is not here panics.
type deliveries struct {
	store.Store

	mu      sync.Mutex
	records map[event.DeliveryID]*store.Record
	done    map[event.DeliveryID]int // how often each was replayed or cancelled
	failing func() error             // of Replay
	slow    time.Duration            // of Replay
	calls   int                      // of Replay that are under way
	most    int                      // of them at once
}

func (s *deliveries) Now() time.Time { return time.Now() }

func (s *deliveries) List(_ context.Context, q store.Query) (found []store.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.records {
		if r.Tenant != q.Tenant || r.Subscription != q.Subscription || q.State != 0 && r.State != q.State || q.Scheduled && r.Planned.IsZero() {
			continue
		}
		accepted := id.Event.Accepted()
		if !q.Since.IsZero() && accepted.Before(q.Since) || !q.Until.IsZero() && !accepted.Before(q.Until) {
			continue
		}
		if q.Before != (event.DeliveryID{}) && bytes.Compare(id.Event[:], q.Before.Event[:]) >= 0 {
			continue
		}
		found = append(found, *r)
	}
	slices.SortFunc(found, func(a, b store.Record) int { return bytes.Compare(b.ID.Event[:], a.ID.Event[:]) })
	return found[:min(len(found), q.Limit)], nil
}

func (s *deliveries) Replay(ctx context.Context, tenant string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	defer func() { s.calls-- }()
	if s.most = max(s.most, s.calls); s.slow > 0 {
		s.mu.Unlock()
		_ = wait(ctx, s.slow)
		s.mu.Lock()
	}
	if s.failing != nil {
		if err := s.failing(); err != nil {
			return delivery.PendingDelivery{}, err
		}
	}
	r, ok := s.records[id]
	switch {
	case !ok || r.Tenant != tenant:
		return delivery.PendingDelivery{}, store.ErrNotFound
	case r.State == delivery.Pending:
		return delivery.PendingDelivery{}, store.ErrStillPending
	}
	s.done[id]++
	if r.State != delivery.Delivered {
		r.State = delivery.Pending
		return delivery.PendingDelivery{ID: id, Size: 1}, nil
	}
	again := *r
	again.ID.Event, again.ReplayOf, again.State = event.NewKey(time.Now().Add(time.Duration(len(s.records))), tenant, fmt.Sprint(len(s.records))), id, delivery.Pending
	s.records[again.ID] = &again
	return delivery.PendingDelivery{ID: again.ID, Size: 1}, nil
}

func (s *deliveries) Cancel(_ context.Context, tenant string, id event.DeliveryID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[id]
	if !ok || r.Tenant != tenant {
		return store.ErrNotFound
	}
	if r.State != delivery.Pending {
		return store.ErrNotPending
	}
	s.done[id]++
	r.State = delivery.Cancelled
	return nil
}

// total is how many were done, and most how often one of them was.
func (s *deliveries) total() (total, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.done {
		total, most = total+n, max(most, n)
	}
	return total, most
}

func (s *deliveries) atOnce() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// fixture is a Runner between an API server and a store.
type fixture struct {
	*testing.T
	cluster    *cluster
	deliveries *deliveries
	options    Options
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		T: t, cluster: &cluster{objects: map[string]*v1alpha1.WebhookReplay{}, watchers: map[*watcher]bool{}},
		deliveries: &deliveries{records: map[event.DeliveryID]*store.Record{}, done: map[event.DeliveryID]int{}},
	}
	asked, err := query.New(query.Options{Store: f.deliveries, Resume: func([]delivery.PendingDelivery) {}})
	if err != nil {
		t.Fatal(err)
	}
	f.options = Options{
		Client: f.cluster, Name: dispatcher, Deliveries: asked, Namespaces: func() []string { return []string{"clinic-a", "clinic-b"} }, Leads: func() bool { return true },
		Tenant: func(_ context.Context, namespace string) (string, bool, error) {
			return "uid-of-" + namespace, true, nil
		},
		Memory: budget.New(1 << 30), MaxEventBytes: func() int { return 1 << 20 }, Logger: logr.Discard(),
	}
	return f
}

// have stores n deliveries of a subscription, a millisecond apart, in the last hours.
func (f *fixture) have(namespace, subscription string, n int, state delivery.State) {
	f.deliveries.mu.Lock()
	defer f.deliveries.mu.Unlock()
	for i := range n {
		id := event.DeliveryID{Event: event.NewKey(time.Now().Add(-time.Hour-time.Duration(i)*time.Millisecond), namespace, subscription), Subscription: event.NewSubscriptionKey(subscription)}
		r := &store.Record{ID: id, Tenant: "uid-of-" + namespace, Subscription: subscription, State: state}
		if state == delivery.Pending {
			r.Planned = time.Now().Add(time.Hour)
		}
		f.deliveries.records[id] = r
	}
}

// replay creates a WebhookReplay as the manager leaves it.
func (f *fixture) replay(namespace, name string, spec v1alpha1.WebhookReplaySpec, subscriptions ...string) {
	r := &v1alpha1.WebhookReplay{Spec: spec}
	r.Namespace, r.Name, r.UID, r.CreationTimestamp = namespace, name, types.UID(name), metav1.Now()
	for _, s := range subscriptions {
		r.Status.Subscriptions = append(r.Status.Subscriptions, v1alpha1.ReplaySubscription{Name: s, Dispatcher: dispatcher})
	}
	f.cluster.put(r)
}

// start starts a process. The result kills it: with words, it may write its last position.
func (f *fixture) start() (stop func(words bool)) {
	f.Helper()
	runner, err := New(f.options)
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runner.Run(ctx)
	}()
	return func(words bool) {
		f.cluster.mu.Lock()
		down := f.cluster.down
		f.cluster.down = down || !words
		f.cluster.mu.Unlock()
		cancel()
		<-ended
		f.cluster.mu.Lock()
		f.cluster.down = down
		f.cluster.mu.Unlock()
	}
}

// progress is what the dispatcher says.
func (f *fixture) progress(namespace, name string) v1alpha1.ReplayProgress {
	r := f.cluster.get(namespace, name)
	if len(r.Status.Dispatchers) == 0 {
		return v1alpha1.ReplayProgress{}
	}
	return r.Status.Dispatchers[0]
}

// after lets time pass.
func (f *fixture) after(d time.Duration) {
	_ = wait(f.Context(), d)
	synctest.Wait()
}

// finished waits until a replay is finished, at most for d.
func (f *fixture) finished(namespace, name string, d time.Duration) v1alpha1.ReplayProgress {
	f.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); f.after(50 * time.Millisecond) {
		if p := f.progress(namespace, name); p.State == v1alpha1.ReplayFinished {
			return p
		}
	}
	f.Fatalf("%s is not finished after %v: %+v", name, d, f.progress(namespace, name))
	return v1alpha1.ReplayProgress{}
}
