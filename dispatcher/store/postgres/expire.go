package postgres

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// housePause is how often tables are made ahead and dropped.
const housePause = time.Minute

// keepHouse makes and drops the tables of periods, until the store is closed.
func (s *Store) keepHouse() {
	for pause(s.closing, housePause) {
		if s.down.Load() != nil {
			continue
		}
		err := s.makePeriods(s.closing)
		if err == nil {
			err = s.Expire(s.closing, s.Now())
		}
		if err != nil && s.closing.Err() == nil {
			s.options.Logger.Info("Making and dropping the tables of periods failed; trying again", "reason", textOf(err), "pause", housePause)
		}
	}
}

// Expire drops what is older at the given time than the store's retention: whole tables, the newest part of which has
// been kept for long enough. The store does so by itself, once a minute.
func (s *Store) Expire(ctx context.Context, now time.Time) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	all, err := s.seePeriods(ctx)
	if err != nil {
		return explain(ctx, err)
	}
	ns := max(nanos(now), s.clock.newest())
	retention := s.retention.Load()
	last, ok := endedBefore(ns, retention.Delivered, hour)
	var dropped []period
	if ok {
		dropped = append(dropped, periodsUntil(all, kindDelivered, last)...)
		// An event may be kept for a delivery that finished in the hour after its own.
		if events := all.until(kindEvents, last-1); len(events) > 0 {
			if err := s.moveOwed(ctx, events, ns, plannedSince(all)); err != nil {
				return fmt.Errorf("move events that are owed: %w", explain(ctx, err))
			}
			dropped = append(dropped, periodsUntil(all, kindEvents, last-1)...)
		}
	}
	if last, ok := endedBefore(ns, retention.Delivered, day); ok {
		planned := periodsUntil(all, kindPlannedEvents, last)
		if err := s.movePlanned(ctx, planned, ns); err != nil {
			return fmt.Errorf("move planned events that are owed: %w", explain(ctx, err))
		}
		dropped = append(dropped, planned...)
	}
	if last, ok := endedBefore(ns, max(retention.Delivered, retention.Failed), day); ok {
		dropped = append(dropped, periodsUntil(all, kindDetails, last)...)
	}
	if last, ok := endedBefore(ns, retention.Failed, day); ok {
		dropped = append(dropped, periodsUntil(all, kindFailed, last)...)
		dropped = append(dropped, periodsUntil(all, kindFailedEvents, last)...)
	}
	dropped = append(dropped, periodsUntil(all, kindIDs, kindIDs.bucket(ns)-2)...)
	for _, p := range dropped {
		if err := s.drop(ctx, p); err != nil {
			return fmt.Errorf("drop the tables of a period: %w", explain(ctx, err))
		}
	}
	if len(dropped) > 0 {
		_, err = s.seePeriods(ctx)
	}
	s.forget(ctx)
	s.forgetKeys(ctx, ns)
	return explain(ctx, err)
}

// Retain makes the store keep finished deliveries for as long as the arguments say from now on; see Retention. What was
// dropped before does not come back.
func (s *Store) Retain(delivered, failed time.Duration) {
	s.retention.Store(&Retention{Delivered: delivered, Failed: failed})
}

// endedBefore returns the newest bucket that ended at least the given time ago.
func endedBefore(ns int64, ago time.Duration, width int64) (bucket int64, ok bool) {
	if ns < int64(ago)+width {
		return 0, false
	}
	return (ns - int64(ago) - width) / width, true
}

func periodsUntil(all live, k *kind, last int64) (found []period) {
	for _, bucket := range all.until(k, last) {
		found = append(found, period{k, bucket})
	}
	return found
}

// drop drops a table. It does not wait for long, lest others wait behind it.
func (s *Store) drop(ctx context.Context, p period) error {
	statements := []string{
		`SELECT set_config('lock_timeout', '500ms', true)`,
		`SELECT id FROM eventflow.meta WHERE id = 1 FOR UPDATE`,
		`DROP TABLE IF EXISTS @1`,
	}
	to := period{kindEvents, kindEvents.bucket(s.latest())}
	if p.kind == kindPlannedEvents {
		if err := s.ensure(ctx, to); err != nil {
			return err
		}
		statements = slices.Insert(statements, 2, `LOCK TABLE @1`, moveRest) // what a replay stored there since the others were moved
	}
	err := s.transact(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		for _, text := range statements {
			if _, err := conn.Exec(ctx, s.sql(text, p.table(), to.table()), pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		_, err := conn.Exec(ctx, s.sql(`DELETE FROM eventflow.periods WHERE kind = $1 AND bucket = $2`), p.kind.name, p.bucket)
		return err
	})
	if code(err) == codeUndefinedTable {
		return nil // another dropped it
	}
	return err
}

const (
	// owedPage is how many keys of events are in memory at once, movePage how many events are moved in one transaction.
	owedPage = 1 << 20
	movePage = 500
	// moveTimeout bounds the search for the keys.
	moveTimeout = 5 * time.Minute
)

const (
	// selectOwed: what becomes pending after it was asked brings its event along into the present hour. What is planned
	// for a day whose table is there has its event in that.
	selectOwed = `SELECT DISTINCT event FROM eventflow.pending WHERE event >= $1 AND event < $2 AND (planned IS NULL OR planned < $4) ORDER BY event LIMIT $3`
	moveEvents = `INSERT INTO @1 (key, namespace, id, type, traceparent, body)
SELECT key, namespace, id, type, traceparent, body FROM @2 WHERE key = ANY($1) ORDER BY key ON CONFLICT DO NOTHING`
)

// moveOwed copies the events of pending deliveries out of the tables of the given hours into that of the present one.
func (s *Store) moveOwed(ctx context.Context, hours []int64, ns, planned int64) error {
	to := period{kindEvents, kindEvents.bucket(ns)}
	if err := s.ensure(ctx, to); err != nil {
		return err
	}
	from, end := []byte{}, keyBytes((hours[len(hours)-1]+1)*hour)
	for {
		keys, err := s.owed(ctx, from, end, planned)
		if err != nil {
			return err
		}
		for page := range slices.Chunk(keys, movePage) {
			for _, hour := range hours {
				if err := s.move(ctx, page, period{kindEvents, hour}, to); err != nil {
					return err
				}
			}
		}
		if len(keys) < owedPage {
			return nil
		}
		from = append(bytes.Clone(keys[len(keys)-1]), 0)
	}
}

// owed returns the keys of the events between from and end that have a pending delivery.
func (s *Store) owed(ctx context.Context, from, end []byte, planned int64) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	rows, err := s.pool.Query(ctx, s.sql(selectOwed), from, end, owedPage, planned)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[[]byte])
}

func (s *Store) move(ctx context.Context, keys [][]byte, from, to period) error {
	err := s.transact(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, s.sql(moveEvents, to.table(), from.table()), keys)
		return err
	})
	if code(err) == codeUndefinedTable {
		return nil // another dropped it, and moved what was owed before
	}
	return err
}

// forget deletes what is left of processes that are gone.
func (s *Store) forget(ctx context.Context) {
	for _, statement := range []struct {
		text      string
		arguments []any
	}{
		{s.sql(forgetMembers), []any{int64(time.Minute)}},
		{s.sql(`DELETE FROM eventflow.acceptors WHERE last < (SELECT max(last) FROM eventflow.acceptors) - $1`), []any{hour}},
	} {
		if _, err := s.pool.Exec(ctx, statement.text, statement.arguments...); err != nil {
			return // another time
		}
	}
}
