package postgres_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

var latencies = flag.Bool("latencies", false, "measure latencies, on a machine that does nothing else")

var finishedRows = flag.Int("finished", 200_000, "finished deliveries that TestUnracedCostDoesNotGrow stores before it measures; the promise is for 5,000,000")

// TestUnracedStatementsPerDelivery counts what the server executes at full load.
func TestUnracedStatementsPerDelivery(t *testing.T) {
	storetest.Unraced(t)
	own := ownServer(t, map[string]string{"shared_preload_libraries": "'pg_stat_statements'", "pg_stat_statements.track_utility": "on"})
	c := newCluster(t, own.URL("postgres"), 4)
	r := c.start("a")
	c.eventually("it owns all", patience, func() bool { return r.owned() == 64 })
	for _, statement := range []string{"CREATE EXTENSION pg_stat_statements", "SELECT pg_stat_statements_reset()"} {
		if err := own.Exec(t.Context(), "postgres", statement); err != nil {
			t.Fatal(err)
		}
	}
	rate := r.drain("load", 20_000)
	conn, err := pgx.Connect(t.Context(), own.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var statements int64
	if err := conn.QueryRow(t.Context(), "SELECT sum(calls)::bigint FROM pg_stat_statements").Scan(&statements); err != nil {
		t.Fatal(err)
	}
	each := float64(statements) / 20_000
	t.Logf("%d statements, %.3f per delivery, at %.0f deliveries/s", statements, each, rate)
	if each > 0.2 {
		t.Errorf("%.3f statements per delivery, want at most 0.2", each)
	}
	if testing.Verbose() {
		r.topStatements(conn)
	}
}

// topStatements logs where the server's time goes.
func (r *replica) topStatements(conn *pgx.Conn) {
	rows, err := conn.Query(r.Context(), `SELECT calls, round(total_exec_time), round((total_exec_time/calls)::numeric, 2)::text, left(regexp_replace(query, '\s+', ' ', 'g'), 110)
FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 12`)
	if err != nil {
		r.Fatal(err)
	}
	var calls int64
	var total float64
	var mean, query string
	if _, err := pgx.ForEachRow(rows, []any{&calls, &total, &mean, &query}, func() error {
		r.Logf("%7d calls, %6.0f ms, %s ms each: %s", calls, total, mean, query)
		return nil
	}); err != nil {
		r.Fatal(err)
	}
}

// drain publishes n events in batches of 100 by 4 publishers, and returns how many deliveries a second are recorded,
// from the first publish on.
func (r *replica) drain(prefix string, n int) (perSecond float64) {
	r.Helper()
	before := r.delivered()
	start := time.Now()
	const publishers, batch = 4, 100
	var publishing sync.WaitGroup
	for p := range publishers {
		publishing.Go(func() {
			for i := p * batch; i < n; i += publishers * batch {
				events := make([]store.NewEvent, batch)
				for j := range events {
					id := fmt.Sprintf("%s-%d", prefix, i+j)
					events[j] = store.NewEvent{Fanout: delivery.Fanout{
						Event:         &delivery.Event{Tenant: namespace, ID: id, Type: "patient.created", Body: make([]byte, 1000)},
						Subscriptions: r.subs[(i/batch)%len(r.subs) : (i/batch)%len(r.subs)+1],
					}}
				}
				_, fanouts, err := r.store.Append(r.Context(), events)
				if err != nil {
					r.Error(err)
					return
				}
				r.engine.Accept(fanouts)
			}
		})
	}
	publishing.Wait()
	r.eventually("all is recorded", patience, func() bool { return r.delivered() >= before+int64(n) })
	return float64(n) / time.Since(start).Seconds()
}

// delivered is how many deliveries are recorded as such.
func (r *replica) delivered() (n int64) {
	for _, sub := range r.subs {
		counts, err := r.store.Counts(r.Context(), sub.Key)
		if err != nil {
			r.Fatal(err)
		}
		n += counts.Delivered
	}
	return n
}

// TestUnracedCostDoesNotGrow compares the rate with very many finished deliveries stored to that with none.
func TestUnracedCostDoesNotGrow(t *testing.T) {
	storetest.Unraced(t)
	own, err := postgrestest.Start(postgrestest.Options{Durable: true, Settings: map[string]string{"shared_buffers": "'1GB'", "max_wal_size": "'8GB'", "checkpoint_timeout": "'30min'"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Stop() })
	none, many := newCluster(t, own.URL("postgres"), 4).start("none"), newCluster(t, own.URL("postgres"), 4).start("many")
	for _, r := range []*replica{none, many} {
		r.eventually("it owns all", patience, func() bool { return r.owned() == 64 })
		r.drain("warm", 5000)
	}
	many.fill(own, *finishedRows)
	var without, with []float64
	for i := range 5 { // in turn, for others use the machine, too
		without = append(without, none.drain(fmt.Sprint("round-", i), 8000))
		with = append(with, many.drain(fmt.Sprint("round-", i), 8000))
	}
	ratio := median(without) / median(with)
	t.Logf("%.0f deliveries/s with none stored, %.0f with %d: a delivery costs %.2f times as much", median(without), median(with), *finishedRows, ratio)
	if bound := 1.15; ratio > bound && *finishedRows >= 5_000_000 {
		t.Errorf("ratio %.2f, want at most %.2f", ratio, bound)
	}
}

// fill stores finished deliveries, with their events and ids, in the tables that are in use.
func (r *replica) fill(s *postgrestest.Server, n int) {
	r.Helper()
	hour, day := r.store.Now().UTC().Format("2006010215"), r.store.Now().UTC().Format("20060102")
	for _, statement := range []string{
		`INSERT INTO S.events_` + hour + ` SELECT int8send(BASE + g) || substr(sha256(g::text::bytea), 1, 8), 'clinic-a', 'evt-old-' || g, 'patient.created', '', '\x010000' || convert_to(repeat('x', 300), 'UTF8') FROM generate_series(1, N) AS g`,
		`INSERT INTO S.delivered_` + hour + ` SELECT 42, int8send(BASE + g) || substr(sha256(g::text::bytea), 1, 8), '\x0102030405060708', 1, '\x010000', NULL FROM generate_series(1, N) AS g`,
		`INSERT INTO S.ids_` + day + ` SELECT md5(g::text)::uuid, md5(g::text)::uuid, BASE + g, 1 FROM generate_series(1, N) AS g`,
	} {
		statement = replaceAll(statement, "S.", r.schema+".", "BASE", fmt.Sprint(r.store.Now().Add(-time.Minute).UnixNano()), "N)", fmt.Sprint(n, ")"))
		if err := s.Exec(r.Context(), "postgres", statement); err != nil {
			r.Fatal(err)
		}
	}
}

// fsyncs measures what the disk itself takes, until the result is asked for: others may use it, too.
func fsyncs(t *testing.T) (stop func() []time.Duration) {
	file, err := os.Create(filepath.Join(t.TempDir(), "probe"))
	if err != nil {
		t.Fatal(err)
	}
	done, result := make(chan struct{}), make(chan []time.Duration, 1)
	go func() {
		defer func() { _ = file.Close() }()
		var took []time.Duration
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				result <- took
				return
			case <-tick.C:
			}
			start := time.Now()
			if _, err := file.WriteAt(make([]byte, 8192), 0); err != nil || file.Sync() != nil {
				t.Error("the probe failed")
			}
			took = append(took, time.Since(start))
		}
	}()
	return func() []time.Duration {
		close(done)
		return <-result
	}
}

// TestLatency publishes at a steady rate, and measures from before the publish until the attempt.
func TestLatency(t *testing.T) {
	if !*latencies {
		t.Skip("measures the machine as much as the store: -latencies")
	}
	own := ownServer(t, nil)
	c := newCluster(t, own.URL("postgres"), 10)
	r := c.start("a")
	c.eventually("it owns all", patience, func() bool { return r.owned() == 64 })
	r.drain("warm", 2000)
	disk := fsyncs(t)
	const rate, n = 200, 1000
	starts := make([]time.Time, n)
	keys := make([]delivery.PendingDelivery, n)
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	var publishing sync.WaitGroup
	for i := range n {
		<-tick.C
		publishing.Go(func() {
			starts[i] = time.Now()
			deliveries, err := r.publishAs(fmt.Sprint("steady-", i), c.subs[i%len(c.subs)])
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = deliveries[0]
		})
	}
	publishing.Wait()
	c.eventually("all is sent", patience, func() bool { n1, _ := c.receivers.count(); return n1 == 2000+n })
	at := map[any]time.Time{}
	for _, a := range c.receivers.attempts {
		at[a.id] = a.at
	}
	took := make([]time.Duration, n)
	for i := range took {
		took[i] = at[keys[i].ID].Sub(starts[i])
	}
	p50, p99 := quantiles(took)
	disk50, disk99 := quantiles(disk())
	t.Logf("at %d/s: p50 %s, p99 %s from publish to attempt; an fsync meanwhile took %s, %s", rate, p50, p99, disk50, disk99)
	if bound := 25*time.Millisecond + 3*disk99; p99 > bound {
		t.Errorf("p99 is %s, want at most %s", p99, bound)
	}
}
