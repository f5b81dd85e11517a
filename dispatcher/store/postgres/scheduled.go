package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// errElsewhere: the delivery is not where it was a moment ago.
var errElsewhere = fmt.Errorf("%w: the delivery was attempted at the same time", errUsage)

// pendingPlace selects a delivery by the places that it may be in, each of which has an index.
const pendingPlace = ` WHERE p.sub = $1 AND p.event = $2 AND p.tenant = $3 AND p.due = ANY(ARRAY(
SELECT due FROM eventflow.pending WHERE sub = $1 AND event = $2 AND history
UNION ALL SELECT due FROM eventflow.pending WHERE sub = $1 AND event = $2 AND planned IS NOT NULL
UNION ALL SELECT $4::bigint))`

const (
	sendNow = `UPDATE eventflow.pending AS p SET due = $5, since = least(p.since, $5), history = true, log = coalesce(p.log, $6)` + pendingPlace + takenColumns

	cancelPending = `DELETE FROM eventflow.pending AS p` + pendingPlace + takenColumns
)

// change looks for a pending delivery of the namespace, and calls f until it changed the row that was found.
func (s *Store) change(ctx context.Context, what, namespace string, id event.DeliveryID, body bool, f func(*delivery.Event) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if err := s.refusal(); err != nil {
		return err
	}
	for try := 1; ; try++ {
		e, err := s.pendingEvent(ctx, namespace, id, body)
		if err == nil {
			err = f(e)
		}
		if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrNotPending) {
			return err
		}
		again := errors.Is(err, errElsewhere) || errors.Is(err, errHourTurned) || isContention(err) || code(err) == codeUndefinedTable
		if !again || ctx.Err() != nil || try == commitTries {
			s.noteFailure(err)
			return fmt.Errorf("%s %s: %w", what, id, explain(ctx, err))
		}
	}
}

// pendingEvent returns the event of a pending delivery of the namespace.
func (s *Store) pendingEvent(ctx context.Context, namespace string, id event.DeliveryID, body bool) (e *delivery.Event, err error) {
	err = s.view(ctx, func(ctx context.Context, conn *pgx.Conn, all live) error {
		found, err := s.find(ctx, conn, all, namespace, id)
		if err != nil {
			return err
		}
		if found.state != delivery.Pending {
			return fmt.Errorf("%w", store.ErrNotPending)
		}
		e, err = s.eventOf(ctx, conn, all, namespace, &found, body)
		return err
	})
	return e, err
}

// SendNow makes a pending delivery due, and waits until that is durable.
func (s *Store) SendNow(ctx context.Context, namespace string, id event.DeliveryID) (d delivery.PendingDelivery, err error) {
	err = s.change(ctx, "send", namespace, id, true, func(e *delivery.Event) error {
		conn, err := s.acquire(ctx, s.pool)
		if err != nil {
			return err
		}
		defer conn.release()
		now := s.now()
		b := &pgx.Batch{}
		s.begin(b, settingsDurable)
		b.Queue(settingsIndexed)
		b.Queue(s.sql(sendNow), id.Subscription[:], id.Event[:], tenantOf(namespace), accepted(id.Event), now, encodeAttempts(nil))
		st, err := s.sendOne(conn, b)
		if err != nil {
			return err
		}
		notice := pendingRows{quiet: map[int]int64{}}
		notice.notify(s, id.Subscription, now)
		b = &pgx.Batch{}
		notice.queueNotices(s, b)
		b.Queue("commit")
		if err := conn.send(b); err != nil {
			return err
		}
		s.ownership.recheck(s, notice.quiet, func(yield func(event.SubscriptionKey, int64)) { yield(id.Subscription, now) })
		own := *e
		d, d.Event = st.PendingDelivery, &own
		return nil
	})
	return d, err
}

// sendOne sends what is queued, the last of which returns the row of one delivery.
func (s *Store) sendOne(conn *connection, b *pgx.Batch) (*standing, error) {
	var found *standing
	err := conn.send(b, afterBegin(nil, func(results pgx.BatchResults) error {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		return readStandings(rows, func(st *standing) { found = st })
	})...)
	if err == nil && found == nil {
		err = errElsewhere
	}
	return found, err
}

// Cancel files a pending delivery as cancelled, and waits until that is durable.
func (s *Store) Cancel(ctx context.Context, namespace string, id event.DeliveryID) error {
	return s.change(ctx, "cancel", namespace, id, false, func(*delivery.Event) error { return s.cancel(ctx, namespace, id) })
}

func (s *Store) cancel(ctx context.Context, namespace string, id event.DeliveryID) error {
	day := kindFailed.bucket(s.latest())
	failed, events, details := period{kindFailed, day}, period{kindFailedEvents, day}, period{kindDetails, day}
	if err := s.ensure(ctx, failed, events, details); err != nil {
		return err
	}
	if _, err := s.seePeriods(ctx); err != nil { // another may have made the table that the event is in
		return err
	}
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return err
	}
	defer conn.release()
	b := &pgx.Batch{}
	s.begin(b, settingsDurable)
	b.Queue(settingsIndexed)
	b.Queue(s.sql(cancelPending), id.Subscription[:], id.Event[:], tenantOf(namespace), accepted(id.Event))
	st, err := s.sendOne(conn, b)
	if err != nil {
		return err
	}
	st.state, st.reason = delivery.Cancelled, delivery.ReasonByUser
	p := &planning{store: s, filed: day * kindFailed.width, ended: []*planned{{standing: st}}}
	b = &pgx.Batch{}
	p.queueEnded(b)
	b.Queue("commit")
	return conn.send(b)
}

const selectScheduled = `SELECT count(*), coalesce(min(planned), 0) FROM eventflow.pending WHERE sub = $1 AND planned IS NOT NULL AND NOT history AND planned > $2`

// Scheduled counts in an index.
func (s *Store) Scheduled(ctx context.Context, sub event.SubscriptionKey) (count int64, next time.Time, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, time.Time{}, err
	}
	defer s.leave()
	err = s.read(ctx, s.sql(selectScheduled), []any{sub[:], s.now()}, func(rows pgx.Rows) error {
		var first int64
		_, err := pgx.ForEachRow(rows, []any{&count, &first}, func() error { return nil })
		next = plannedTime(first)
		return err
	})
	return count, next, err
}
