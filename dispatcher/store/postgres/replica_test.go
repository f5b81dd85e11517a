package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/payload"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

const namespace = "clinic-a"

// patience is how long anything that is waited for may take on a busy machine.
const patience = 60 * time.Second

// sent is an attempt.
type sent struct {
	id      event.DeliveryID
	replica string
	at      time.Time
}

// receivers notes what is sent by all replicas.
type receivers struct {
	mu       sync.Mutex
	attempts []sent
	byID     map[event.DeliveryID]int
	takes    time.Duration
	// failFirst answers 503 to first attempts.
	failFirst bool
}

// sender is the receivers as one replica reaches them.
type sender struct {
	*receivers
	replica string
}

// Send answers 200, unless it is to fail.
func (s sender) Send(ctx context.Context, request payload.Request) egress.Result {
	start := time.Now()
	s.mu.Lock()
	s.attempts = append(s.attempts, sent{request.Delivery, s.replica, start})
	s.byID[request.Delivery]++
	takes := s.takes
	s.mu.Unlock()
	if takes > 0 {
		t := time.NewTimer(takes)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return egress.Result{Started: start, Duration: time.Since(start), Reason: delivery.ReasonInterrupted}
		}
	}
	if s.failFirst && request.Number == 1 {
		return egress.Result{Started: start, Duration: time.Since(start), StatusCode: 503, Reason: delivery.ReasonStatusCode}
	}
	return egress.Result{Started: start, Duration: time.Since(start), StatusCode: 200}
}

func (r *receivers) count() (deliveries, attempts int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byID), len(r.attempts)
}

// cluster is some replicas on one database.
type cluster struct {
	*testing.T
	url       string
	schema    string
	endpoints endpoints
	subs      []*delivery.Subscription
	receivers *receivers
	published int
}

// endpoints are those of all subscriptions.
type endpoints map[event.SubscriptionKey]*engine.Endpoint

// Endpoint finds one.
func (e endpoints) Endpoint(key event.SubscriptionKey) (*engine.Endpoint, bool) {
	endpoint, ok := e[key]
	return endpoint, ok
}

func newCluster(t *testing.T, url string, subscriptions int) *cluster {
	c := &cluster{T: t, url: url, schema: newSchema(), endpoints: endpoints{}, receivers: &receivers{byID: map[event.DeliveryID]int{}}}
	key, err := signature.ParseKey([]byte("a signing key of plain text"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range subscriptions {
		name := fmt.Sprintf("sub-%d", i)
		sub := &delivery.Subscription{Key: event.NewSubscriptionKey(namespace + "/" + name), Tenant: namespace, Name: name}
		c.subs = append(c.subs, sub)
		c.endpoints[sub.Key] = &engine.Endpoint{
			Tenant: namespace, MaxInFlight: 32, Target: &egress.Target{URL: "https://example.com", Keys: signature.Keys{key}},
			Retry: engine.RetryPolicy{Initial: time.Second, Max: time.Second, MaxAge: time.Hour, Factor: 1},
		}
	}
	return c
}

// replica is a store and an engine on it.
type replica struct {
	*cluster
	name   string
	store  *postgres.Store
	engine *engine.Engine
	stop   func()
}

// start starts a replica; it is stopped in good order when the test ends, or before.
func (c *cluster) start(name string) *replica {
	c.Helper()
	s, err := postgres.Open(c.Context(), postgres.Options{URL: c.url, Schema: c.schema, Identity: name, Logger: c.logger(name), Timeout: 3 * time.Second})
	if err != nil {
		c.Fatal(err)
	}
	r := &replica{cluster: c, name: name, store: s}
	r.engine = engine.New(engine.Options{
		Store: s, Sender: sender{c.receivers, name}, Now: s.Now, StopTimeout: 10 * time.Second, Logger: c.logger(name),
	})
	r.engine.Use(c.endpoints, true)
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Context()))
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.Errorf("Run: %v", err)
		}
		if err := s.Close(); err != nil {
			c.Errorf("Close: %v", err)
		}
	})
	c.Cleanup(r.stop)
	return r
}

// logger shows what a replica logs, while the test runs.
func (c *cluster) logger(name string) logr.Logger {
	return funcr.New(func(_, line string) {
		if c.Context().Err() == nil {
			c.Log(name, line)
		}
	}, funcr.Options{LogTimestamp: true})
}

// publish publishes an event to the given subscriptions, and hands its deliveries to the engine.
func (r *replica) publish(subs ...*delivery.Subscription) error {
	r.receivers.mu.Lock()
	r.published++
	id := fmt.Sprintf("evt-%d", r.published)
	r.receivers.mu.Unlock()
	_, err := r.publishAs(id, subs...)
	return err
}

func (r *replica) publishAs(id string, subs ...*delivery.Subscription) ([]delivery.PendingDelivery, error) {
	_, fanouts, err := r.store.Append(r.Context(), []store.NewEvent{{Fanout: delivery.Fanout{
		Event:         &delivery.Event{Tenant: namespace, ID: id, Type: "patient.created", Body: []byte(`{"id":"` + id + `"}`)},
		Subscriptions: subs,
	}}})
	if err == nil {
		r.engine.Accept(fanouts)
	}
	var deliveries []delivery.PendingDelivery
	for i := range fanouts {
		for _, sub := range fanouts[i].Subscriptions {
			deliveries = append(deliveries, fanouts[i].Delivery(sub))
		}
	}
	return deliveries, err
}

// eventually waits until the condition holds.
func (c *cluster) eventually(what string, within time.Duration, holds func() bool) time.Duration {
	c.Helper()
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(start) > within {
			c.Fatalf("after %s, still not: %s", within, what)
		}
		<-tick.C
	}
	return time.Since(start)
}

// owned is how many shards a replica works on.
func (r *replica) owned() int { return len(postgres.Owned(r.store)) }

func TestReplicasShareTheWork(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 1)
	a := c.start("a")
	c.eventually("one owns all", patience, func() bool { return a.owned() == 64 })
	b := c.start("b")
	took := c.eventually("two share", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
	t.Logf("shared among two within %s", took)
	d := c.start("d")
	even := func(replicas ...*replica) func() bool {
		return func() bool {
			total := 0
			for _, r := range replicas {
				n := r.owned()
				if n < 64/len(replicas) || n > 64/len(replicas)+1 {
					return false
				}
				total += n
			}
			return total == 64
		}
	}
	took = c.eventually("three share", patience, even(a, b, d))
	t.Logf("shared among three within %s", took)
	b.stop()
	took = c.eventually("the rest share", patience, even(a, d))
	t.Logf("shared among the rest within %s", took)
}

// TestStrayLease: a dispatcher that has its share took another lease, or gave one back, and the answer was lost. It works
// on it no more than anybody else does.
func TestStrayLease(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 1)
	a, b := c.start("a"), c.start("b")
	even := func() bool { return a.owned() == 32 && b.owned() == 32 }
	c.eventually("two share", patience, even)
	owner, _ := leaseOf(t, c, postgres.Owned(a.store)[0])
	shard := postgres.Owned(b.store)[0]
	_, before := leaseOf(t, c, shard)
	stray := fmt.Sprintf("UPDATE %s.leases SET owner = '%s', epoch = epoch + 1 WHERE shard = %d", c.schema, owner, shard)
	if err := server.Exec(t.Context(), "postgres", stray); err != nil {
		t.Fatal(err)
	}
	took := c.eventually("two share again", patience, func() bool {
		_, epoch := leaseOf(t, c, shard)
		return epoch >= before+2 && even()
	})
	t.Logf("they share again after %s", took)
}

// TestHandOverSendsNothingTwice lets replicas come and go under load, in good order.
func TestHandOverSendsNothingTwice(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 50)
	c.receivers.takes = 20 * time.Millisecond
	a := c.start("a")
	c.eventually("one owns all", patience, func() bool { return a.owned() == 64 })
	ctx, cancel := context.WithCancel(t.Context())
	var loading sync.WaitGroup
	for range 4 {
		loading.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := a.publish(c.subs[i%len(c.subs)]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, name := range []string{"b", "d"} {
		r := c.start(name)
		c.eventually("the new one has its share", patience, func() bool { return r.owned() >= 21 })
		before, _ := c.receivers.count()
		c.eventually("more is delivered", patience, func() bool { n, _ := c.receivers.count(); return n > before+200 })
		if name == "b" {
			r.stop()
			c.eventually("the first has all again", patience, func() bool { return a.owned() == 64 })
		}
	}
	cancel()
	loading.Wait()
	c.eventually("all is delivered", patience, func() bool { n, _ := c.receivers.count(); return n == c.published })
	deliveries, attempts := c.receivers.count()
	if attempts != deliveries {
		t.Errorf("%d attempts of %d deliveries, although every hand-over was in good order", attempts, deliveries)
	}
}

// TestNoticedElsewhere measures how long what one replica stores takes to be on its way at another.
func TestNoticedElsewhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 20)
	a, b := c.start("a"), c.start("b")
	c.eventually("two share", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
	var took []time.Duration
	tick := time.NewTicker(7 * time.Millisecond)
	defer tick.Stop()
	for i := range 300 {
		<-tick.C
		sub := c.subs[i%len(c.subs)]
		from, to := a, "b"
		if a.engine.Owns(sub.Key) {
			from, to = b, "a"
		}
		deliveries, err := from.publishAs(fmt.Sprint(i), sub)
		acked := time.Now()
		if err != nil {
			t.Fatal(err)
		}
		c.eventually("it is sent", patience, func() bool {
			c.receivers.mu.Lock()
			defer c.receivers.mu.Unlock()
			if len(c.receivers.attempts) <= i {
				return false
			}
			last := c.receivers.attempts[i]
			if last.id != deliveries[0].ID || last.replica != to {
				t.Fatalf("attempt %+v, want %s by %s", last, deliveries[0].ID, to)
			}
			took = append(took, last.at.Sub(acked))
			return true
		})
	}
	p50, p99 := quantiles(took)
	t.Logf("on its way after p50 %s, p99 %s", p50, p99)
	if bound := 50 * time.Millisecond * slack; p99 > bound {
		t.Errorf("p99 is %s, want at most %s", p99, bound)
	}
}
