package pebble

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Replay makes a finished delivery pending again, and waits until that is durable.
func (s *Store) Replay(ctx context.Context, namespace string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	if err := s.enter(ctx); err != nil {
		return delivery.PendingDelivery{}, err
	}
	defer s.leave()
	if s.full.Load() {
		return delivery.PendingDelivery{}, store.ErrFull
	}
	pending, err := s.replay(namespace, id)
	if err != nil {
		return delivery.PendingDelivery{}, err
	}
	// The batch is in the log already. Once this is durable, so is all before it, and nobody waited for it with the
	// ledger in hand.
	if err := s.sync(); err != nil {
		return delivery.PendingDelivery{}, fmt.Errorf("replay %s: %w", id, err)
	}
	return pending, nil
}

// sync waits until everything that was committed is durable.
func (s *Store) sync() error {
	b := s.db.NewBatch()
	_ = b.LogData(nil, nil)
	if err := s.commit(b, pebble.Sync); err != nil {
		return err
	}
	return b.Close()
}

func (s *Store) replay(namespace string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	s.dropping.RLock()
	defer s.dropping.RUnlock()
	l := &s.ledger
	l.Lock()
	defer l.Unlock()
	l.begin()
	found, err := s.find(s.db, namespace, id)
	if err != nil {
		return delivery.PendingDelivery{}, err
	}
	e, stays, err := s.eventOf(s.db, namespace, &found)
	if err != nil {
		return delivery.PendingDelivery{}, err
	}
	b := s.db.NewBatch()
	var pending delivery.PendingDelivery
	switch found.state {
	case delivery.Pending:
		err = store.ErrStillPending
	case delivery.Delivered:
		pending = s.replayDelivered(b, &found, *e)
	default:
		pending, err = s.replayFailed(b, &found, e, stays)
	}
	if err == nil {
		return pending, s.commitLedger(b)
	}
	return delivery.PendingDelivery{}, errors.Join(err, b.Close())
}

// replayFailed makes the delivery itself pending: its receiver never had it. Its event is stored again only if it stays
// with the failed delivery alone, as a store of format 1 kept it.
func (s *Store) replayFailed(b *pebble.Batch, found *entry, e *delivery.Event, stays bool) (delivery.PendingDelivery, error) {
	l := &s.ledger
	c, err := l.counts(s, found.id.Subscription)
	if err != nil {
		return delivery.PendingDelivery{}, err
	}
	if found.state == delivery.Failed {
		c.Failed = max(0, c.Failed-1)
	} else {
		c.Cancelled = max(0, c.Cancelled-1)
	}
	if found.attempts > 0 {
		c.Retrying++
	}
	l.key = appendFinishedKey(l.key[:0], spaceFailed, found.bucket, tenantOf(e.Tenant), found.id)
	_ = b.Delete(l.key, nil)
	now := s.now()
	if !stays {
		s.setEvent(b, spaceEvent, &s.events, bucketOf(s.latest(now), hour), e)
	}
	again := standing{
		pending: pending{
			since: now, attempts: found.attempts, before: found.attempts, history: true, size: e.Size(),
			planned: found.planned, key: found.key,
		},
		due: now, list: found.list, replayOf: found.replayOf,
	}
	if err := s.returnToKey(b, found.id, &again.pending); err != nil {
		return delivery.PendingDelivery{}, err
	}
	return s.setReplayed(b, found.id, e, again), nil
}

// replayDelivered makes a delivery that names the one it repeats. Its event is stored again, as if accepted now.
func (s *Store) replayDelivered(b *pebble.Batch, found *entry, e delivery.Event) delivery.PendingDelivery {
	at, now := s.acceptances(1)
	e.Key = event.NewKey(moment(at), e.Tenant, e.ID)
	s.setEvent(b, spaceEvent, &s.events, bucketOf(at, hour), &e)
	due := at
	if at > now+uint64(maxSkew) {
		due = now // the clock was set back
	}
	id := event.DeliveryID{Event: e.Key, Subscription: found.id.Subscription}
	return s.setReplayed(b, id, &e, standing{
		pending: pending{since: at, history: true, size: e.Size()}, due: due, replayOf: found.id,
	})
}

func (s *Store) setReplayed(b *pebble.Batch, id event.DeliveryID, e *delivery.Event, st standing) delivery.PendingDelivery {
	s.setPending(b, id, &st)
	d := st.pending.delivery(id.Subscription, id.Event, st.due)
	d.Event = e
	return d
}
