package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

const (
	// noticePause is how long what another stored may wait to be noticed.
	noticePause = 15 * time.Millisecond
	// lonelyPause is the same while there is no other member.
	lonelyPause = time.Second
	// sweepPause is how often shards are searched for deliveries that are overdue.
	sweepPause = 10 * time.Second
	// overdue is from when on a delivery is: whoever knows of it has begun to attempt it.
	overdue = 5 * time.Second
	// sweepPage is how many subscriptions are looked at in one sweep.
	sweepPage = 2000
)

// takeNotices takes those of the shards that this process has the leases of. A row without a subscription says that a
// shard is free.
const takeNotices = `WITH taken AS (
DELETE FROM eventflow.notices WHERE shard IN (SELECT shard FROM eventflow.leases WHERE owner = $1) RETURNING sub, due)
SELECT sub, due FROM taken
UNION ALL SELECT NULL, 0 WHERE EXISTS (SELECT FROM eventflow.leases WHERE owner IS NULL)`

// collectNotices tells the owner of what others stored, until ctx ends.
func (m *membership) collectNotices(ctx context.Context) {
	var swept time.Time
	var after []byte
	for wait := noticePause; pause(ctx, wait); {
		wait = noticePause
		if !m.store.ownership.hasPeers() {
			wait = lonelyPause
		}
		if m.store.down.Load() != nil {
			continue
		}
		_ = m.tell(ctx, m.store.sql(takeNotices), m.store.options.Identity) // that the database is unavailable is said elsewhere
		if time.Since(swept) >= sweepPause {
			swept = time.Now()
			after = m.sweep(ctx, after)
		}
	}
}

// tell tells the owner of the subscriptions that the statement returns.
func (m *membership) tell(ctx context.Context, statement string, arguments ...any) error {
	ctx, cancel := context.WithTimeout(ctx, m.store.options.Timeout)
	defer cancel()
	rows, err := m.store.control.Query(ctx, statement, arguments...)
	if err != nil {
		return err
	}
	var sub []byte
	var due int64
	_, err = pgx.ForEachRow(rows, []any{&sub, &due}, func() error {
		if sub == nil {
			select {
			case m.hurry <- struct{}{}:
			default:
			}
			return nil
		}
		key, err := decodeSubscription(sub)
		if err == nil {
			m.owner.Notice(delivery.Backlog{Subscription: key, Due: moment(due)})
		}
		return err
	})
	return err
}

// sweep tells the owner of subscriptions with something overdue, a page of them, and returns where to go on: no
// delivery is stranded because a notice of it was lost.
func (m *membership) sweep(ctx context.Context, after []byte) []byte {
	s := m.store
	if after == nil {
		after = []byte{}
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	_, below := shardBounds(delivery.Shards - 1)
	rows, err := s.control.Query(ctx, s.sql(selectBacklogs), after, below, sweepPage)
	if err != nil {
		return after
	}
	n := 0
	last := after
	late := s.Now().Add(-overdue)
	var sub []byte
	var due int64
	_, err = pgx.ForEachRow(rows, []any{&sub, &due}, func() error {
		n++
		key, err := decodeSubscription(sub)
		last = key[:]
		if _, owned := s.ownership.epoch(delivery.ShardOf(key)); owned && moment(due).Before(late) {
			m.owner.Notice(delivery.Backlog{Subscription: key, Due: moment(due)})
		}
		return err
	})
	if err != nil || n == sweepPage {
		return last
	}
	return nil
}
