package pebble

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// starts are planned deliveries that are being attempted, and those that an Append is about to decide on. They have a lock of
// their own, so that attempts do not wait for each other's outcomes to be written.
type starts struct {
	sync.Mutex
	// under way: Start let them be attempted, and they have no outcome yet. The engine bounds them, as it bounds what is in
	// flight.
	under map[event.DeliveryID]struct{}
	// claimed by the holder of the ledger, who found that they had not started.
	claimed map[event.DeliveryID]struct{}
	// ends count the planned deliveries that ended without an attempt, each those of some of the subscriptions.
	ends [256]uint64
}

// begin notes that a delivery starts. It returns false if that is for the holder of the ledger to decide. unchanged reports
// whether no delivery of its subscription was cancelled since the mark was taken.
func (s *starts) begin(id event.DeliveryID, mark uint64) (begun, unchanged bool) {
	s.Lock()
	defer s.Unlock()
	if _, claimed := s.claimed[id]; claimed {
		return false, false
	}
	s.under[id] = struct{}{}
	return true, mark == *s.endsOf(id.Subscription)+1
}

// mark is taken before a subscription's planned deliveries are read; 0 is none.
func (s *starts) mark(sub event.SubscriptionKey) uint64 {
	s.Lock()
	defer s.Unlock()
	return *s.endsOf(sub) + 1
}

// cancelled is called when it is committed that deliveries of the subscriptions ended without an attempt, and before that is
// acknowledged.
func (s *starts) cancelled(subs []event.SubscriptionKey) {
	s.Lock()
	defer s.Unlock()
	for _, sub := range subs {
		*s.endsOf(sub)++
	}
}

func (s *starts) endsOf(sub event.SubscriptionKey) *uint64 { return &s.ends[sub[0]] }

// claim reports whether a delivery has started. If not, it does not start before release. The ledger is held.
func (s *starts) claim(id event.DeliveryID) (started bool) {
	s.Lock()
	defer s.Unlock()
	if _, started = s.under[id]; !started {
		s.claimed[id] = struct{}{}
	}
	return started
}

// release ends the claims of the holder of the ledger, once what it decided is committed.
func (s *starts) release() {
	s.Lock()
	defer s.Unlock()
	clear(s.claimed)
}

func (s *starts) ended(id event.DeliveryID) {
	s.Lock()
	defer s.Unlock()
	delete(s.under, id)
}

// Start notes in memory that the delivery is on its way, if it is pending. Until its outcome is recorded, a plan does not
// replace it. After a restart it has not started.
//
// Who plans at the same time either finds the note or has claimed the delivery first. Without a claim, one that waits for its
// first attempt starts without the ledger: what cancels it and is not committed yet comes after. It is not even read, unless
// one of the subscription's was cancelled since Due found it.
func (s *Store) Start(ctx context.Context, d delivery.PendingDelivery) (bool, error) {
	if err := s.enter(ctx); err != nil {
		return false, err
	}
	defer s.leave()
	id := d.ID
	if begun, unchanged := s.starts.begin(id, d.Mark); begun {
		if unchanged && d.Attempts == 0 {
			return true, nil
		}
		waits, err := s.isWaiting(id)
		if err == nil && waits {
			return true, nil
		}
		s.starts.ended(id)
		if err != nil {
			return false, err
		}
	}
	return s.startInOrder(id)
}

// isWaiting reports whether a planned delivery waits for its first attempt.
func (s *Store) isWaiting(id event.DeliveryID) (waits bool, err error) {
	key := appendWaitingKey(make([]byte, 0, historyKeyLength), id.Subscription, id.Event)
	err = get(s.db, key, func(value []byte) error {
		waits = value != nil
		return nil
	})
	return waits, err
}

// startInOrder starts a delivery with the ledger in hand: it may be where a write under way just moves it.
func (s *Store) startInOrder(id event.DeliveryID) (bool, error) {
	s.ledger.Lock()
	defer s.ledger.Unlock()
	st, err := s.pendingOf(s.db, id)
	if err != nil || !st.is {
		return false, err
	}
	if st.planned != 0 {
		s.starts.begin(id, 0)
	}
	return true, nil
}

// overruled are the reasons of deliveries that are cancelled while an attempt may be on its way.
var overruled = []delivery.Reason{delivery.ReasonCancelledByEvent, delivery.ReasonByUser, delivery.ReasonReplaced}

// overrule makes a delivery that was cancelled Delivered if that is what came of the attempt that was on its way.
func (s *Store) overrule(b *pebble.Batch, o *delivery.Outcome, before *standing, now uint64) error {
	id := o.Delivery.ID
	if _, changed := s.ledger.changes(id); changed || o.State != delivery.Delivered || o.Attempt == nil {
		return nil
	}
	sub, err := s.subscription(id.Subscription)
	if err != nil {
		return err
	}
	f, bucket, err := s.cancelledBy(sub.tenant, id)
	if err != nil || f == nil {
		return err
	}
	s.ledger.key = appendFinishedKey(s.ledger.key[:0], spaceFailed, bucket, sub.tenant, id)
	_ = b.Delete(s.ledger.key, nil)
	c, err := s.ledger.counts(s, id.Subscription)
	if err != nil {
		return err
	}
	c.Cancelled = max(0, c.Cancelled-1)
	after := standing{
		pending: pending{attempts: max(f.attempts+1, o.Attempt.Number), planned: f.planned, key: f.key},
		list:    appendNewest(f.list, *o.Attempt), replayOf: f.replayOf,
	}
	s.finish(b, o, &after, sub.tenant, now)
	s.ledger.stands(id, &after)
	return s.count(o, before, &after, now)
}

// cancelledBy returns the record of a delivery that an event or a user cancelled, which may have been while its attempt was
// on its way; nil if there is none such.
func (s *Store) cancelledBy(owner tenant, id event.DeliveryID) (found *finished, in uint32, err error) {
	for _, bucket := range s.failed.from(bucketOf(accepted(id.Event), day)) {
		key := appendFinishedKey(make([]byte, 0, finishedKeyLength), spaceFailed, bucket, owner, id)
		err := get(s.db, key, func(value []byte) error {
			if value == nil {
				return nil
			}
			f, err := decodeFinished(value)
			if slices.Contains(overruled, f.reason) {
				found, in = &f, bucket
			}
			return err
		})
		if err != nil || found != nil {
			return found, in, err
		}
	}
	return nil, 0, nil
}

// SendNow makes a delivery due now.
func (s *Store) SendNow(ctx context.Context, namespace string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	var d delivery.PendingDelivery
	if s.full.Load() {
		return d, store.ErrFull
	}
	err := s.change(ctx, namespace, id, func(b *pebble.Batch, st *standing) error {
		e, err := s.findEvent(s.db, id.Event)
		if err != nil {
			return err
		}
		if err := s.remove(b, id, st); err != nil {
			return err
		}
		st.due, st.history = s.now(), true
		st.since = min(st.since, st.due)
		s.setPending(b, id, st)
		d = st.pending.delivery(id.Subscription, id.Event, st.due)
		d.Event = e
		return nil
	})
	if err != nil {
		return delivery.PendingDelivery{}, fmt.Errorf("send %s now: %w", id, err)
	}
	return d, nil
}

// Cancel ends a delivery, also if the store is full: that needs no more than what was set aside for its end.
func (s *Store) Cancel(ctx context.Context, namespace string, id event.DeliveryID) error {
	err := s.change(ctx, namespace, id, func(b *pebble.Batch, st *standing) error {
		o := delivery.Outcome{Delivery: delivery.PendingDelivery{ID: id}, State: delivery.Cancelled, Reason: delivery.ReasonByUser}
		return s.apply(b, &o, st, tenantOf(namespace), s.latest(s.now()))
	})
	if err != nil {
		return fmt.Errorf("cancel %s: %w", id, err)
	}
	return nil
}

// change changes a pending delivery of the namespace, with the ledger in hand, and waits until that is durable.
func (s *Store) change(ctx context.Context, namespace string, id event.DeliveryID, with func(b *pebble.Batch, st *standing) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if err := s.changeNow(namespace, id, with); err != nil {
		return err
	}
	return s.sync()
}

func (s *Store) changeNow(namespace string, id event.DeliveryID, with func(b *pebble.Batch, st *standing) error) error {
	s.dropping.RLock()
	defer s.dropping.RUnlock()
	l := &s.ledger
	l.Lock()
	defer l.Unlock()
	l.begin()
	found, err := s.find(s.db, namespace, id)
	if err != nil {
		return err
	}
	if _, _, err := s.eventOf(s.db, namespace, &found); err != nil {
		return err
	}
	if found.state != delivery.Pending {
		return store.ErrNotPending
	}
	st, err := s.pendingOf(s.db, id)
	if err != nil {
		return err
	}
	b := s.db.NewBatch()
	if err := with(b, &st); err != nil {
		return errors.Join(err, b.Close())
	}
	return s.commitLedger(b)
}

// Scheduled subtracts those whose time has come from those that were not attempted.
func (s *Store) Scheduled(ctx context.Context, sub event.SubscriptionKey) (count int64, next time.Time, err error) {
	if err := s.enter(ctx); err != nil {
		return 0, time.Time{}, err
	}
	defer s.leave()
	snapshot := s.db.NewSnapshot()
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	c, err := s.counts(snapshot, sub)
	if err != nil || c.scheduled <= 0 {
		return 0, time.Time{}, err
	}
	now := s.now()
	count = c.scheduled
	err = s.walkComing(snapshot, sub, math.MaxUint64, func(due uint64, _ event.Key) (bool, error) {
		if due > now {
			next = moment(due)
			return false, nil
		}
		count--
		return true, ctx.Err()
	})
	if err != nil || next.IsZero() {
		return 0, time.Time{}, err
	}
	return count, next, nil
}

// walkComing visits the deliveries that were not attempted and whose planned time is before the given one, earliest first.
func (s *Store) walkComing(from pebble.Reader, sub event.SubscriptionKey, before uint64, visit func(due uint64, key event.Key) (more bool, err error)) error {
	it, err := from.NewIter(&pebble.IterOptions{
		LowerBound: appendComingKey(nil, sub, 0, event.Key{}),
		UpperBound: appendComingKey(nil, sub, before, event.Key{}),
	})
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	more := true
	for it.First(); it.Valid() && more && err == nil; it.Next() {
		if len(it.Key()) != pendingKeyLength {
			err = &DamagedError{Kind: kindPending}
			break
		}
		_, due, key := parsePendingKey(it.Key())
		more, err = visit(due, key)
	}
	return errors.Join(err, it.Error(), it.Close())
}
