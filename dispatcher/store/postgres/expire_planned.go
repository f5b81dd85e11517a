package postgres

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// keyKept is how long a key is remembered at least after the time that was planned for it, or the event that changed it
// last: events may arrive in any order.
const keyKept = 72 * time.Hour

// plannedSince is the beginning of the first day whose planned events have their own table.
func plannedSince(all live) int64 {
	if days := all[kindPlannedEvents]; len(days) > 0 {
		return days[0] * day
	}
	return math.MaxInt64
}

// selectOwedOf finds what is planned for a day and still pending; moveRest moves it out of a table that is about to go.
const (
	selectOwedOf = `SELECT key FROM @1 WHERE refs > 0 ORDER BY key`
	moveRest     = `INSERT INTO @2 (key, namespace, id, type, traceparent, body)
SELECT key, namespace, id, type, traceparent, body FROM @1 WHERE refs > 0 ORDER BY key ON CONFLICT DO NOTHING`
)

// movePlanned copies the events that are still owed out of the tables of days that are over into that of the present hour.
func (s *Store) movePlanned(ctx context.Context, days []period, ns int64) error {
	if len(days) == 0 {
		return nil
	}
	to := period{kindEvents, kindEvents.bucket(ns)}
	if err := s.ensure(ctx, to); err != nil {
		return err
	}
	for _, from := range days {
		keys, err := s.owedOf(ctx, from)
		if code(err) == codeUndefinedTable {
			continue // another dropped it, and moved what was owed before
		}
		if err != nil {
			return err
		}
		for page := range slices.Chunk(keys, movePage) {
			if err := s.move(ctx, page, from, to); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) owedOf(ctx context.Context, from period) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	rows, err := s.pool.Query(ctx, s.sql(selectOwedOf, from.table()))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[[]byte])
}

// forgetPlanKeys passes over rows that others hold: it must not wait for them in another order than theirs.
const forgetPlanKeys = `DELETE FROM eventflow.plan_keys WHERE (sub, key) IN (
SELECT k.sub, k.key FROM eventflow.plan_keys AS k WHERE k.kept < $1
AND NOT EXISTS (SELECT FROM eventflow.pending AS p WHERE p.sub = k.sub AND p.plan_key = k.key AND p.plan_key IS NOT NULL)
LIMIT $2 FOR UPDATE SKIP LOCKED)`

// forgetKeys deletes what is known of keys that nobody needs any more. It reads all of them, and so only once an hour.
func (s *Store) forgetKeys(ctx context.Context, ns int64) {
	if s.forgotten.Swap(ns/hour) == ns/hour {
		return
	}
	for {
		tag, err := s.pool.Exec(ctx, s.sql(forgetPlanKeys), ns-int64(keyKept), owedPage)
		if err != nil || tag.RowsAffected() < owedPage {
			return // what is left is found another time
		}
	}
}
