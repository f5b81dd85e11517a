package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	hour = int64(time.Hour)
	day  = 24 * hour
)

// kind is a kind of tables of periods.
type kind struct {
	name string
	// width of the period, in nanoseconds.
	width  int64
	format string // of the period's beginning
	// columns of the table.
	columns string
	// index is a statement for a further one, on the table @1; "" for none.
	index string
	// changed tables have rows that are changed or deleted one by one.
	changed bool
	// lazy tables are made when something is filed in them, not ahead.
	lazy bool
}

var (
	kindEvents = &kind{name: "events", width: hour, format: "2006010215", columns: eventColumns}
	kindIDs    = &kind{name: "ids", width: day, format: "20060102", columns: `(id uuid PRIMARY KEY, digest uuid NOT NULL, at bigint NOT NULL, deliveries integer NOT NULL)`}

	kindDelivered = &kind{name: "delivered", width: hour, format: "2006010215", columns: `(tenant bigint NOT NULL, event bytea NOT NULL, sub bytea NOT NULL,
		attempts integer NOT NULL, log bytea NOT NULL, replay_of bytea, PRIMARY KEY (tenant, event, sub))`}
	kindFailed = &kind{name: "failed", width: day, format: "20060102", columns: `(tenant bigint NOT NULL, event bytea NOT NULL, sub bytea NOT NULL,
		state smallint NOT NULL, attempts integer NOT NULL, log bytea NOT NULL, replay_of bytea, PRIMARY KEY (tenant, event, sub))`}
	kindFailedEvents = &kind{name: "failed_events", width: day, format: "20060102", columns: eventColumns}

	// kindPlannedEvents are events by the day for which their deliveries are planned; refs counts those that are pending.
	// What nobody needs any more goes at once, lest it stays until a day that is far ahead.
	kindPlannedEvents = &kind{name: "planned_events", width: day, format: "20060102", columns: `(key bytea PRIMARY KEY, namespace text NOT NULL,
		id text NOT NULL, type text NOT NULL, traceparent text NOT NULL, body bytea NOT NULL, refs integer NOT NULL)`, changed: true, lazy: true}
	// kindDetails is what is known of finished deliveries that were planned, or ended for a reason, by the day they
	// finished. open: an attempt was in flight when the delivery was cancelled.
	kindDetails = &kind{name: "details", width: day, format: "20060102", columns: `(tenant bigint NOT NULL, event bytea NOT NULL, sub bytea NOT NULL,
		state smallint NOT NULL, planned bigint, plan_key bytea, reason text NOT NULL, open boolean NOT NULL, PRIMARY KEY (event, sub))`,
		index: `CREATE INDEX ON @1 (sub, plan_key) WHERE plan_key IS NOT NULL`, lazy: true}

	kinds = []*kind{kindEvents, kindIDs, kindDelivered, kindFailed, kindFailedEvents, kindPlannedEvents, kindDetails}
)

// eventColumns: body begins with the record's version, codec and key id.
const eventColumns = `(key bytea PRIMARY KEY, namespace text NOT NULL, id text NOT NULL, type text NOT NULL, traceparent text NOT NULL, body bytea NOT NULL)`

// bucket is the number of the period that ns falls into.
func (k *kind) bucket(ns int64) int64 { return ns / k.width }

// table is the name of a period's table.
func (k *kind) table(bucket int64) string {
	return k.name + "_" + time.Unix(0, bucket*k.width).UTC().Format(k.format)
}

// period is one of a kind.
type period struct {
	kind   *kind
	bucket int64
}

func (p period) table() string { return p.kind.table(p.bucket) }

// live are the periods that have a table, oldest first for each kind.
type live map[*kind][]int64

// from returns the buckets of a kind that are n or later.
func (l live) from(k *kind, n int64) []int64 {
	i, _ := slices.BinarySearch(l[k], n)
	return l[k][i:]
}

// until returns the buckets of a kind that are n or earlier.
func (l live) until(k *kind, n int64) []int64 {
	i, _ := slices.BinarySearch(l[k], n+1)
	return l[k][:i]
}

func (l live) has(p period) bool {
	_, found := slices.BinarySearch(l[p.kind], p.bucket)
	return found
}

// periods are those that this process has seen or made. Others may make and drop some at any time.
type periods struct {
	sync.Mutex
	seen live
}

func (p *periods) has(of period) bool {
	p.Lock()
	defer p.Unlock()
	return p.seen.has(of)
}

func (p *periods) see(all live) {
	p.Lock()
	defer p.Unlock()
	p.seen = all
}

func (p *periods) list() live {
	p.Lock()
	defer p.Unlock()
	return p.seen
}

const selectPeriods = `SELECT kind, bucket FROM eventflow.periods ORDER BY kind, bucket`

// readLive reads an answer to selectPeriods.
func readLive(rows pgx.Rows) (live, error) {
	all := live{}
	var name string
	var bucket int64
	_, err := pgx.ForEachRow(rows, []any{&name, &bucket}, func() error {
		for _, k := range kinds { // what newer programs add, they look after
			if k.name == name {
				all[k] = append(all[k], bucket)
			}
		}
		return nil
	})
	return all, err
}

// seePeriods finds out which tables exist.
func (s *Store) seePeriods(ctx context.Context) (live, error) {
	rows, err := s.pool.Query(ctx, s.sql(selectPeriods))
	if err != nil {
		return nil, err
	}
	all, err := readLive(rows)
	if err == nil {
		s.periods.see(all)
	}
	return all, err
}

// ensure makes the tables that do not exist yet.
func (s *Store) ensure(ctx context.Context, wanted ...period) error {
	var missing []period
	for _, p := range wanted {
		if !s.periods.has(p) {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	all, err := s.seePeriods(ctx)
	if err != nil {
		return err
	}
	missing = slices.DeleteFunc(missing, all.has)
	if len(missing) == 0 {
		return nil
	}
	err = s.transact(ctx, func(ctx context.Context, conn *pgx.Conn) error { return s.create(ctx, conn, missing) })
	if err != nil {
		return fmt.Errorf("make the tables of a period: %w", err)
	}
	_, err = s.seePeriods(ctx)
	return err
}

// create makes tables. Whoever makes or drops one holds the row of meta.
func (s *Store) create(ctx context.Context, conn *pgx.Conn, missing []period) error {
	if _, err := conn.Exec(ctx, s.sql(`SELECT id FROM eventflow.meta WHERE id = 1 FOR UPDATE`)); err != nil {
		return err
	}
	for _, p := range missing {
		text := `CREATE TABLE IF NOT EXISTS @1 ` + p.kind.columns
		if !p.kind.changed { // and they are dropped before their rows are old
			text += ` WITH (autovacuum_enabled = false)`
		}
		text = s.sql(text, p.table())
		if _, err := conn.Exec(ctx, text, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		if p.kind.index != "" {
			if _, err := conn.Exec(ctx, s.sql(p.kind.index, p.table()), pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		_, err := conn.Exec(ctx, s.sql(`INSERT INTO eventflow.periods (kind, bucket) VALUES ($1, $2) ON CONFLICT DO NOTHING`), p.kind.name, p.bucket)
		if err != nil {
			return err
		}
	}
	return nil
}

// makePeriods makes the tables of the present and of the next hour and day, so that nobody has to wait for them.
func (s *Store) makePeriods(ctx context.Context) error {
	var wanted []period
	now := s.latest()
	for _, k := range kinds {
		if !k.lazy {
			wanted = append(wanted, period{k, k.bucket(now)}, period{k, k.bucket(now + k.width)})
		}
	}
	return concealed(s.ensure(ctx, wanted...))
}

// view runs f on one state of the database, of which all are the tables, and again if a table was dropped meanwhile.
func (s *Store) view(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn, all live) error) error {
	for try := 1; ; try++ {
		err := s.viewOnce(ctx, f)
		s.notePooler(err)
		if err == nil || try == maxViews || ctx.Err() != nil {
			return explain(ctx, err)
		}
		if code(err) != codeUndefinedTable && !isLost(err) && !isContention(err) {
			return explain(ctx, err)
		}
	}
}

const maxViews = 3

func (s *Store) viewOnce(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn, all live) error) error {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return err
	}
	defer conn.release()
	b := &pgx.Batch{}
	b.Queue("begin isolation level repeatable read read only")
	b.Queue(settingsDurable, fmt.Sprintf("%dms", s.options.Timeout.Milliseconds()))
	b.Queue(s.sql(selectPeriods))
	var all live
	err = conn.send(b, afterBegin(func(r pgx.BatchResults) error {
		rows, err := r.Query()
		if err != nil {
			return err
		}
		all, err = readLive(rows)
		return err
	})...)
	if err != nil {
		return err
	}
	if err := f(conn.ctx, conn.Conn.Conn(), all); err != nil {
		return err
	}
	_, err = conn.Exec(conn.ctx, "commit")
	return err
}

// read runs a query outside of a transaction, and again if its connection was lost before.
func (s *Store) read(ctx context.Context, statement string, arguments []any, use func(rows pgx.Rows) error) error {
	for try := 1; ; try++ {
		err := s.readOnce(ctx, statement, arguments, use)
		s.notePooler(err)
		again := isPooled(err) || isLost(err) && !errors.Is(err, context.DeadlineExceeded)
		if err == nil || try == maxViews || ctx.Err() != nil || !again {
			return explain(ctx, err)
		}
	}
}

func (s *Store) readOnce(ctx context.Context, statement string, arguments []any, use func(rows pgx.Rows) error) error {
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return err
	}
	defer conn.release()
	rows, err := conn.Query(conn.ctx, statement, arguments...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if err := use(rows); err != nil {
		return err
	}
	return rows.Err()
}
