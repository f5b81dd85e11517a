package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// pendingColumns are what rowOfPending reads.
const pendingColumns = `due, event, since, attempts, before, ord, size, coalesce(planned, 0)`

// rowOfPending is a row of pending without its list of attempts.
type rowOfPending struct {
	due, since, order, planned int64
	event                      []byte
	attempts, before, size     int
}

func (r *rowOfPending) fields() []any {
	return []any{&r.due, &r.event, &r.since, &r.attempts, &r.before, &r.order, &r.size, &r.planned}
}

func (r *rowOfPending) delivery(sub event.SubscriptionKey) (delivery.PendingDelivery, error) {
	key, err := decodeKey(r.event)
	return delivery.PendingDelivery{
		ID:  event.DeliveryID{Event: key, Subscription: sub},
		Due: moment(r.due), Since: moment(r.since), Attempts: r.attempts, AttemptsBefore: r.before,
		Order: uint64(r.order), Size: r.size, Planned: plannedTime(r.planned),
	}, err
}

// plannedTime is the planned time that a row has; zero for none.
func plannedTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return moment(ns)
}

// readPending appends the deliveries of an answer to into.
func readPending(rows pgx.Rows, sub event.SubscriptionKey, into []delivery.PendingDelivery) ([]delivery.PendingDelivery, error) {
	var r rowOfPending
	_, err := pgx.ForEachRow(rows, r.fields(), func() error {
		d, err := r.delivery(sub)
		into = append(into, d)
		return err
	})
	return into, err
}

// backlogPage is how many subscriptions are read at once.
const backlogPage = 1000

// selectBacklogs skips from one subscription to the next.
const selectBacklogs = `WITH RECURSIVE b AS (
(SELECT sub, due FROM eventflow.pending WHERE sub > $1 AND sub < $2 ORDER BY sub, due LIMIT 1)
UNION ALL
SELECT n.sub, n.due FROM b, LATERAL (SELECT p.sub, p.due FROM eventflow.pending AS p WHERE p.sub > b.sub AND p.sub < $2 ORDER BY p.sub, p.due LIMIT 1) AS n)
SELECT sub, due FROM b LIMIT $3`

// Backlogs reads a page at a time.
func (s *Store) Backlogs(ctx context.Context, shard int, yield func(delivery.Backlog) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	after, below := shardBounds(shard)
	for {
		page, err := s.backlogPage(ctx, after, below)
		if err != nil {
			return err
		}
		for _, b := range page {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := yield(b); err != nil {
				return err
			}
		}
		if len(page) < backlogPage {
			return nil
		}
		after = page[len(page)-1].Subscription[:]
	}
}

func (s *Store) backlogPage(ctx context.Context, after, below []byte) ([]delivery.Backlog, error) {
	var page []delivery.Backlog
	err := s.read(ctx, s.sql(selectBacklogs), []any{after, below, backlogPage}, func(rows pgx.Rows) error {
		page = page[:0]
		var sub []byte
		var due int64
		_, err := pgx.ForEachRow(rows, []any{&sub, &due}, func() error {
			key, err := decodeSubscription(sub)
			page = append(page, delivery.Backlog{Subscription: key, Due: moment(due)})
			return err
		})
		return err
	})
	return page, err
}

// shardBounds are what the keys of a shard's subscriptions lie between.
func shardBounds(shard int) (after, below []byte) {
	const width = 256 / delivery.Shards
	below = []byte{byte((shard + 1) * width)}
	if shard == delivery.Shards-1 {
		below = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	// A key of eight bytes is greater than its first byte alone.
	return []byte{byte(shard * width)}, below
}

const selectDue = `SELECT ` + pendingColumns + ` FROM eventflow.pending
WHERE sub = $1 AND (due, event) >= ($2, $3) ORDER BY due, event LIMIT $4`

// Due reads one delivery more than asked for, to know where to go on.
func (s *Store) Due(ctx context.Context, sub event.SubscriptionKey, from delivery.Position, until time.Time, limit int, into []delivery.PendingDelivery) (found []delivery.PendingDelivery, next delivery.Position, ok bool, err error) {
	if err := s.enter(ctx); err != nil {
		return into, next, false, err
	}
	defer s.leave()
	limit = max(limit, 0)
	start := len(into)
	err = s.read(ctx, s.sql(selectDue), []any{sub[:], nanos(from.Due), from.Event[:], limit + 1}, func(rows pgx.Rows) error {
		found, err = readPending(rows, sub, into[:start])
		return err
	})
	if err != nil {
		return into[:start], next, false, err
	}
	last := nanos(until)
	for i := start; i < len(found); i++ {
		if i == start+limit || nanos(found[i].Due) > last {
			next, ok = found[i].Position(), true
			found = found[:i]
		}
	}
	s.bringEvents(ctx, found[start:])
	return found, next, ok, nil
}

// selectStill looks each row up by its key, whatever the planner thinks of the table.
const selectStill = `SELECT u.place FROM unnest($2::bigint[], $3::bytea[]) WITH ORDINALITY AS u (due, event, place),
LATERAL (SELECT FROM eventflow.pending AS p WHERE p.sub = $1 AND p.due = u.due AND p.event = u.event LIMIT 1) AS p`

// StillPending asks for all of them at once.
func (s *Store) StillPending(ctx context.Context, sub event.SubscriptionKey, at []delivery.Position) ([]bool, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	dues, events := make([]int64, len(at)), make([][]byte, len(at))
	for i := range at {
		dues[i], events[i] = nanos(at[i].Due), at[i].Event[:]
	}
	is := make([]bool, len(at))
	err := s.read(ctx, s.sql(selectStill), []any{sub[:], dues, events}, func(rows pgx.Rows) error {
		clear(is)
		var place int64
		_, err := pgx.ForEachRow(rows, []any{&place}, func() error {
			is[place-1] = true
			return nil
		})
		return err
	})
	return is, err
}

// selectAged: a delivery without a history is as old as it is due, also if that was planned; one with a history is at most
// as old as its event.
const selectAged = `(SELECT ` + pendingColumns + ` FROM eventflow.pending WHERE sub = $1 AND history AND event < $4 AND since <= $2 ORDER BY event LIMIT $3)
UNION ALL
(SELECT ` + pendingColumns + ` FROM eventflow.pending WHERE sub = $1 AND NOT history AND due <= $2 ORDER BY due LIMIT $3)
LIMIT $3`

// Aged reads those with a history in the order of their events, the others in that of their due times.
func (s *Store) Aged(ctx context.Context, sub event.SubscriptionKey, since time.Time, limit int, into []delivery.PendingDelivery) ([]delivery.PendingDelivery, error) {
	if err := s.enter(ctx); err != nil {
		return into, err
	}
	defer s.leave()
	last := nanos(since)
	if limit <= 0 || last == 0 {
		return into, nil
	}
	above := keyAt(last + 1)
	found, start := into, len(into)
	err := s.read(ctx, s.sql(selectAged), []any{sub[:], last, limit, above[:]}, func(rows pgx.Rows) (err error) {
		found, err = readPending(rows, sub, into[:start])
		return err
	})
	return found, err
}

// keyAt is the least key of an event that was accepted at ns.
func keyAt(ns int64) (key event.Key) {
	if ns < 0 { // one more than the greatest
		ns = 1<<63 - 1
	}
	for i := range 8 {
		key[i] = byte(uint64(ns) >> (56 - 8*i))
	}
	return key
}

const selectFirst = `SELECT ` + pendingColumns + ` FROM eventflow.pending WHERE sub = $1 AND ord = $2 AND ord <> 0 ORDER BY event LIMIT 1`

// First reads the index of those that are ordered.
func (s *Store) First(ctx context.Context, sub event.SubscriptionKey, order uint64) (delivery.PendingDelivery, bool, error) {
	if err := s.enter(ctx); err != nil {
		return delivery.PendingDelivery{}, false, err
	}
	defer s.leave()
	var found []delivery.PendingDelivery
	err := s.read(ctx, s.sql(selectFirst), []any{sub[:], int64(order)}, func(rows pgx.Rows) (err error) {
		found, err = readPending(rows, sub, found[:0])
		return err
	})
	if err != nil || len(found) == 0 {
		return delivery.PendingDelivery{}, false, err
	}
	return found[0], true, nil
}

const selectOldest = `(SELECT event, 0::bigint FROM eventflow.pending WHERE sub = $1 AND history AND (planned IS NULL OR attempts > 0) ORDER BY event LIMIT 1)
UNION ALL
(SELECT event, coalesce(planned, 0) FROM eventflow.pending WHERE sub = $1 AND NOT history ORDER BY due, event LIMIT 1)`

// OldestPending compares the oldest delivery with a history to the first that is due of those without.
func (s *Store) OldestPending(ctx context.Context, sub event.SubscriptionKey) (time.Time, error) {
	if err := s.enter(ctx); err != nil {
		return time.Time{}, err
	}
	defer s.leave()
	var oldest time.Time
	err := s.read(ctx, s.sql(selectOldest), []any{sub[:]}, func(rows pgx.Rows) error {
		oldest = time.Time{}
		var raw []byte
		var planned int64
		_, err := pgx.ForEachRow(rows, []any{&raw, &planned}, func() error {
			key, err := decodeKey(raw)
			at := key.Accepted()
			if planned != 0 {
				if at = moment(planned); at.After(s.Now()) {
					return err // what is due at once would come before
				}
			}
			if oldest.IsZero() || at.Before(oldest) {
				oldest = at
			}
			return err
		})
		return err
	})
	return oldest, err
}

const selectRetrying = `SELECT due, event, attempts, coalesce(planned, 0), log FROM eventflow.pending WHERE sub = $1 AND history AND attempts > 0 ORDER BY due, event LIMIT $2`

// Retrying reads the deliveries that failed at least once and are pending, next due first.
func (s *Store) Retrying(ctx context.Context, sub event.SubscriptionKey, limit int) ([]store.RetryingDelivery, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if limit <= 0 {
		return nil, nil
	}
	var found []store.RetryingDelivery
	var planned []time.Time
	err := s.view(ctx, func(ctx context.Context, conn *pgx.Conn, all live) error {
		found, planned = found[:0], planned[:0]
		rows, err := conn.Query(ctx, s.sql(selectRetrying), sub[:], limit)
		if err != nil {
			return err
		}
		var r rowOfPending
		var log []byte
		_, err = pgx.ForEachRow(rows, []any{&r.due, &r.event, &r.attempts, &r.planned, &log}, func() error {
			d, err := r.retrying(sub, log)
			found, planned = append(found, d), append(planned, plannedTime(r.planned))
			return err
		})
		if err != nil {
			return err
		}
		wanted := wantedEvents{}
		for i := range found {
			wanted.add(found[i].ID.Event, place{planned: planned[i]})
		}
		events, err := s.findEvents(ctx, conn, all, wanted, false)
		for i := range found {
			if e := events[found[i].ID.Event]; e != nil {
				found[i].Type = e.Type
			}
		}
		return err
	})
	return found, err
}

func (r *rowOfPending) retrying(sub event.SubscriptionKey, log []byte) (store.RetryingDelivery, error) {
	d, err := r.delivery(sub)
	if err != nil {
		return store.RetryingDelivery{}, err
	}
	list, err := decodeAttempts(log)
	found := store.RetryingDelivery{ID: d.ID, Attempts: d.Attempts, Due: d.Due}
	if n := len(list); n > 0 {
		found.LastStatusCode = list[n-1].StatusCode
	}
	return found, err
}
