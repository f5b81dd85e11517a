package postgres_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// settableClock makes a clock that replicas take for the database's, which set moves away from it.
func settableClock(t *testing.T) (url string, set func(by string)) {
	t.Helper()
	schema := "clock_" + newSchema()
	execute := func(statement string) {
		t.Helper()
		if err := server.Exec(t.Context(), "postgres", strings.ReplaceAll(statement, "SCHEMA_NAME", schema)); err != nil {
			t.Fatal(err)
		}
	}
	execute(`CREATE SCHEMA SCHEMA_NAME;
CREATE TABLE SCHEMA_NAME.moved (by interval);
INSERT INTO SCHEMA_NAME.moved VALUES ('0');
CREATE FUNCTION SCHEMA_NAME.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.clock_timestamp() + by FROM SCHEMA_NAME.moved'`)
	return server.URL("postgres") + "&search_path=" + schema + ",pg_catalog", func(by string) {
		t.Helper()
		execute("UPDATE SCHEMA_NAME.moved SET by = '" + by + "'")
	}
}

// TestDatabaseClockSetBack sets the database's clock back by an hour, under load, while replicas come and go: nothing
// waits for the hour to pass again, and acceptances rise.
func TestDatabaseClockSetBack(t *testing.T) {
	t.Parallel()
	url, set := settableClock(t)
	c := newCluster(t, url, 20)
	c.receivers.failFirst = true
	a, b := c.start("a"), c.start("b")
	c.eventually("two share", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
	l := c.load(4, 5*time.Millisecond, a)
	c.eventually("events are accepted", patience, func() bool { return l.count() > 100 })
	before, start := a.store.Now(), time.Now()
	set("-1 hour")
	c.eventually("events are accepted", patience, func() bool { return l.count() > 300 })
	c.eventually("two seconds pass", patience, func() bool { return time.Since(start) > 2*time.Second })
	b.stop()
	d := c.start("d")
	c.eventually("the new one has its share", patience, func() bool { return d.owned() == 32 })
	if apart := a.store.Now().Sub(d.store.Now()).Abs(); apart > 2*time.Second {
		t.Errorf("the clocks of two replicas are %s apart", apart)
	}
	if passed := a.store.Now().Sub(before); passed < time.Second || passed > time.Since(start)+time.Second {
		t.Errorf("%s passed on the store's clock in %s", passed, time.Since(start))
	}
	var last delivery.PendingDelivery
	for i := range 40 {
		deliveries, err := []*replica{a, d}[i%2].publishAs("rising-"+string(rune('A'+i)), c.subs[0])
		if err != nil {
			t.Fatal(err)
		}
		next := deliveries[0]
		if i > 0 && !last.ID.Event.Accepted().Before(next.ID.Event.Accepted()) {
			t.Errorf("an event was accepted at %s, the next at %s", last.ID.Event.Accepted(), next.ID.Event.Accepted())
		}
		if age := a.store.Now().Sub(next.Due).Abs(); age > 3*time.Second {
			t.Errorf("a new delivery is due %s from now", age)
		}
		last = next
	}
	l.audit()
	c.eventually("each is attempted again, a second after its first attempt failed", 20*time.Second, func() bool {
		deliveries, attempts := c.receivers.count()
		return attempts >= 2*deliveries
	})
}

// TestDatabaseClockSetForward sets the database's clock forward: events are accepted in hours that nobody made tables for.
func TestDatabaseClockSetForward(t *testing.T) {
	t.Parallel()
	url, set := settableClock(t)
	c := newCluster(t, url, 3)
	r := c.start("a")
	c.eventually("it owns all", patience, func() bool { return r.owned() == 64 })
	for i := range 5 {
		set(fmt.Sprintf("%d hours", 5*(i+1)))
		if err := r.publish(c.subs...); err != nil {
			t.Fatal(err)
		}
	}
	c.eventually("all is delivered", patience, func() bool { n, _ := c.receivers.count(); return n == 15 })
}

// TestMemberOfTheFuture: a dispatcher died just before the database's clock was set back, so that its lease seems to
// last for another hour.
func TestMemberOfTheFuture(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 1)
	a := c.start("a")
	c.eventually("one owns all", patience, func() bool { return a.owned() == 64 })
	ghost := strings.ReplaceAll(`INSERT INTO eventflow.members (id, expires, revision) SELECT 'ghost', (extract(epoch from clock_timestamp()) * 1000000)::bigint * 1000 + 3600000000000, 0;
UPDATE eventflow.leases SET owner = 'ghost', epoch = epoch + 1 WHERE shard < 32`, "eventflow", c.schema)
	if err := server.Exec(t.Context(), "postgres", ghost); err != nil {
		t.Fatal(err)
	}
	c.eventually("the work is shared with who is dead", patience, func() bool { return a.owned() == 32 })
	took := c.eventually("one owns all again", patience, func() bool { return a.owned() == 64 })
	t.Logf("its work goes on after %s", took)
	if took > 15*time.Second {
		t.Errorf("its work went on only after %s", took)
	}
}

// TestIDsAroundMidnight stores events through replicas whose estimates of the time lie on either side of midnight, and
// publishes each again through the other.
func TestIDsAroundMidnight(t *testing.T) {
	t.Parallel()
	url, set := settableClock(t)
	c := newCluster(t, url, 1)
	now := time.Now().UTC()
	midnight := now.Truncate(24 * time.Hour).Add(24 * time.Hour)
	set(fmt.Sprintf("%d microseconds", midnight.Add(-3*time.Second).Sub(now).Microseconds()))
	a, b := c.start("a"), c.start("b")
	a.store.MoveClock(10 * time.Second)
	publish := func(r *replica, id string, wantRepeated bool) {
		t.Helper()
		accepted, _, err := r.store.Append(t.Context(), []store.NewEvent{{Fanout: delivery.Fanout{
			Event: &delivery.Event{Tenant: namespace, ID: id, Type: "patient.created", Body: []byte(`{}`)}, Subscriptions: c.subs,
		}}})
		if err != nil || accepted[0].Repeated != wantRepeated {
			t.Errorf("%s through %s: %+v, %v; want repeated %t", id, r.name, accepted, err, wantRepeated)
		}
	}
	n := 0
	for end := b.store.Now().Add(5 * time.Second); b.store.Now().Before(end); n++ {
		first, then := a, b
		if n%2 == 1 {
			first, then = b, a
		}
		publish(first, fmt.Sprint(n), false)
		publish(then, fmt.Sprint(n), true)
	}
	t.Logf("%d events until %s, by the other's estimate %s", n, b.store.Now(), a.store.Now())
	for i := range n { // those of the day before, too
		publish(a, fmt.Sprint(i), true)
		publish(b, fmt.Sprint(i), true)
	}
}
