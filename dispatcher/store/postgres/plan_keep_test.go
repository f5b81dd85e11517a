package postgres_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

// TestPlannedEventsStay: an event that is planned far ahead is in one place from its acceptance on, and gone once nothing
// needs it.
func TestPlannedEventsStay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, server.URL("postgres"), 1)
	var now atomic.Int64
	now.Store(time.Date(2026, 3, 4, 10, 30, 0, 0, time.UTC).UnixNano())
	clock := func() time.Time { return time.Unix(0, now.Load()) }
	s, err := postgres.Open(t.Context(), postgres.Options{URL: c.url, Schema: c.schema, Identity: "a", Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	p := &planStore{cluster: c, Store: s, stop: func() {}}
	at := clock().AddDate(0, 0, 300)
	id, err := p.plans("1", c.subs[0], testKey(c, "k"), 1, at)
	if err != nil {
		t.Fatal(err)
	}
	place := func() (table string) {
		t.Helper()
		var tables int
		query(t, &tables, `SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename LIKE 'planned_events_%'`, c.schema)
		var rows int
		query(t, &rows, "SELECT count(*) FROM "+c.schema+".planned_events_"+at.UTC().Format("20060102"))
		if tables != 1 || rows > 1 {
			t.Errorf("%d tables of planned events, %d rows", tables, rows)
		}
		if rows == 0 {
			return "none"
		}
		return "planned"
	}
	for range 5 {
		now.Add(int64(24 * time.Hour))
		if err := s.Expire(t.Context(), clock()); err != nil {
			t.Fatal(err)
		}
		var moved int
		hour := clock().UTC().Format("2006010215")
		query(t, &moved, "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename = $2", c.schema, "events_"+hour)
		if moved == 1 {
			query(t, &moved, "SELECT count(*) FROM "+c.schema+".events_"+hour)
		}
		if moved != 0 || place() != "planned" {
			t.Errorf("%d events were moved; it is in %q", moved, place())
		}
	}
	if e, err := s.Event(t.Context(), id.Event); err != nil || e.ID != "1" {
		t.Errorf("Event gave %+v, %v", e, err)
	}
	if err := p.cancels("cancel", c.subs[0], 2, testKey(c, "k")); err != nil {
		t.Fatal(err)
	}
	if place() != "none" {
		t.Error("the event is still among the planned ones")
	}
	if e, err := s.Event(t.Context(), id.Event); err == nil {
		t.Errorf("Event gave %+v of a delivery that was cancelled", e)
	}
}
