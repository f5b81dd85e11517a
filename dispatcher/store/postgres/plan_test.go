package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

// noter is an owner that notes what it is told.
type noter struct {
	mu      sync.Mutex
	notices map[event.SubscriptionKey][]time.Time
	epochs  [delivery.Shards]int64
}

// Take notes the epoch.
func (n *noter) Take(lease delivery.Lease) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.epochs[lease.Shard] = lease.Epoch
}

func (n *noter) epoch(sub event.SubscriptionKey) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.epochs[delivery.ShardOf(sub)]
}

func (n *noter) Lose(int)                     {}
func (n *noter) Release(context.Context, int) {}

func (n *noter) Notice(b delivery.Backlog) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.notices == nil {
		n.notices = map[event.SubscriptionKey][]time.Time{}
	}
	n.notices[b.Subscription] = append(n.notices[b.Subscription], b.Due)
}

// heard reports whether there was a notice of something that is due then, to the precision of the store.
func (n *noter) heard(sub event.SubscriptionKey, due time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, at := range n.notices[sub] {
		if at.Equal(due) {
			return true
		}
	}
	return false
}

// planStore is a store without an engine.
type planStore struct {
	*cluster
	*postgres.Store
	noter noter
	stop  func()
}

func (c *cluster) openPlans(name string) *planStore {
	c.Helper()
	s, err := postgres.Open(c.Context(), postgres.Options{URL: c.url, Schema: c.schema, Identity: name, LeaseDuration: 3 * time.Second})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = s.Close() })
	return &planStore{cluster: c, Store: s, stop: func() {}}
}

// own makes the store work on shards, until the test ends or stop is called.
func (p *planStore) own() *planStore {
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.Context()))
	done := make(chan error, 1)
	go func() { done <- p.Store.Own(ctx, &p.noter) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.Errorf("Own: %v", err)
		}
	})
	p.Cleanup(p.stop)
	return p
}

func testKey(c *cluster, text string) plan.Key {
	key, err := plan.NewKey(text)
	if err != nil {
		c.Fatal(err)
	}
	return key
}

func stamp(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0) }

func scheduleEvent(id string) store.NewEvent {
	return store.NewEvent{Fanout: delivery.Fanout{Event: &delivery.Event{Tenant: namespace, ID: id, Type: "patient.created", Body: []byte(`{"id":"` + id + `"}`)}}}
}

// plans appends an event that plans one delivery for the key, and returns it.
func (p *planStore) plans(id string, sub *delivery.Subscription, key plan.Key, n int, at time.Time) (event.DeliveryID, error) {
	e := scheduleEvent(id)
	e.Plans = []store.Plan{{Subscription: sub, Key: key, Timestamp: stamp(n), Decision: plan.Decision{At: at}}}
	_, _, err := p.Append(p.Context(), []store.NewEvent{e})
	return event.DeliveryID{Event: e.Event.Key, Subscription: sub.Key}, err
}

// cancels appends events that cancel what is planned for the keys.
func (p *planStore) cancels(id string, sub *delivery.Subscription, n int, keys ...plan.Key) error {
	e := scheduleEvent(id)
	for _, key := range keys {
		e.Cancels = append(e.Cancels, store.Cancel{Subscription: sub, Key: key, Timestamp: stamp(n)})
	}
	_, _, err := p.Append(p.Context(), []store.NewEvent{e})
	return err
}

func (p *planStore) expect(id event.DeliveryID, state delivery.State, reason delivery.Reason) {
	p.Helper()
	r, err := p.Get(p.Context(), namespace, id)
	if err != nil || r.State != state || r.Reason != reason {
		p.Errorf("got %s %q, %v; want %s %q", r.State, r.Reason, err, state, reason)
	}
}

// TestPlansNoticedElsewhere: the owner of a shard hears of what another replica plans for it, and of what that sends now.
func TestPlansNoticedElsewhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 1)
	owner, other := c.openPlans("owner").own(), c.openPlans("other")
	c.eventually("it owns all", patience, func() bool { return len(postgres.Owned(owner.Store)) == 64 })
	sub := c.subs[0]
	for name, from := range map[string]*planStore{"other": other, "owner": owner} {
		at := time.Unix(owner.Now().Unix()+3600, int64(len(name))*1000)
		id, err := from.plans(name, sub, testKey(c, name), 1, at)
		if err != nil {
			t.Fatal(err)
		}
		c.eventually("the owner hears when it is due", patience, func() bool { return owner.noter.heard(sub.Key, at) })
		d, err := other.SendNow(t.Context(), namespace, id)
		if err != nil {
			t.Fatal(err)
		}
		c.eventually("the owner hears that it is due", patience, func() bool { return owner.noter.heard(sub.Key, d.Due) })
	}
	if n, _, err := owner.Scheduled(t.Context(), sub.Key); n != 0 || err != nil {
		t.Errorf("%d are scheduled, %v; want none", n, err)
	}
}

// TestStaleOwnerDoesNotStart takes a shard away from an owner that does not know it yet.
func TestStaleOwnerDoesNotStart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 1)
	stale, next := c.openPlans("stale").own(), c.openPlans("next")
	c.eventually("it owns all", patience, func() bool { return len(postgres.Owned(stale.Store)) == 64 })
	id, err := next.plans("1", c.subs[0], plan.Key{}, 1, stale.Now())
	if err != nil {
		t.Fatal(err)
	}
	start := func(s *planStore, want bool) {
		t.Helper()
		if got, err := s.Start(t.Context(), delivery.PendingDelivery{ID: id}); err != nil || got != want {
			t.Errorf("Start gave %t, %v; want %t", got, err, want)
		}
	}
	start(next, false) // it never had the lease
	start(stale, true)
	if err := server.Exec(t.Context(), "postgres", "UPDATE "+c.schema+".leases SET epoch = epoch + 1"); err != nil {
		t.Fatal(err)
	}
	start(stale, false)
}

// TestPlansRace lets many clients plan and cancel over two stores while the owners of the shards start what they find.
// The work changes hands in the middle. Nothing starts after its cancel was acknowledged, and the server sees no deadlock.
func TestPlansRace(t *testing.T) {
	t.Parallel()
	own := ownServer(t, nil)
	c := newCluster(t, own.URL("postgres"), 2)
	a, b := c.openPlans("a"), c.openPlans("b")
	first := c.openPlans("first").own()
	second := c.openPlans("second").own()
	owners := []*planStore{first, second}
	c.eventually("two share", patience, func() bool {
		return len(postgres.Owned(first.Store)) == 32 && len(postgres.Owned(second.Store)) == 32
	})
	r := &planRace{cluster: c, stores: []*planStore{a, b}, owners: owners, planned: map[event.DeliveryID]string{}, cancelled: map[string]struct{}{}}
	var starting, publishing sync.WaitGroup
	ctx, end := context.WithCancel(t.Context())
	for range 4 {
		starting.Go(func() { r.start(ctx) })
	}
	for client := range 8 {
		publishing.Go(func() { r.publish(client) })
	}
	c.eventually("half is published", patience, func() bool { return r.rounds.Load() > 8*raceRounds/2 })
	first.stop() // in good order; the second takes its shards
	publishing.Wait()
	end()
	starting.Wait()
	for id, key := range r.planned {
		r.startOne(id, key)
	}
	r.audit()
	if r.starts.Load() == 0 {
		t.Error("nothing started: the test shows nothing")
	}
	t.Logf("%d planned, %d Starts were true", len(r.planned), r.starts.Load())
	second.stop()
	for _, s := range []*planStore{a, b, first, second} { // a server process reports what it saw when it ends
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	var deadlocks int64
	c.eventually("all connections have ended", patience, func() bool {
		var open int
		queryURL(t, own.URL("postgres"), &open, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'eventflow'")
		return open == 0
	})
	queryURL(t, own.URL("postgres"), &deadlocks, "SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'")
	if deadlocks > 0 {
		t.Errorf("the server resolved %d deadlocks", deadlocks)
	}
}

const raceRounds = 60

// planRace is what the clients and the owners of TestPlansRace know.
type planRace struct {
	*cluster
	stores, owners []*planStore
	rounds, starts atomic.Int64

	mu        sync.Mutex
	planned   map[event.DeliveryID]string // the key
	cancelled map[string]struct{}         // keys whose cancel was acknowledged
}

// publish plans for some keys in one call, and cancels them in another call on the other store, in another order.
func (r *planRace) publish(client int) {
	for n := range raceRounds {
		sub := r.subs[n%len(r.subs)]
		var names []string
		var keys []plan.Key
		var events []store.NewEvent
		for i := range 4 {
			name := fmt.Sprintf("%d-%d-%d", client/2, n, i) // two clients share each key
			e := scheduleEvent(fmt.Sprintf("plan-%s-%d", name, client))
			e.Plans = []store.Plan{{Subscription: sub, Key: testKey(r.cluster, name), Timestamp: stamp(client), Decision: plan.Decision{At: r.stores[0].Now()}}}
			events, keys, names = append(events, e), append([]plan.Key{e.Plans[0].Key}, keys...), append(names, name)
		}
		if _, _, err := r.stores[client%2].Append(r.Context(), events); err != nil {
			r.Error(err)
			return
		}
		r.mu.Lock()
		for i := range events {
			r.planned[event.DeliveryID{Event: events[i].Event.Key, Subscription: sub.Key}] = names[i]
		}
		r.mu.Unlock()
		if err := r.stores[(client+1)%2].cancels(fmt.Sprintf("cancel-%d-%d", client, n), sub, 100, keys...); err != nil {
			r.Error(err)
			return
		}
		r.mu.Lock()
		for _, name := range names {
			r.cancelled[name] = struct{}{}
		}
		r.mu.Unlock()
		r.rounds.Add(1)
	}
}

func (r *planRace) start(ctx context.Context) {
	for ctx.Err() == nil && !r.Failed() {
		r.mu.Lock()
		some := map[event.DeliveryID]string{}
		for id, key := range r.planned {
			if len(some) == 16 {
				break
			}
			some[id] = key
		}
		r.mu.Unlock()
		var calls sync.WaitGroup
		for id, key := range some {
			calls.Go(func() { r.startOne(id, key) })
		}
		calls.Wait()
	}
}

func (r *planRace) startOne(id event.DeliveryID, key string) {
	r.mu.Lock()
	_, cancelled := r.cancelled[key]
	r.mu.Unlock()
	for _, owner := range r.owners {
		started, err := owner.Start(r.Context(), delivery.PendingDelivery{ID: id})
		if err != nil {
			r.Error(err)
		}
		if started {
			r.starts.Add(1)
		}
		if started && cancelled {
			r.Errorf("%s started after its cancel was acknowledged", id)
		}
		if started {
			r.retry(owner, id)
		}
	}
}

// retry records that an attempt failed, which moves the delivery to another place.
func (r *planRace) retry(owner *planStore, id event.DeliveryID) {
	now := owner.Now()
	d := delivery.PendingDelivery{ID: id, Due: now, Planned: now}
	err := owner.Record(r.Context(), []delivery.Outcome{{
		Delivery: d, State: delivery.Pending, Due: now.Add(time.Millisecond), Epoch: owner.noter.epoch(id.Subscription),
		Attempt: &delivery.Attempt{Number: 1, Started: now, StatusCode: 503, Reason: delivery.ReasonStatusCode},
	}})
	if err != nil {
		r.Error(err)
	}
}

// audit expects nothing to be pending, and everything that is stored to have ended for one of the keys' reasons.
func (r *planRace) audit() {
	r.Helper()
	s := r.stores[0]
	for _, sub := range r.subs {
		found, _, _, err := s.Due(r.Context(), sub.Key, delivery.Position{}, s.Now().Add(time.Hour), 1000, nil)
		if err != nil || len(found) > 0 {
			r.Errorf("%d are pending, although all were cancelled; %v", len(found), err)
		}
		counts, err := s.Counts(r.Context(), sub.Key)
		records, listErr := s.List(r.Context(), store.Query{Tenant: namespace, Subscription: sub.Name, Limit: 10_000})
		if err != nil || listErr != nil || counts.Cancelled != int64(len(records)) || counts.Retrying != 0 {
			r.Errorf("counts %+v of %d deliveries; %v, %v", counts, len(records), err, listErr)
		}
		for i := range records {
			if reason := records[i].Reason; reason != delivery.ReasonReplaced && reason != delivery.ReasonCancelledByEvent {
				r.Errorf("%s is %s for %q", records[i].ID, records[i].State, reason)
			}
		}
	}
}

// TestPlansAmbiguousCommit cuts the connection of commits whose answers never come: what plans and cancels happens once.
func TestPlansAmbiguousCommit(t *testing.T) {
	t.Parallel()
	cut := newProxy(t, server.Address())
	url := strings.Replace(server.URL("postgres"), server.Address(), cut.address(), 1) + "&default_query_exec_mode=cache_describe"
	c := newCluster(t, url, 1)
	s := c.openPlans("a").own()
	c.eventually("it owns all", patience, func() bool { return len(postgres.Owned(s.Store)) == 64 })
	sub, at := c.subs[0], s.Now().Add(time.Hour)
	until := func(what string, f func() error) {
		t.Helper()
		cuts := cut.cuts()
		cut.loseAnswersAfter("commit")
		c.eventually(what, patience, func() bool { return f() == nil })
		c.eventually("a commit was cut", patience, func() bool { return cut.cuts() > cuts })
	}
	for i := range 5 {
		key := testKey(c, fmt.Sprint(i))
		var ids [3]event.DeliveryID
		for n := range ids {
			until("it is planned", func() (err error) {
				ids[n], err = s.plans(fmt.Sprintf("plan-%d-%d", i, n), sub, key, n, at)
				return err
			})
		}
		until("it is cancelled", func() error { return s.cancels(fmt.Sprint("cancel-", i), sub, 9, key) })
		s.expect(ids[0], delivery.Cancelled, delivery.ReasonReplaced)
		s.expect(ids[1], delivery.Cancelled, delivery.ReasonReplaced)
		s.expect(ids[2], delivery.Cancelled, delivery.ReasonCancelledByEvent)
	}
	counts, err := s.Counts(t.Context(), sub.Key)
	if err != nil || counts.Cancelled != 15 {
		t.Errorf("counts %+v, %v; want 15 cancelled", counts, err)
	}
	c.eventually("the owner hears of it", patience, func() bool { return s.noter.heard(sub.Key, at.Round(0)) || len(s.noter.notices) > 0 })
}

// TestPlansBesideOlderProgram does to a planned delivery what an older program does: it puts it back without its plan.
func TestPlansBesideOlderProgram(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 1)
	s := c.openPlans("a")
	id, err := s.plans("1", c.subs[0], testKey(c, "k"), 1, s.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	const older = `WITH taken AS (DELETE FROM @.pending RETURNING *)
INSERT INTO @.pending (sub, due, event, tenant, since, attempts, before, ord, size, history, log, replay_of)
SELECT sub, due, event, tenant, since, 1, before, ord, size, true, log, replay_of FROM taken`
	if err := server.Exec(t.Context(), "postgres", strings.ReplaceAll(older, "@", c.schema)); err != nil {
		t.Fatal(err)
	}
	s.expect(id, delivery.Pending, "")
	if e, err := s.Event(t.Context(), id.Event); err != nil || e.ID != "1" {
		t.Errorf("Event gave %+v, %v", e, err)
	}
	if err := s.Store.Cancel(t.Context(), namespace, id); err != nil {
		t.Error(err)
	}
	s.expect(id, delivery.Cancelled, delivery.ReasonByUser)
}
