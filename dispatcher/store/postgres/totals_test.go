package postgres_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
)

var totalsRows = flag.Int("totals", 0, "pending deliveries that TestTotalsCost stores before it measures; it is skipped at 0")

// totalsTestTimeout bounds the store's other transactions.
const totalsTestTimeout = 200 * time.Millisecond

// totalsFixture is a store, and another connection to its database.
type totalsFixture struct {
	*testing.T
	*postgres.Store
	schema string
	conn   *pgx.Conn
}

func newTotals(t *testing.T) *totalsFixture {
	t.Helper()
	f := &totalsFixture{T: t, schema: newSchema()}
	options := postgres.Options{URL: server.URL("postgres") + "&pool_max_conns=4", Schema: f.schema}
	migrated, err := postgres.Open(t.Context(), options) // what follows is too short for that
	if err != nil {
		t.Fatal(err)
	}
	if err := migrated.Close(); err != nil {
		t.Fatal(err)
	}
	options.Timeout = totalsTestTimeout
	s, err := postgres.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	f.Store = s
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if f.conn, err = pgx.Connect(t.Context(), server.URL("postgres")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *totalsFixture) exec(statement string) {
	f.Helper()
	if _, err := f.conn.Exec(f.Context(), replaceAll(statement, "S.", f.schema+".")); err != nil {
		f.Fatal(err)
	}
}

// waiting waits until n statements of Totals wait for the table, and have done so for the given time.
func (f *totalsFixture) waiting(n int, since time.Duration) {
	f.Helper()
	tick, timeout := time.NewTicker(5*time.Millisecond), time.NewTimer(patience)
	defer tick.Stop()
	defer timeout.Stop()
	for {
		var have int
		err := f.conn.QueryRow(f.Context(), `SELECT count(*) FROM pg_locks 
WHERE NOT granted AND relation = $1::text::regclass AND waitstart <= clock_timestamp() - $2::interval`, f.schema+".pending", since).Scan(&have)
		if err != nil {
			f.Fatal(err)
		}
		if have == n {
			return
		}
		select {
		case <-tick.C:
		case <-timeout.C:
			f.Fatalf("%d statements wait for the table, want %d", have, n)
		}
	}
}

// TestTotalsEndWhileTheServerWorks ends a call for which the server has not begun to answer. The server stops, too.
func TestTotalsEndWhileTheServerWorks(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end  func(f *totalsFixture, cancel context.CancelFunc) error
		want error
	}{
		"the context ends":   {end: func(_ *totalsFixture, cancel context.CancelFunc) error { cancel(); return nil }, want: context.Canceled},
		"the store closes":   {end: func(f *totalsFixture, _ context.CancelFunc) error { return f.Close() }, want: store.ErrClosed},
		"the server is slow": {end: func(f *totalsFixture, _ context.CancelFunc) error { return f.outlast() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newTotals(t)
			f.exec("BEGIN")
			f.exec("LOCK TABLE S.pending IN ACCESS EXCLUSIVE MODE")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				ended <- f.Totals(ctx, func(event.SubscriptionKey, int64, int64) error { return nil })
			}()
			f.waiting(1, 0)
			if err := test.end(f, cancel); err != nil {
				t.Error(err)
			}
			if err := <-ended; !errors.Is(err, test.want) {
				t.Errorf("Totals gave %v, want %v", err, test.want)
			}
			if test.want != nil {
				f.waiting(0, 0)
			}
		})
	}
}

// outlast lets the server go on once more time has passed than the store gives its other transactions.
func (f *totalsFixture) outlast() error {
	f.waiting(1, 2*totalsTestTimeout)
	_, err := f.conn.Exec(f.Context(), "ROLLBACK")
	return err
}

// TestTotalsCost measures Totals with very many pending deliveries of 1,000 subscriptions.
func TestTotalsCost(t *testing.T) {
	if *totalsRows == 0 {
		t.Skip("measures the machine as much as the store: -totals")
	}
	f := newTotals(t)
	f.exec(replaceAll(`INSERT INTO S.pending SELECT substr(sha256((g % 1000)::text::bytea), 1, 8), g, int8send(g) || substr(sha256(g::text::bytea), 1, 8), 42, g, 0, 0, 0, 300, false, NULL, NULL
FROM generate_series(1, ROWS) AS g`, "ROWS", fmt.Sprint(*totalsRows)))
	f.exec("ANALYZE S.pending")
	for range 3 {
		var subs, deliveries, bytes int64
		start := time.Now()
		err := f.Totals(t.Context(), func(_ event.SubscriptionKey, n, size int64) error {
			subs, deliveries, bytes = subs+1, deliveries+n, bytes+size
			return nil
		})
		t.Logf("%d deliveries of %d subscriptions in %s", deliveries, subs, time.Since(start))
		if err != nil || deliveries != int64(*totalsRows) || bytes != 300*deliveries {
			t.Errorf("Totals gave %d deliveries with %d bytes, %v", deliveries, bytes, err)
		}
	}
	for _, query := range []string{"sub, count(*), sum(size) FROM S.pending GROUP BY sub",
		`sub, count(*), sum(size) FROM S.pending WHERE sub > '\x00' AND sub < '\x04' GROUP BY sub`} {
		rows, err := f.conn.Query(t.Context(), replaceAll("EXPLAIN (ANALYZE, BUFFERS) SELECT "+query, "S.", f.schema+"."))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range plan {
			t.Log(line)
		}
	}
}
