package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// totalsTimeout bounds the one statement that reads all of pending, on both sides of the connection.
const totalsTimeout = 10 * time.Minute

const (
	// settingsTotals leave the server's other processors to the writers.
	settingsTotals = `SELECT set_config('idle_in_transaction_session_timeout', $1, true), set_config('statement_timeout', $1, true), set_config('max_parallel_workers_per_gather', '0', true)`

	// selectTotals reads the table once from end to end. By shards, in the order of the primary key, it would read nearly
	// every page once for each of them, for the rows lie in the order in which they were stored.
	selectTotals = `SELECT sub, count(*), sum(size) FROM eventflow.pending GROUP BY sub`
)

// totals is the work of one Totals.
type totals struct {
	store *Store
	yield func(sub event.SubscriptionKey, deliveries, bytes int64) error
	// begun is set once a subscription was yielded: none may be again.
	begun bool
	// refused is the error of yield.
	refused error
}

// Totals lets the server add up, within its work_mem, and takes one row for each subscription as it comes. It holds one
// connection, and a snapshot, which keeps autovacuum from what is deleted meanwhile.
func (s *Store) Totals(ctx context.Context, yield func(sub event.SubscriptionKey, deliveries, bytes int64) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	reading, cancel := context.WithTimeout(ctx, totalsTimeout)
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	t := &totals{store: s, yield: yield}
	err := t.run(reading)
	switch {
	case t.refused != nil:
		return t.refused
	case err != nil && ctx.Err() == nil && s.ending.Err() != nil:
		return store.ErrClosed
	default:
		return explain(ctx, err)
	}
}

// run reads again where the connection was lost before anything was yielded.
func (t *totals) run(ctx context.Context) error {
	for try := 1; ; try++ {
		err := t.read(ctx)
		t.store.notePooler(err)
		again := isPooled(err) || isLost(err)
		if err == nil || t.begun || try == maxViews || ctx.Err() != nil || !again {
			return err
		}
	}
}

func (t *totals) read(ctx context.Context) error {
	s := t.store
	conn, err := s.acquireUntil(ctx, s.pool)
	if err != nil {
		return err
	}
	defer conn.release()
	b := &pgx.Batch{}
	b.Queue("begin read only")
	b.Queue(settingsTotals, fmt.Sprintf("%dms", totalsTimeout.Milliseconds()))
	if err := conn.send(b); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, s.sql(selectTotals))
	if err != nil {
		return err
	}
	var sub []byte
	var deliveries, bytes int64
	_, err = pgx.ForEachRow(rows, []any{&sub, &deliveries, &bytes}, func() error {
		key, err := decodeSubscription(sub)
		if err != nil {
			return err
		}
		if err := t.ended(ctx); err != nil {
			return err
		}
		t.begun = true
		t.refused = t.yield(key, deliveries, bytes)
		return t.refused
	})
	return err
}

// ended returns why the call is not to go on, or nil. Answers that have already come are read without a look at ctx.
func (t *totals) ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.store.ending.Err()
}
