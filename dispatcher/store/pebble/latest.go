package pebble

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
)

const (
	// lateEvents is for how long after the end of a key's latest delivery an older event changes nothing, at least.
	lateEvents = 72 * time.Hour
	// endedAtOnce bounds how many deliveries of one key an event ends. A key has more than a few only if its endpoint fails
	// while events of the key come all the time.
	endedAtOnce = 256
	// forgottenAtOnce is how many keys are forgotten with the ledger in hand.
	forgottenAtOnce = 1024
)

// keyed is what the current batch knows of a schedule's key.
type keyed struct {
	latest
	exists, changed bool
	// added are the deliveries that the batch plans for the key.
	added []event.Key
}

// keyOf returns what is known of a key, for the current batch to change.
func (l *ledger) keyOf(s *Store, k planKey) (*keyed, error) {
	if of := l.keys[k]; of != nil {
		return of, nil
	}
	of := &keyed{}
	l.key = appendLatestKey(l.key[:0], k)
	err := get(s.db, l.key, func(value []byte) (err error) {
		if value != nil {
			of.exists = true
			of.latest, err = decodeLatest(value)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	l.keys[k] = of
	return of, nil
}

// set makes the delivery of an event the latest of the key. ended is 0 if it is pending.
func (of *keyed) set(k latest) {
	of.latest, of.exists, of.changed = k, true, true
}

// setKeys writes what changed, and files what has ended under the day on which it did.
func (l *ledger) setKeys(b *pebble.Batch) {
	for k, of := range l.keys {
		if !of.changed {
			continue
		}
		l.key = appendLatestKey(l.key[:0], k)
		l.value = of.append(l.value[:0])
		_ = b.Set(l.key, l.value, nil)
		if of.ended != 0 {
			l.key = appendForgetKey(l.key[:0], bucketOf(of.ended, day), k)
			_ = b.Set(l.key, nil, nil)
		}
	}
}

// latestOf is what package plan asks about a key; nil if nothing is known of it.
func (s *Store) latestOf(k planKey, of *keyed) (*plan.Latest, error) {
	if !of.exists {
		return nil, nil
	}
	known := &plan.Latest{State: plan.Ended, Timestamp: of.timestamp}
	if of.ended != 0 {
		return known, nil
	}
	id := event.DeliveryID{Event: of.event, Subscription: k.sub}
	started := s.starts.claim(id) // before it is read: what starts from now on waits for the ledger
	st, err := s.standingOf(id)
	if err == nil && st.is {
		known.State = plan.Waiting
		if started || st.attempts > 0 {
			known.State = plan.Started
		}
	}
	return known, err
}

// standingOf returns where a delivery stands, with the current batch, and with its history.
func (s *Store) standingOf(id event.DeliveryID) (standing, error) {
	known, ok := s.ledger.changes(id)
	if !ok {
		return s.pendingOf(s.db, id)
	}
	st := *known
	if !st.is {
		return st, nil
	}
	err := s.readHistory(id, &st)
	return st, err
}

// end cancels a delivery if it is pending.
func (s *Store) end(b *pebble.Batch, id event.DeliveryID, reason delivery.Reason, owner tenant, now uint64) error {
	st, err := s.standingOf(id)
	if err != nil || !st.is {
		return err
	}
	o := delivery.Outcome{Delivery: delivery.PendingDelivery{ID: id}, State: delivery.Cancelled, Reason: reason}
	return s.apply(b, &o, &st, owner, now)
}

// endKey cancels the pending deliveries of a key, newest first.
func (s *Store) endKey(b *pebble.Batch, k planKey, of *keyed, owner tenant, now uint64) error {
	events, err := s.pendingOfKey(k)
	if err != nil {
		return err
	}
	for _, e := range append(events, of.added...) {
		id := event.DeliveryID{Event: e, Subscription: k.sub}
		if err := s.end(b, id, delivery.ReasonCancelledByEvent, owner, now); err != nil {
			return err
		}
	}
	return nil
}

// pendingOfKey returns the events of the newest pending deliveries of a key, but for those of the current batch.
func (s *Store) pendingOfKey(k planKey) (events []event.Key, err error) {
	prefix := appendKeyedKey(nil, k, event.Key{})[:1+planKeyLength]
	it, err := s.iterate(prefix, successor(prefix))
	if err != nil {
		return nil, err
	}
	for ok := it.Last(); ok && len(events) < endedAtOnce; ok = it.Prev() {
		if len(it.Key()) != keyedKeyLength {
			err = &DamagedError{Kind: kindPending}
			break
		}
		events = append(events, event.Key(it.Key()[len(prefix):]))
	}
	return events, errors.Join(err, it.Error(), it.Close())
}

// enterKey puts a pending delivery among those of its key.
func (s *Store) enterKey(b *pebble.Batch, id event.DeliveryID, p *pending) {
	if p.planned == 0 || p.key.IsZero() {
		return
	}
	s.ledger.key = appendKeyedKey(s.ledger.key[:0], planKey{id.Subscription, p.key}, id.Event)
	_ = b.Set(s.ledger.key, nil, nil)
}

// leaveKey takes a delivery that ends from those of its key, and files the key under the day. It reads nothing: what is known
// of the key need not say that its latest delivery has ended, because nothing is pending then.
func (s *Store) leaveKey(b *pebble.Batch, id event.DeliveryID, before *standing, now uint64) {
	if before.planned == 0 || before.key.IsZero() {
		return
	}
	l, k := &s.ledger, planKey{id.Subscription, before.key}
	l.key = appendKeyedKey(l.key[:0], k, id.Event)
	_ = b.Delete(l.key, nil)
	l.key = appendForgetKey(l.key[:0], bucketOf(now, day), k)
	_ = b.Set(l.key, nil, nil)
}

// returnToKey is for a delivery that is replayed: it is one of its key's again.
func (s *Store) returnToKey(b *pebble.Batch, id event.DeliveryID, p *pending) error {
	if p.planned == 0 || p.key.IsZero() {
		return nil
	}
	of, err := s.ledger.keyOf(s, planKey{id.Subscription, p.key})
	if err != nil {
		return err
	}
	if of.exists && of.event == id.Event && of.ended != 0 {
		of.ended, of.changed = 0, true
	}
	s.enterKey(b, id, p)
	return nil
}

// forgetKeys drops what is known of the keys whose latest deliveries ended long ago.
func (s *Store) forgetKeys(now uint64) error {
	last, ok := endedBefore(now, lateEvents, day)
	for more := ok; more; {
		if err := s.closing.Err(); err != nil {
			return err
		}
		var err error
		if more, err = s.forgetSomeKeys(last, now); err != nil {
			return fmt.Errorf("drop keys of schedules: %w", err)
		}
	}
	return nil
}

// forgetSomeKeys reports whether there may be more.
func (s *Store) forgetSomeKeys(last uint32, now uint64) (bool, error) {
	l := &s.ledger
	l.Lock()
	defer l.Unlock()
	it, err := s.iterate([]byte{spaceForget}, appendBucketKey(nil, spaceForget, last+1))
	if err != nil {
		return false, err
	}
	b := s.db.NewBatch()
	n := 0
	for ok := it.First(); ok && n < forgottenAtOnce && err == nil; ok = it.Next() {
		if n++; len(it.Key()) != forgetKeyLength {
			err = &DamagedError{Kind: kindLatest}
			break
		}
		_ = b.Delete(it.Key(), nil)
		var over bool
		k := parsePlanKey(it.Key()[5:])
		if over, err = s.isOver(k, last, now); over {
			l.key = appendLatestKey(l.key[:0], k)
			_ = b.Delete(l.key, nil)
		}
	}
	if err = errors.Join(err, it.Error(), it.Close()); err == nil && n > 0 {
		err = s.commit(b, pebble.NoSync)
	}
	return n == forgottenAtOnce, errors.Join(err, b.Close())
}

// isOver reports whether the latest delivery of a key ended on the given day or before.
func (s *Store) isOver(k planKey, last uint32, now uint64) (bool, error) {
	var of latest
	err := get(s.db, appendLatestKey(nil, k), func(value []byte) (err error) {
		if value != nil {
			of, err = decodeLatest(value)
		}
		return err
	})
	if err != nil || of.ended != 0 {
		return err == nil && bucketOf(of.ended, day) <= last, err
	}
	st, err := s.pendingOf(s.db, event.DeliveryID{Event: of.event, Subscription: k.sub})
	if err != nil || st.is {
		return false, err
	}
	later := false
	for bucket := last + 1; bucket <= bucketOf(now, day) && err == nil && !later; bucket++ {
		err = get(s.db, appendForgetKey(nil, bucket, k), func(value []byte) error {
			later = value != nil
			return nil
		})
	}
	return err == nil && !later, err
}
