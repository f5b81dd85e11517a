package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

// ownServer starts a server that the test may harm. Its fsync is on.
func ownServer(t *testing.T, settings map[string]string) *postgrestest.Server {
	t.Helper()
	s, err := postgrestest.Start(postgrestest.Options{Durable: true, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// twoReplicas starts two replicas on a server and waits until they share the work.
func twoReplicas(t *testing.T, own *postgrestest.Server) (c *cluster, a, b *replica) {
	t.Helper()
	c = newCluster(t, own.URL("postgres"), 20)
	a, b = c.start("a"), c.start("b")
	c.eventually("two share", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
	return c, a, b
}

// TestServerKilled kills all processes of the server again and again, under load.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	own := ownServer(t, nil)
	c, a, b := twoReplicas(t, own)
	l := c.load(8, 2*time.Millisecond, a, b)
	for range 3 {
		before := l.count()
		c.eventually("events are accepted", patience, func() bool { return l.count() > before+100 })
		if err := own.Kill(); err != nil {
			t.Fatal(err)
		}
		c.eventually("both say that they are not ready", patience, func() bool { return a.store.Ready() != nil && b.store.Ready() != nil })
		refusedQuickly(t, a)
		if err := own.Start(); err != nil {
			t.Fatal(err)
		}
	}
	before := l.count()
	c.eventually("events are accepted again", patience, func() bool { return l.count() > before+100 })
	l.audit()
	c.eventually("two share again", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
}

// refusedQuickly expects an Append to fail at once while the server is unavailable, and to say nothing of where that is.
func refusedQuickly(t *testing.T, r *replica) {
	t.Helper()
	start := time.Now()
	_, err := r.publishAs("refused", r.subs[0])
	if err == nil || time.Since(start) > 2*time.Second {
		t.Errorf("Append gave %v after %s, want a quick error", err, time.Since(start))
	}
	if err != nil && (!errors.Is(err, postgres.ErrUnreachable) || strings.Contains(err.Error(), "127.0.0.1")) {
		t.Errorf("Append gave %q", err)
	}
}

// TestServerAway stops the server for longer than the leases last.
func TestServerAway(t *testing.T) {
	t.Parallel()
	own := ownServer(t, nil)
	c, a, b := twoReplicas(t, own)
	l := c.load(8, 2*time.Millisecond, a, b)
	c.eventually("events are accepted", patience, func() bool { return l.count() > 100 })
	if err := own.Shutdown(); err != nil {
		t.Fatal(err)
	}
	c.eventually("both stop working", patience, func() bool { return a.owned() == 0 && b.owned() == 0 })
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	took := c.eventually("two share again", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
	t.Logf("they work again %s after the server", took)
	before := l.count()
	c.eventually("events are accepted again", patience, func() bool { return l.count() > before+100 })
	l.audit()
}

// TestFailover kills a primary under load and promotes its synchronous standby.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary := ownServer(t, map[string]string{"synchronous_commit": "on"})
	standby, err := primary.Standby("standby")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = standby.Stop() })
	for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()"} {
		if err := primary.Exec(t.Context(), "postgres", statement); err != nil {
			t.Fatal(err)
		}
	}
	url := fmt.Sprintf("postgres://postgres@%s,%s/postgres?sslmode=disable&target_session_attrs=read-write", primary.Address(), standby.Address())
	c := newCluster(t, url, 20)
	a, b := c.start("a"), c.start("b")
	c.eventually("two share", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
	l := c.load(8, 2*time.Millisecond, a, b)
	c.eventually("events are accepted", patience, func() bool { return l.count() > 300 })
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := l.count()
	took := c.eventually("events are accepted again", patience, func() bool { return l.count() > before+100 })
	t.Logf("events are accepted %s after the promotion", took)
	c.eventually("two share again", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
	l.audit()
}

// lease is what the database has of a shard.
func leaseOf(t *testing.T, c *cluster, shard int) (owner string, epoch int64) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	err = conn.QueryRow(t.Context(), "SELECT coalesce(owner, ''), epoch FROM "+c.schema+".leases WHERE shard = $1", shard).Scan(&owner, &epoch)
	if err != nil {
		t.Fatal(err)
	}
	return owner, epoch
}

// TestStaleOwnerIsRefused takes a shard away from an owner that does not know it yet, and lets it record.
func TestStaleOwnerIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 1)
	open := func(name string) *postgres.Store {
		s, err := postgres.Open(t.Context(), postgres.Options{URL: c.url, Schema: c.schema, Identity: name, LeaseDuration: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	stale, next := open("stale"), open("next")
	shard := delivery.ShardOf(c.subs[0].Key)
	epoch, err := stale.TakeForTest(t.Context(), shard)
	if err != nil {
		t.Fatal(err)
	}
	_, fanouts, err := stale.Append(t.Context(), []store.NewEvent{{Fanout: delivery.Fanout{
		Event: &delivery.Event{Tenant: namespace, ID: "1", Type: "patient.created", Body: []byte(`{}`)}, Subscriptions: c.subs,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	outcome := delivery.Outcome{Delivery: fanouts[0].Delivery(c.subs[0]), State: delivery.Delivered, Attempt: &delivery.Attempt{Number: 1, Started: time.Now(), StatusCode: 200}, Epoch: epoch}
	nextEpoch, err := next.TakeForTest(t.Context(), shard)
	if err != nil || nextEpoch <= epoch {
		t.Fatalf("the next owner has epoch %d, %v, after %d", nextEpoch, err, epoch)
	}
	check := func(s *postgres.Store, epoch, want int64) {
		t.Helper()
		outcome.Epoch = epoch
		if err := s.Record(t.Context(), []delivery.Outcome{outcome}); err != nil {
			t.Fatal(err)
		}
		counts, err := next.Counts(t.Context(), c.subs[0].Key)
		if err != nil || counts.Delivered != want {
			t.Errorf("counts %+v, %v; want %d delivered", counts, err, want)
		}
	}
	check(stale, epoch, 0)
	check(stale, nextEpoch, 0) // it cannot guess its way in
	check(next, epoch, 0)
	check(next, nextEpoch, 1)
	owner, _ := leaseOf(t, c, shard)
	if !strings.HasPrefix(owner, "next/") {
		t.Errorf("the lease is %q's", owner)
	}
}

// TestAmbiguousCommit cuts the connection of a commit whose answer never comes: the event is accepted once.
func TestAmbiguousCommit(t *testing.T) {
	t.Parallel()
	cut := newProxy(t, server.Address())
	// Unprepared statements carry their text, by which the proxy knows them.
	url := strings.Replace(server.URL("postgres"), server.Address(), cut.address(), 1) + "&default_query_exec_mode=cache_describe"
	c := newCluster(t, url, 3)
	r := c.start("a")
	c.eventually("it owns all", patience, func() bool { return r.owned() == 64 })
	for i := range 20 {
		cut.loseAnswersAfter("commit")
		id := fmt.Sprintf("evt-%d", i)
		var deliveries []delivery.PendingDelivery
		var err error
		c.eventually("it is accepted", patience, func() bool {
			deliveries, err = r.publishAs(id, c.subs...)
			return err == nil
		})
		c.eventually("a commit was cut", patience, func() bool { return cut.cuts() > i })
		if len(deliveries) != 3 {
			t.Fatalf("%s came with %d deliveries, want its 3, although it was this very call that stored it", id, len(deliveries))
		}
	}
	c.eventually("each is delivered", patience, func() bool { n, _ := c.receivers.count(); return n >= 60 })
	keys := map[event.DeliveryID]struct{}{}
	for id := range c.receivers.byID {
		keys[id] = struct{}{}
	}
	if len(keys) != 60 {
		t.Errorf("%d deliveries, want 60", len(keys))
	}
}

// TestCutConnections resets, delays and swallows connections at random, under load.
func TestCutConnections(t *testing.T) {
	t.Parallel()
	cut := newProxy(t, server.Address())
	c := newCluster(t, strings.Replace(server.URL("postgres"), server.Address(), cut.address(), 1), 20)
	a, b := c.start("a"), c.start("b")
	c.eventually("two share", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
	l := c.load(8, 2*time.Millisecond, a, b)
	faults := []func(){
		cut.reset, func() { cut.setDelay(20 * time.Millisecond) }, cut.reset, func() { cut.setDelay(0) }, cut.swallow, cut.reset,
	}
	for round := range 2 * len(faults) {
		before := l.count()
		faults[round%len(faults)]()
		c.eventually("events are accepted", patience, func() bool { return l.count() > before+50 })
	}
	cut.setDelay(0)
	l.audit()
	c.eventually("two share again", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
	a.stop()
	b.stop()
	c.eventually("no connection is left", patience, func() bool { return cut.open() == 0 })
}
