package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// errMoved: the delivery is not where it was a moment ago.
var errMoved = fmt.Errorf("%w: the delivery was replayed by another at the same time", errUsage)

// Replay makes a finished delivery pending again, and waits until that is durable.
func (s *Store) Replay(ctx context.Context, namespace string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	if err := s.enter(ctx); err != nil {
		return delivery.PendingDelivery{}, err
	}
	defer s.leave()
	if err := s.refusal(); err != nil {
		return delivery.PendingDelivery{}, err
	}
	for try := 1; ; try++ {
		d, err := s.replay(ctx, namespace, id)
		if err == nil {
			return d, nil
		}
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrStillPending) {
			return delivery.PendingDelivery{}, err
		}
		again := errors.Is(err, errMoved) || isContention(err) || code(err) == codeUndefinedTable
		if !again || ctx.Err() != nil || try == commitTries {
			s.noteFailure(err)
			return delivery.PendingDelivery{}, fmt.Errorf("replay %s: %w", id, explain(ctx, err))
		}
	}
}

func (s *Store) replay(ctx context.Context, namespace string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	var found entryOf
	var e *delivery.Event
	err := s.view(ctx, func(ctx context.Context, conn *pgx.Conn, all live) (err error) {
		if found, err = s.find(ctx, conn, all, namespace, id); err != nil {
			return err
		}
		if found.state == delivery.Pending {
			return fmt.Errorf("%w", store.ErrStillPending)
		}
		e, err = s.eventOf(ctx, conn, all, namespace, &found, true)
		return err
	})
	if err != nil {
		return delivery.PendingDelivery{}, err
	}
	own := *e
	r := &replaying{store: s, found: &found, event: &own, tenant: tenantOf(namespace)}
	if found.planned != 0 && found.state != delivery.Delivered { // another may have made the table of its day
		if _, err := s.seePeriods(ctx); err != nil {
			return delivery.PendingDelivery{}, err
		}
	}
	if err := s.ensure(ctx, period{kindEvents, kindEvents.bucket(s.latest())}); err != nil {
		return delivery.PendingDelivery{}, err
	}
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return delivery.PendingDelivery{}, err
	}
	defer conn.release()
	st, err := r.run(conn)
	if err != nil {
		return delivery.PendingDelivery{}, err
	}
	s.ownership.recheck(s, r.quiet, func(yield func(event.SubscriptionKey, int64)) { yield(st.ID.Subscription, nanos(st.Due)) })
	st.Event = r.event
	return st.PendingDelivery, nil
}

// replaying is the work of one Replay.
type replaying struct {
	store  *Store
	found  *entryOf
	event  *delivery.Event
	tenant int64
	quiet  map[int]int64
}

const deleteFailed = `DELETE FROM @1 WHERE tenant = $1 AND event = $2 AND sub = $3`

const deleteDetails = `DELETE FROM @1 WHERE event = $1 AND sub = $2`

func (r *replaying) run(conn *connection) (*standing, error) {
	s := r.store
	var last, now, removed int64
	b := &pgx.Batch{}
	s.begin(b, settingsDurable)
	b.Queue(s.sql(claimTime), s.options.Identity+"/replay", s.fixedNow(), int64(1))
	readers := afterBegin(func(res pgx.BatchResults) error { return res.QueryRow().Scan(&last, &now) })
	if r.found.state != delivery.Delivered {
		id := r.found.id
		b.Queue(s.sql(deleteFailed, kindFailed.table(r.found.bucket)), r.tenant, id.Event[:], id.Subscription[:])
		readers = append(readers, func(res pgx.BatchResults) error {
			tag, err := res.Exec()
			removed = tag.RowsAffected()
			return err
		})
		if details := (period{kindDetails, r.found.bucket}); s.periods.has(details) {
			b.Queue(s.sql(deleteDetails, details.table()), id.Event[:], id.Subscription[:])
			readers = append(readers, nil)
		}
	}
	if err := conn.send(b, readers...); err != nil {
		return nil, err
	}
	now = s.present(now)
	b = &pgx.Batch{}
	var st *standing
	if r.found.state == delivery.Delivered {
		st = r.delivered(last, now)
	} else {
		if removed == 0 {
			return nil, errMoved
		}
		st = r.failed(b, now)
	}
	r.queueEvent(b, st)
	queueStandings(s, b, []*standing{st})
	notice := pendingRows{quiet: map[int]int64{}}
	notice.notify(s, st.ID.Subscription, nanos(st.Due))
	notice.queueNotices(s, b)
	r.quiet = notice.quiet
	b.Queue("commit")
	s.clock.accept(last)
	return st, conn.send(b)
}

const saveEventAgain = `INSERT INTO @1 (key, namespace, id, type, traceparent, body) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`

// savePlannedAgain adds one to those that need the event.
const savePlannedAgain = `INSERT INTO @1 AS o (key, namespace, id, type, traceparent, body, refs) VALUES ($1, $2, $3, $4, $5, $6, 1)
ON CONFLICT (key) DO UPDATE SET refs = o.refs + 1`

// queueEvent stores the event among those of the present hour, or of the day for which the delivery is planned while they
// have a table.
func (r *replaying) queueEvent(b *pgx.Batch, st *standing) {
	s, e := r.store, r.event
	text := s.sql(saveEventAgain, kindEvents.table(kindEvents.bucket(s.latest())))
	if at := plannedPeriod(st.Planned); !st.Planned.IsZero() && s.periods.has(at) {
		text = s.sql(savePlannedAgain, at.table())
	}
	b.Queue(text, e.Key[:], e.Tenant, e.ID, string(e.Type), e.Traceparent, encodeBody(e))
}

// failed makes the delivery itself pending: its receiver never had it.
func (r *replaying) failed(b *pgx.Batch, now int64) *standing {
	f := r.found
	var c changes
	one := c.of(f.id.Subscription)
	if f.state == delivery.Failed {
		one.failed--
	} else {
		one.cancelled--
	}
	if f.attempts > 0 {
		one.retrying++
	}
	c.queue(r.store, b)
	st := r.standing(f.id, now, now, f.attempts, f.list, f.replayOf)
	st.Planned, st.key = plannedTime(f.planned), f.key
	return st
}

// delivered makes a delivery that names the one it repeats. Its event is stored again, as if accepted now.
func (r *replaying) delivered(at, now int64) *standing {
	r.event.Key = event.NewKey(moment(at), r.event.Tenant, r.event.ID)
	due := at
	if at > now+maxSkew {
		due = now // the clock was set back
	}
	id := event.DeliveryID{Event: r.event.Key, Subscription: r.found.id.Subscription}
	return r.standing(id, at, due, 0, nil, encodeID(r.found.id))
}

func (r *replaying) standing(id event.DeliveryID, since, due int64, attempts int, list []delivery.Attempt, replayOf []byte) *standing {
	return &standing{
		PendingDelivery: delivery.PendingDelivery{
			ID: id, Since: moment(since), Due: moment(due), Attempts: attempts, AttemptsBefore: attempts, Size: r.event.Size(),
		},
		state: delivery.Pending, tenant: r.tenant, history: true, list: list, replayOf: replayOf,
	}
}
