package status

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakes are a Store and a Client in memory.
type fakes struct {
	mu     sync.Mutex
	counts map[event.SubscriptionKey]delivery.Counts
	stands map[string]v1alpha1.WebhookSubscriptionStatus
	writes int
	reads  int
	lists  int
	// unlisted is why subscriptions may not be listed.
	unlisted error
	away     error
	others   map[int]bool // shards that another process owns
	oldest   map[event.SubscriptionKey]time.Time
}

func (f *fakes) owns(key event.SubscriptionKey) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.others[delivery.ShardOf(key)]
}

func newFakes() *fakes {
	return &fakes{counts: map[event.SubscriptionKey]delivery.Counts{}, stands: map[string]v1alpha1.WebhookSubscriptionStatus{}}
}

func (f *fakes) Counts(_ context.Context, sub event.SubscriptionKey) (delivery.Counts, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[sub], nil
}

func (f *fakes) Retrying(_ context.Context, sub event.SubscriptionKey, limit int) ([]store.RetryingDelivery, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(limit, int(f.counts[sub].Retrying))
	list := make([]store.RetryingDelivery, n)
	for i := range list {
		list[i] = store.RetryingDelivery{
			ID:   event.DeliveryID{Event: event.NewKey(epoch, "clinic-a", fmt.Sprint(i)), Subscription: sub},
			Type: "lab.created", Attempts: 2, LastStatusCode: 500, Due: epoch.Add(time.Hour),
		}
	}
	return list, nil
}

func (f *fakes) OldestPending(_ context.Context, sub event.SubscriptionKey) (time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts[sub].Retrying > 0 {
		return epoch, nil
	}
	return f.oldest[sub], nil
}

func (f *fakes) Get(_ context.Context, route *routing.Route) (v1alpha1.WebhookSubscriptionStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	return f.stands[route.Name], f.away
}

func (f *fakes) List(_ context.Context, each func(string, v1alpha1.WebhookSubscriptionStatus)) error {
	f.mu.Lock()
	f.lists++
	stands, err := maps.Clone(f.stands), errors.Join(f.away, f.unlisted)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	for name, status := range stands {
		each(name, status)
	}
	return nil
}

func (f *fakes) Apply(_ context.Context, route *routing.Route, status v1alpha1.WebhookSubscriptionStatus) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away != nil {
		return f.away
	}
	f.writes++
	f.stands[route.Name] = status
	return nil
}

// set changes a subscription's counts, as the recording of an outcome does.
func (f *fakes) set(w *Writer, key event.SubscriptionKey, change func(*delivery.Counts)) {
	f.mu.Lock()
	c := f.counts[key]
	change(&c)
	f.counts[key] = c
	f.mu.Unlock()
	w.Changed(key)
}

// wait makes a subscription have a delivery that waits for its first attempt.
func (f *fakes) wait(key event.SubscriptionKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.oldest = map[event.SubscriptionKey]time.Time{key: epoch}
}

func (f *fakes) condition(name, kind string) metav1.Condition {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.stands[name].Conditions {
		if c.Type == kind {
			return c
		}
	}
	return metav1.Condition{}
}

func (f *fakes) status(name string) v1alpha1.WebhookSubscriptionStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stands[name]
}

func (f *fakes) takeWrites() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.writes
	f.writes = 0
	return n
}

var epoch = time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)

func route(name string, generation int64) *routing.Route {
	return &routing.Route{
		Identity: name, Namespace: "clinic-a", Name: name, Generation: generation, Key: event.NewSubscriptionKey(name),
		Endpoint: &engine.Endpoint{Tenant: "clinic-a", Target: &egress.Target{}, Generation: generation},
	}
}

func table(t *testing.T, routes ...*routing.Route) *routing.Table {
	t.Helper()
	table, err := routing.NewTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// start runs a Writer in the test's bubble.
func start(t *testing.T, f *fakes, options ...func(*Writer)) (*Writer, func()) {
	t.Helper()
	w := New(f, f, f.owns, logr.Discard())
	for _, option := range options {
		option(w)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	return w, func() { cancel(); <-done; advance(time.Second) }
}

// advance lets the bubble's clock run for d, and what falls due within it happen.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestConditions(t *testing.T) {
	t.Parallel()
	waiting := route("a", 3)
	waiting.Endpoint.Target = nil
	pulled := route("a", 3)
	pulled.Endpoint.Pull = true
	for name, test := range map[string]struct {
		route          *routing.Route
		counts         delivery.Counts
		wantProgrammed int64
		wantHealthy    metav1.ConditionStatus
		wantReason     string
	}{
		"never attempted":     {route("a", 3), delivery.Counts{}, 3, "Unknown", "NoAttempts"},
		"delivering":          {route("a", 3), delivery.Counts{LastDelivered: epoch}, 3, "True", "Delivering"},
		"one failed":          {route("a", 3), delivery.Counts{LastDelivered: epoch, FailuresInARow: 1}, 3, "False", "LastAttemptFailed"},
		"nine failed":         {route("a", 3), delivery.Counts{FailuresInARow: 9}, 3, "False", "LastAttemptFailed"},
		"ten failed":          {route("a", 3), delivery.Counts{FailuresInARow: 10}, 3, "False", "CircuitOpen"},
		"gone":                {route("a", 3), delivery.Counts{FailuresInARow: 1, Gone: 3}, 3, "False", "Gone"},
		"gone, then changed":  {route("a", 4), delivery.Counts{FailuresInARow: 1, Gone: 3}, 4, "False", "LastAttemptFailed"},
		"pulled":              {pulled, delivery.Counts{LastDelivered: epoch}, 3, "Unknown", "Pulled"},
		"pulled, was failing": {pulled, delivery.Counts{FailuresInARow: 12, Gone: 3}, 3, "Unknown", "Pulled"},
		"not accepted":        {waiting, delivery.Counts{LastDelivered: epoch}, 0, "True", "Delivering"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := conditions(test.route, test.counts)[0]
			want := metav1.Condition{Type: "EndpointHealthy", Status: test.wantHealthy, Reason: test.wantReason, ObservedGeneration: test.route.Generation, Message: got.Message}
			if got != want || got.Message == "" {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if got := programmed(test.route); got != test.wantProgrammed {
				t.Errorf("programmed with generation %d, want %d", got, test.wantProgrammed)
			}
		})
	}
}

func TestProgrammedFollowsTheTable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		w, stop := start(t, f)
		defer stop()
		w.Use(table(t, route("a", 1), route("b", 1)))
		advance(time.Second)
		if f.takeWrites() != 2 || f.stands["a"].ProgrammedGeneration != 1 {
			t.Fatalf("not programmed: %+v", f.stands)
		}
		since := f.condition("a", "EndpointHealthy").LastTransitionTime
		w.Use(table(t, route("a", 2), route("b", 1)))
		advance(time.Minute)
		if n := f.takeWrites(); n != 1 {
			t.Errorf("%d writes for one changed subscription", n)
		}
		c := f.condition("a", "EndpointHealthy")
		if f.stands["a"].ProgrammedGeneration != 2 || c.ObservedGeneration != 2 || !c.LastTransitionTime.Equal(&since) {
			t.Errorf("got %+v, want generation 2 and the transition time that stood", c)
		}
		waiting := route("a", 2)
		waiting.Endpoint.Target = nil
		w.Use(table(t, waiting, route("b", 1)))
		advance(time.Minute)
		if got := f.stands["a"].ProgrammedGeneration; got != 0 {
			t.Errorf("it waits, and is programmed with generation %d", got)
		}
	})
}

func TestARestartWritesNothingThatStands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		for range 3 {
			w, stop := start(t, f)
			f.set(w, event.NewSubscriptionKey("a"), func(c *delivery.Counts) { c.Delivered, c.LastDelivered, c.Retrying = 7, epoch, 3 })
			w.Use(table(t, route("a", 1)))
			advance(time.Minute)
			stop()
		}
		if n := f.takeWrites(); n != 1 {
			t.Errorf("%d writes, want the first alone", n)
		}
		if s := f.stands["a"]; *s.Deliveries.Delivered != 7 || len(s.Retrying) != 3 || s.Retrying[0].LastStatusCode != 500 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestAPIServerAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		w, stop := start(t, f)
		defer stop()
		f.away = errors.New("connection refused")
		w.Use(table(t, route("a", 1)))
		for range 100 {
			f.set(w, event.NewSubscriptionKey("a"), func(c *delivery.Counts) { c.Delivered++; c.LastDelivered = epoch })
			advance(time.Second)
		}
		f.mu.Lock()
		f.away = nil
		f.mu.Unlock()
		advance(lastRetry + 5*time.Second)
		if got := f.stands["a"].Deliveries; got == nil || *got.Delivered != 100 || f.condition("a", "EndpointHealthy").Status != "True" {
			t.Errorf("the status did not catch up: %+v", f.stands["a"])
		}
	})
}

// many returns n routes.
func many(n int) []*routing.Route {
	routes := make([]*routing.Route, n)
	for i := range routes {
		routes[i] = route(fmt.Sprint(i), 1)
	}
	return routes
}

// stand makes the API server show of each route what a dispatcher has to say before any delivery.
func (f *fakes) stand(routes ...*routing.Route) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range routes {
		zero := int64(0)
		status := v1alpha1.WebhookSubscriptionStatus{
			ProgrammedGeneration: r.Generation,
			Conditions:           conditions(r, delivery.Counts{}),
			Deliveries:           &v1alpha1.DeliveryCounts{Pending: &zero, Delivered: &zero, Retrying: &zero, Failed: &zero},
		}
		carryTransitions(status.Conditions, nil, epoch)
		f.stands[r.Name] = status
	}
}

func TestWritesKeepWithinTheBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		w, stop := start(t, f)
		defer stop()
		const n = 2000
		routes := many(n)
		w.Use(table(t))
		w.Use(table(t, routes...))
		advance(time.Second)
		if got := f.takeWrites(); got < newsPerSecond || got > 2*newsPerSecond+newsWriters {
			t.Errorf("%d conditions written in the first second", got)
		}
		advance(10 * time.Second)
		f.takeWrites()
		change := func(c *delivery.Counts) { c.Delivered++; c.LastDelivered = epoch }
		for _, r := range routes { // the first delivery is news: healthy
			f.set(w, r.Key, change)
		}
		advance(upkeepRound)
		if got := f.takeWrites(); got != n {
			t.Errorf("%d of %d changes of health written", got, n)
		}
		for range 20 { // further ones are counts
			for _, r := range routes {
				f.set(w, r.Key, change)
			}
			advance(time.Second)
		}
		if got := f.takeWrites(); got > 21*n/40+upkeepAtOnce || got < 19*n/40 {
			t.Errorf("%d counts written in 20 s", got)
		}
		f.set(w, routes[5].Key, func(c *delivery.Counts) { c.FailuresInARow = 10 })
		advance(time.Second)
		if got := f.condition("5", "EndpointHealthy"); got.Reason != "CircuitOpen" {
			t.Errorf("a change of health waited behind counts: %+v", got)
		}
		if f.reads+f.lists != 0 {
			t.Errorf("%d reads and %d lists for subscriptions that are new", f.reads, f.lists)
		}
	})
}

// TestARestartAsksForPages: after a restart with nothing changed nothing is written, and no subscription is asked for.
func TestARestartAsksForPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		routes := many(5000)
		f.stand(routes...)
		w, stop := start(t, f)
		defer stop()
		w.Recall(table(t, routes...))
		w.Use(table(t, routes...))
		for shard := range delivery.Shards {
			w.Taken(shard)
		}
		advance(time.Minute)
		if f.takeWrites() != 0 || f.reads != 0 || f.lists != 1 {
			t.Errorf("%d writes, %d reads, %d lists after a restart", f.writes, f.reads, f.lists)
		}
	})
}

// TestNewsComesFirst: what came or changed while a dispatcher starts does not wait for what is asked about the rest.
func TestNewsComesFirst(t *testing.T) {
	t.Parallel()
	for name, unlisted := range map[string]error{
		"listed":     nil,
		"may not":    apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("no")),
		"list fails": errors.New("the API server is busy"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFakes()
				f.unlisted = unlisted
				routes := many(20_000)
				f.stand(routes...)
				w, stop := start(t, f)
				defer stop()
				w.Recall(table(t, routes...))
				while := append(slices.Clone(routes), route("while it was down", 1))
				w.Use(table(t, while...))
				w.Taken(0)
				later := append(slices.Clone(while), route("later", 1))
				later[7] = route("7", 2)
				w.Use(table(t, later...))
				advance(time.Second)
				for name, want := range map[string]int64{"while it was down": 1, "later": 1, "7": 2} {
					if got := f.status(name).ProgrammedGeneration; got != want {
						t.Errorf("%s waits: generation %d is programmed, want %d", name, got, want)
					}
				}
				if f.takeWrites() != 3 || f.reads > upkeepAtOnce+upkeepMost+upkeepWriters {
					t.Errorf("%d reads within a second", f.reads)
				}
			})
		})
	}
}

// TestSurveyFindsWhatIsWrong: what an earlier dispatcher did not come to write is written.
func TestSurveyFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		routes := many(1000)
		f.stand(routes...)
		w, stop := start(t, f)
		defer stop()
		f.counts[routes[1].Key] = delivery.Counts{FailuresInARow: 10}
		f.counts[routes[2].Key] = delivery.Counts{Failed: 3}
		w.Use(table(t, routes...))
		advance(5 * time.Second)
		if got := f.takeWrites(); got != 2 || f.condition("1", "EndpointHealthy").Reason != "CircuitOpen" || *f.stands["2"].Deliveries.Failed != 3 {
			t.Errorf("%d writes: %+v, %+v", got, f.stands["1"], f.stands["2"])
		}
	})
}

// TestFlappingIsBounded: endpoints that change between health and failure all the time are not written all the time, and
// what they are in the end is.
func TestFlappingIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		w, stop := start(t, f)
		defer stop()
		routes := many(1000)
		f.stand(routes...)
		w.Use(table(t, routes...))
		advance(time.Second)
		flap := func(seconds int) {
			for i := range seconds {
				for _, r := range routes {
					f.set(w, r.Key, func(c *delivery.Counts) {
						c.Delivered++
						c.LastDelivered = epoch.Add(time.Duration(c.Delivered) * time.Second)
						c.FailuresInARow = i % 2
					})
				}
				advance(time.Second)
			}
		}
		for minute := range 3 { // also in the first
			flap(60)
			if got := f.takeWrites(); got > 60*30+upkeepWriters {
				t.Errorf("minute %d: %d writes a second", minute, got/60)
			}
		}
		f.set(w, routes[0].Key, func(c *delivery.Counts) { c.FailuresInARow = 10 })
		advance(2 * writePause)
		if c := f.condition("0", "EndpointHealthy"); c.Reason != "CircuitOpen" {
			t.Errorf("the last word is %+v", c)
		}
	})
}

// TestBiggestLiesFirst: after a burst the counts that are most wrong are written first.
func TestBiggestLiesFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		w, stop := start(t, f)
		defer stop()
		routes := many(3000)
		healthy := func(c *delivery.Counts) { c.Delivered, c.LastDelivered = 1000, epoch }
		w.Use(table(t))
		w.Use(table(t, routes...))
		for _, r := range routes {
			f.set(w, r.Key, healthy)
		}
		advance(time.Minute)
		for i, r := range routes {
			f.set(w, r.Key, func(c *delivery.Counts) {
				if c.Delivered++; i%30 == 0 {
					c.Delivered += 500
				}
			})
		}
		advance(10 * time.Second)
		for i := 0; i < len(routes); i += 30 {
			if got := *f.stands[fmt.Sprint(i)].Deliveries.Delivered; got != 1501 {
				t.Errorf("%d shows %d, want 1501: it is 50 %% wrong, others 0.1 %%", i, got)
			}
		}
		if got := f.takeWrites(); got < 100 {
			t.Error(got)
		}
		advance(upkeepRound)
		for i := range routes {
			if got := *f.stands[fmt.Sprint(i)].Deliveries.Delivered; got < 1001 {
				t.Fatalf("%d shows %d after %v", i, got, upkeepRound)
			}
		}
	})
}

func TestOnlyTheOwnerWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		r := route("a", 1)
		shard := delivery.ShardOf(r.Key)
		f.others = map[int]bool{shard: true}
		w, stop := start(t, f)
		defer stop()
		w.Use(table(t, r))
		f.set(w, r.Key, func(c *delivery.Counts) { c.Delivered = 1; c.LastDelivered = epoch })
		advance(time.Minute)
		if n := f.takeWrites(); n != 0 {
			t.Fatalf("%d writes of another's subscription", n)
		}
		f.mu.Lock()
		f.others = nil
		f.mu.Unlock()
		w.Taken(shard)
		advance(time.Second)
		if n := f.takeWrites(); n != 1 || *f.stands["a"].Deliveries.Delivered != 1 {
			t.Errorf("%d writes after the shard was taken, want 1", n)
		}
	})
}
