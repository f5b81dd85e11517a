package pebble

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// maxCached bounds how many subscriptions' counts are kept in memory between Records.
const maxCached = 16 << 10

// ledger is what changes the standing of deliveries. One goroutine at a time holds it.
type ledger struct {
	sync.Mutex
	// standings are those that the current batch changes, and stood where in it the newest of each delivery is.
	standings []standing
	stood     map[event.DeliveryID]int
	// changed are the counts that the current batch writes, keys the schedules' keys that it reads and writes.
	changed map[event.SubscriptionKey]*tally
	keys    map[planKey]*keyed
	// cancelled are the subscriptions of planned deliveries that the current batch ends without an attempt.
	cancelled []event.SubscriptionKey
	// cached are counts as they were written last.
	cached     map[event.SubscriptionKey]tally
	key, value []byte
}

// standing is where a delivery stands.
type standing struct {
	pending
	// is reports whether it is pending at all.
	is  bool
	due uint64
	// list and replayOf are there if they were read.
	read     bool
	list     []delivery.Attempt
	replayOf event.DeliveryID
}

// begin starts a batch.
func (l *ledger) begin() {
	if l.stood == nil {
		l.stood = map[event.DeliveryID]int{}
		l.changed = map[event.SubscriptionKey]*tally{}
		l.keys = map[planKey]*keyed{}
	}
	clear(l.stood)
	clear(l.standings)
	l.standings = l.standings[:0]
	clear(l.changed)
	clear(l.keys)
	l.cancelled = l.cancelled[:0]
}

// stands notes where a delivery stands with the current batch.
func (l *ledger) stands(id event.DeliveryID, st *standing) {
	l.stood[id] = len(l.standings)
	l.standings = append(l.standings, *st)
}

// changes returns where a delivery stands if the current batch changes it.
func (l *ledger) changes(id event.DeliveryID) (*standing, bool) {
	if i, ok := l.stood[id]; ok {
		return &l.standings[i], true
	}
	return nil, false
}

// Record writes outcomes without waiting for the log to be synced.
func (s *Store) Record(ctx context.Context, outcomes []delivery.Outcome) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	s.dropping.RLock()
	defer s.dropping.RUnlock()
	l := &s.ledger
	l.Lock()
	defer l.Unlock()
	l.begin()
	b := s.db.NewBatch()
	now := s.latest(s.now())
	for i := range outcomes {
		if err := s.record(b, &outcomes[i], now); err != nil {
			return errors.Join(fmt.Errorf("record the outcome of %s: %w", outcomes[i].Delivery.ID, err), b.Close())
		}
	}
	return s.commitLedger(b)
}

// Settle records outcomes, and waits until they are durable. They are in one order with those of Record.
func (s *Store) Settle(ctx context.Context, outcomes []delivery.Outcome) ([]bool, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	settled := make([]bool, len(outcomes))
	if err := s.settle(outcomes, settled); err != nil {
		return nil, err
	}
	if err := s.sync(); err != nil {
		return nil, fmt.Errorf("settle deliveries: %w", err)
	}
	return settled, nil
}

func (s *Store) settle(outcomes []delivery.Outcome, settled []bool) error {
	s.dropping.RLock()
	defer s.dropping.RUnlock()
	l := &s.ledger
	l.Lock()
	defer l.Unlock()
	l.begin()
	b := s.db.NewBatch()
	now := s.latest(s.now())
	for i := range outcomes {
		var err error
		if settled[i], err = s.settleOne(b, &outcomes[i], now); err != nil {
			return errors.Join(fmt.Errorf("settle %s: %w", outcomes[i].Delivery.ID, err), b.Close())
		}
	}
	return s.commitLedger(b)
}

// settleOne adds one outcome to the batch, if its delivery is pending where the outcome expects it.
func (s *Store) settleOne(b *pebble.Batch, o *delivery.Outcome, now uint64) (bool, error) {
	id, due := o.Delivery.ID, nanos(o.Delivery.Due)
	var before standing
	if known, ok := s.ledger.changes(id); ok {
		before = *known
	} else {
		var err error
		if before, err = s.pendingAt(s.db, id, due); err != nil {
			return false, err
		}
	}
	if !before.is || before.due != due {
		return false, nil
	}
	if err := s.readHistory(id, &before); err != nil {
		return false, err
	}
	sub, err := s.subscription(id.Subscription)
	if err != nil {
		return false, err
	}
	return true, s.apply(b, o, &before, sub.tenant, now)
}

// commitLedger writes the batch with the counts it changed.
func (s *Store) commitLedger(b *pebble.Batch) error {
	l := &s.ledger
	if b.Empty() {
		return b.Close()
	}
	for sub, counts := range l.changed {
		l.key = appendSubscriptionKey(l.key[:0], spaceCounts, sub)
		l.value = appendCounts(l.value[:0], counts)
		_ = b.Set(l.key, l.value, nil)
	}
	l.setKeys(b)
	if err := s.commit(b, pebble.NoSync); err != nil {
		return fmt.Errorf("record outcomes: %w", err)
	}
	s.starts.cancelled(l.cancelled)
	s.outcomes.wrote()
	for sub, counts := range l.changed {
		if _, ok := l.cached[sub]; !ok && len(l.cached) >= maxCached {
			clear(l.cached)
		}
		l.cached[sub] = *counts
	}
	return b.Close()
}

// record adds one outcome to the batch, unless its delivery is not pending any more.
func (s *Store) record(b *pebble.Batch, o *delivery.Outcome, now uint64) error {
	id := o.Delivery.ID
	s.starts.ended(id)
	before, err := s.standing(id, nanos(o.Delivery.Due))
	if err != nil {
		return err
	}
	if !before.is {
		return s.overrule(b, o, &before, now)
	}
	if err := s.readHistory(id, &before); err != nil {
		return err
	}
	sub, err := s.subscription(id.Subscription)
	if err != nil {
		return err
	}
	return s.apply(b, o, &before, sub.tenant, now)
}

// apply adds to the batch what follows from an outcome of a pending delivery, all of which was read.
func (s *Store) apply(b *pebble.Batch, o *delivery.Outcome, before *standing, owner tenant, now uint64) error {
	id := o.Delivery.ID
	after := *before
	if o.Attempt != nil {
		after.attempts = max(before.attempts+1, o.Attempt.Number)
		after.list = appendNewest(before.list, *o.Attempt)
	} else if before.planned != 0 {
		s.ledger.cancelled = append(s.ledger.cancelled, id.Subscription)
	}
	if err := s.remove(b, id, before); err != nil {
		return err
	}
	switch o.State {
	case delivery.Pending:
		after.due, after.history = nanos(o.Due), true
		s.setPending(b, id, &after)
	case delivery.Delivered, delivery.Failed, delivery.Cancelled:
		after.is = false
		if before.order != 0 {
			s.ledger.key = appendOrderKey(s.ledger.key[:0], id.Subscription, before.order, id.Event)
			_ = b.SingleDelete(s.ledger.key, nil)
		}
		s.starts.ended(id)
		s.leaveKey(b, id, before, now)
		s.finish(b, o, &after, owner, now)
	default:
		return fmt.Errorf("state %d does not follow an attempt", o.State)
	}
	s.ledger.stands(id, &after)
	return s.count(o, before, &after, now)
}

// standing finds out whether a delivery is pending. It is looked for where it is expected, due at the given time; then
// where its history says that it is, or where it was put when its event was accepted.
func (s *Store) standing(id event.DeliveryID, expected uint64) (standing, error) {
	if known, ok := s.ledger.changes(id); ok {
		return *known, nil
	}
	found, err := s.pendingAt(s.db, id, expected)
	if err != nil || found.is {
		return found, err
	}
	return s.pendingOf(s.db, id)
}

// pendingAt reads a delivery that is due at the given time.
func (s *Store) pendingAt(from pebble.Reader, id event.DeliveryID, due uint64) (standing, error) {
	found := standing{due: due}
	key := appendPendingKey(make([]byte, 0, pendingKeyLength), id.Subscription, due, id.Event)
	err := get(from, key, func(value []byte) (err error) {
		if value != nil {
			found.is = true
			found.pending, err = decodePending(id.Event, value)
		}
		return err
	})
	return found, err
}

// pendingOf reads a delivery wherever it is due.
func (s *Store) pendingOf(from pebble.Reader, id event.DeliveryID) (standing, error) {
	found := standing{due: accepted(id.Event)}
	key := appendHistoryKey(make([]byte, 0, historyKeyLength), id.Subscription, id.Event)
	for _, space := range [...]byte{spaceHistory, spaceWaiting} {
		key[0] = space
		err := get(from, key, func(value []byte) error {
			if value == nil {
				return nil
			}
			h, err := decodeHistory(value)
			found = standing{is: true, pending: h.pending, due: h.due, read: true, list: h.list, replayOf: h.replayOf}
			found.history = space == spaceHistory
			return err
		})
		if err != nil || found.is {
			return found, err
		}
	}
	return s.pendingAt(from, id, found.due)
}

// readHistory completes what is known of a pending delivery.
func (s *Store) readHistory(id event.DeliveryID, of *standing) error {
	if of.read || !of.history {
		return nil
	}
	full, err := s.pendingOf(s.db, id)
	if err != nil {
		return err
	}
	if !full.read {
		return &DamagedError{Kind: kindHistory}
	}
	of.read, of.list, of.replayOf = true, full.list, full.replayOf
	return nil
}

// remove takes a delivery from the place where it is pending.
func (s *Store) remove(b *pebble.Batch, id event.DeliveryID, of *standing) error {
	l := &s.ledger
	l.key = appendPendingKey(l.key[:0], id.Subscription, of.due, id.Event)
	_ = b.SingleDelete(l.key, nil)
	if of.history {
		l.key = appendHistoryKey(l.key[:0], id.Subscription, id.Event)
		_ = b.Delete(l.key, nil)
	}
	if !of.waiting() {
		return nil
	}
	l.key = appendWaitingKey(l.key[:0], id.Subscription, id.Event)
	_ = b.SingleDelete(l.key, nil)
	l.key = appendComingKey(l.key[:0], id.Subscription, of.due, id.Event)
	_ = b.SingleDelete(l.key, nil)
	c, err := l.counts(s, id.Subscription)
	if err == nil {
		c.scheduled--
	}
	return err
}

// setPending puts a delivery among those that are pending.
func (s *Store) setPending(b *pebble.Batch, id event.DeliveryID, of *standing) {
	l := &s.ledger
	of.is, of.read = true, true
	h := history{pending: of.pending, due: of.due, replayOf: of.replayOf, list: of.list}
	l.key = appendPendingKey(l.key[:0], id.Subscription, of.due, id.Event)
	l.value = h.pending.append(l.value[:0])
	_ = b.Set(l.key, l.value, nil)
	l.key = appendHistoryKey(l.key[:0], id.Subscription, id.Event)
	l.value = h.append(l.value[:0])
	_ = b.Set(l.key, l.value, nil)
}

// finish files a delivery under the time it finished, with a reference to its event where that may go sooner. It writes
// a few dozen bytes, whatever the size of the event.
func (s *Store) finish(b *pebble.Batch, o *delivery.Outcome, of *standing, owner tenant, now uint64) {
	id := o.Delivery.ID
	l := &s.ledger
	space, live, bucket := byte(spaceDelivered), &s.delivered, bucketOf(now, hour)
	if o.State != delivery.Delivered {
		space, live, bucket = spaceFailed, &s.failed, bucketOf(now, day)
	}
	live.add(bucket)
	switch {
	case o.State != delivery.Delivered:
		l.key = appendEventKey(l.key[:0], spaceFailedEvent, bucket, id.Event)
		_ = b.Set(l.key, nil, nil)
	case s.isLate(id.Event, bucket):
		l.key = appendEventKey(l.key[:0], spaceLate, bucket, id.Event)
		_ = b.Set(l.key, nil, nil)
	}
	l.key = appendFinishedKey(l.key[:0], space, bucket, owner, id)
	l.value = (&finished{
		state: o.State, reason: o.Reason, attempts: of.attempts, replayOf: of.replayOf, list: of.list, planned: of.planned, key: of.key,
	}).append(l.value[:0])
	_ = b.Set(l.key, l.value, nil)
}

// isLate reports whether the event of a delivery that is delivered in the given hour would go before the delivery's
// record: an event's bucket is kept for an hour longer than its deliveries', unless space was short. The ledger is held.
func (s *Store) isLate(key event.Key, bucket uint32) bool {
	return bucketOf(accepted(key), hour)+1 < bucket || accepted(key) < s.horizon.Load()
}

// count adds an outcome to its subscription's counts.
func (s *Store) count(o *delivery.Outcome, before, after *standing, now uint64) error {
	c, err := s.ledger.counts(s, o.Delivery.ID.Subscription)
	if err != nil {
		return err
	}
	if before.attempts > 0 {
		c.Retrying--
	}
	switch o.State {
	case delivery.Pending:
		if after.attempts > 0 {
			c.Retrying++
		}
	case delivery.Delivered:
		c.Delivered++
		c.FailuresInARow, c.Gone = 0, 0
		c.LastDelivered = later(c.LastDelivered, answered(o.Attempt, now))
	case delivery.Failed:
		c.Failed++
	case delivery.Cancelled:
		c.Cancelled++
	}
	if o.Attempt != nil && o.State != delivery.Delivered {
		c.FailuresInARow++
		if !o.Attempt.Started.Before(c.LastFailure.Started) {
			c.LastFailure = *o.Attempt
		}
	}
	if o.Gone != 0 {
		c.Gone = o.Gone
	}
	return nil
}

// answered is when the attempt was answered.
func answered(a *delivery.Attempt, now uint64) time.Time {
	if a == nil {
		return moment(now)
	}
	return a.Started.Add(a.Duration)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// counts returns the subscription's counts for the current batch to change.
func (l *ledger) counts(s *Store, sub event.SubscriptionKey) (*tally, error) {
	if c := l.changed[sub]; c != nil {
		return c, nil
	}
	counts, ok := l.cached[sub]
	if !ok {
		var err error
		if counts, err = s.counts(s.db, sub); err != nil {
			return nil, err
		}
	}
	l.changed[sub] = &counts
	return &counts, nil
}

// appendNewest adds an attempt to the newest that are kept.
func appendNewest(list []delivery.Attempt, a delivery.Attempt) []delivery.Attempt {
	kept := list[max(0, len(list)-store.MaxAttempts+1):]
	return append(kept[:len(kept):len(kept)], a)
}
