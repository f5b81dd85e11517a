package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Own gives owner every shard: nobody else has the directory open.
func (s *Store) Own(ctx context.Context, owner delivery.Owner) error {
	s.setOwner(owner) // first: what is planned from now on, it is told; what was before, it finds
	defer s.setOwner(nil)
	for shard := range delivery.Shards {
		owner.Take(delivery.Lease{Shard: shard, Epoch: onlyEpoch})
	}
	<-ctx.Done()
	return nil
}

func (s *Store) setOwner(owner delivery.Owner) {
	s.owner.Lock()
	defer s.owner.Unlock()
	s.owner.is = owner
}

// onlyEpoch is that of every lease.
const onlyEpoch = 1

// Backlogs skips from one subscription to the next.
func (s *Store) Backlogs(ctx context.Context, shard int, yield func(delivery.Backlog) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	it, err := s.iterate(shardBounds(shard))
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; {
		if len(it.Key()) != pendingKeyLength {
			err = &DamagedError{Kind: kindPending}
			break
		}
		sub, due, _ := parsePendingKey(it.Key())
		if err = ctx.Err(); err == nil {
			err = yield(delivery.Backlog{Subscription: sub, Due: moment(due)})
		}
		ok = it.SeekGE(appendPendingKey(nil, sub, math.MaxUint64, event.Key{}))
	}
	return errors.Join(err, it.Error(), it.Close())
}

// shardBounds are the bounds of the pending deliveries of a shard's subscriptions.
func shardBounds(shard int) (lower, upper []byte) {
	const width = 256 / delivery.Shards
	upper = []byte{spacePending, byte((shard + 1) * width)}
	if shard == delivery.Shards-1 {
		upper = []byte{spacePending + 1}
	}
	return []byte{spacePending, byte(shard * width)}, upper
}

// iterate returns an iterator over the keys between the bounds.
func (s *Store) iterate(lower, upper []byte) (*pebble.Iterator, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	return it, nil
}

// Due reads the range from from to until.
func (s *Store) Due(ctx context.Context, sub event.SubscriptionKey, from delivery.Position, until time.Time, limit int, into []delivery.PendingDelivery) (found []delivery.PendingDelivery, next delivery.Position, ok bool, err error) {
	if err := s.enter(ctx); err != nil {
		return into, next, false, err
	}
	defer s.leave()
	mark := s.starts.mark(sub) // before the iterator sees what is committed
	bounds := make([]byte, 0, 2*pendingKeyLength)
	bounds = appendPendingKey(bounds, sub, nanos(from.Due), from.Event)
	bounds = appendPendingKey(bounds, sub, math.MaxUint64, event.Key{})
	it, err := s.iterate(bounds[:pendingKeyLength], bounds[pendingKeyLength:])
	if err != nil {
		return into, next, false, err
	}
	last, brought := nanos(until), len(into)
	for it.First(); it.Valid() && err == nil; it.Next() {
		if len(it.Key()) != pendingKeyLength {
			err = &DamagedError{Kind: kindPending}
			break
		}
		_, due, key := parsePendingKey(it.Key())
		if due > last || limit <= 0 {
			next, ok = delivery.Position{Due: moment(due), Event: key}, true
			break
		}
		var p pending
		if p, err = decodePending(key, it.Value()); err == nil {
			into = append(into, p.delivery(sub, key, due))
			if p.planned != 0 {
				into[len(into)-1].Mark = mark
			}
			limit--
		}
	}
	err = errors.Join(err, it.Error(), it.Close())
	if err == nil {
		s.bringEvents(into[brought:])
	}
	return into, next, ok && err == nil, err
}

// StillPending looks each key up with one iterator.
func (s *Store) StillPending(ctx context.Context, sub event.SubscriptionKey, at []delivery.Position) ([]bool, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	it, err := s.iterate(appendPendingKey(nil, sub, 0, event.Key{}), appendPendingKey(nil, sub, math.MaxUint64, event.Key{}))
	if err != nil {
		return nil, err
	}
	is, key := make([]bool, len(at)), make([]byte, 0, pendingKeyLength)
	for i, p := range at {
		key = appendPendingKey(key[:0], sub, nanos(p.Due), p.Event)
		if is[i] = it.SeekGE(key) && bytes.Equal(it.Key(), key); is[i] {
			continue
		}
		if err = it.Error(); err != nil {
			break
		}
	}
	return is, errors.Join(err, it.Close())
}

// maxBrought bounds the bodies that Due reads along, in bytes.
const maxBrought = 2 << 20

// bringEvents reads the events of the first of the deliveries along, all with one iterator: the engine would ask for each of
// them next. Those of ordered deliveries are not read, because most of them wait for another. What cannot be read is left out:
// Event says why.
func (s *Store) bringEvents(deliveries []delivery.PendingDelivery) {
	wanted := make([]*delivery.PendingDelivery, 0, len(deliveries))
	size := 0
	for i := range deliveries {
		if size += deliveries[i].Size; size > maxBrought {
			break
		}
		if deliveries[i].Order == 0 {
			wanted = append(wanted, &deliveries[i])
		}
	}
	if len(wanted) == 0 {
		return
	}
	slices.SortFunc(wanted, func(a, b *delivery.PendingDelivery) int { return bytes.Compare(a.ID.Event[:], b.ID.Event[:]) })
	s.dropping.RLock()
	defer s.dropping.RUnlock()
	it, err := s.iterate([]byte{spaceEvent}, []byte{spaceEvent + 1})
	if err != nil {
		return
	}
	defer func() { _ = it.Close() }()
	seek := make([]byte, 0, eventKeyLength)
	for _, d := range wanted {
		key := d.ID.Event
		seek = appendEventKey(seek[:0], spaceEvent, bucketOf(accepted(key), hour), key)
		if !it.SeekGE(seek) {
			break
		}
		if !bytes.Equal(it.Key(), seek) {
			continue
		}
		if e, err := decodeEvent(key, slices.Clone(it.Value())); err == nil {
			d.Event = e
		}
	}
}

func (p *pending) delivery(sub event.SubscriptionKey, key event.Key, due uint64) delivery.PendingDelivery {
	d := delivery.PendingDelivery{
		ID:  event.DeliveryID{Event: key, Subscription: sub},
		Due: moment(due), Since: moment(p.since), Attempts: p.attempts, AttemptsBefore: p.before,
		Order: p.order, Size: p.size,
	}
	if p.planned != 0 {
		d.Planned = moment(p.planned)
	}
	return d
}

// walkFresh visits sub's deliveries without a history that were accepted before the given time, oldest first.
// The value must not be kept.
func (s *Store) walkFresh(from pebble.Reader, sub event.SubscriptionKey, before uint64, visit func(key event.Key, value []byte) (more bool, err error)) error {
	it, err := from.NewIter(&pebble.IterOptions{
		LowerBound: appendPendingKey(nil, sub, 0, event.Key{}),
		UpperBound: appendPendingKey(nil, sub, before, event.Key{}),
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
		if value := it.Value(); isFresh(value) {
			_, _, key := parsePendingKey(it.Key())
			more, err = visit(key, value)
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}

// walkHistory visits sub's deliveries with a history whose events were accepted before the given time, oldest first.
func (s *Store) walkHistory(from pebble.Reader, sub event.SubscriptionKey, before uint64, visit func(key event.Key, value []byte) (more bool, err error)) error {
	upper := appendHistoryKey(nil, sub, event.Key{})
	for i, shift := 9, 56; shift >= 0; i, shift = i+1, shift-8 {
		upper[i] = byte(before >> shift)
	}
	it, err := from.NewIter(&pebble.IterOptions{LowerBound: appendHistoryKey(nil, sub, event.Key{}), UpperBound: upper})
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	more := true
	for it.First(); it.Valid() && more && err == nil; it.Next() {
		if len(it.Key()) != historyKeyLength {
			err = &DamagedError{Kind: kindHistory}
			break
		}
		more, err = visit(event.Key(it.Key()[9:]), it.Value())
	}
	return errors.Join(err, it.Error(), it.Close())
}

// Aged looks at deliveries whose events were accepted until since, and leaves out those that were replayed later.
func (s *Store) Aged(ctx context.Context, sub event.SubscriptionKey, since time.Time, limit int, into []delivery.PendingDelivery) ([]delivery.PendingDelivery, error) {
	if err := s.enter(ctx); err != nil {
		return into, err
	}
	defer s.leave()
	last := nanos(since)
	if limit <= 0 || last == 0 {
		return into, nil
	}
	err := s.walkComing(s.db, sub, last+1, func(due uint64, key event.Key) (bool, error) {
		found, err := s.pendingAt(s.db, event.DeliveryID{Event: key, Subscription: sub}, due)
		if err == nil && found.is {
			into = append(into, found.delivery(sub, key, due))
			limit--
		}
		return limit > 0, errors.Join(err, ctx.Err())
	})
	if err != nil || limit == 0 {
		return into, err
	}
	err = s.walkHistory(s.db, sub, last+1, func(key event.Key, value []byte) (bool, error) {
		h, err := decodeHistory(value)
		if err == nil && h.since <= last {
			into = append(into, h.delivery(sub, key, h.due))
			limit--
		}
		return limit > 0, errors.Join(err, ctx.Err())
	})
	if err != nil || limit == 0 {
		return into, err
	}
	err = s.walkFresh(s.db, sub, last+1, func(key event.Key, value []byte) (bool, error) {
		p, err := decodePending(key, value)
		into = append(into, p.delivery(sub, key, p.since))
		limit--
		return limit > 0, errors.Join(err, ctx.Err())
	})
	return into, err
}

// First walks the subscription's deliveries with the order in the order of their events.
func (s *Store) First(ctx context.Context, sub event.SubscriptionKey, order uint64) (delivery.PendingDelivery, bool, error) {
	if err := s.enter(ctx); err != nil {
		return delivery.PendingDelivery{}, false, err
	}
	defer s.leave()
	if order == 0 {
		return delivery.PendingDelivery{}, false, nil
	}
	prefix := appendOrderKey(nil, sub, order, event.Key{})[:orderKeyLength-len(event.Key{})]
	it, err := s.iterate(prefix, successor(prefix))
	if err != nil {
		return delivery.PendingDelivery{}, false, err
	}
	var first standing
	id := event.DeliveryID{Subscription: sub}
	for it.First(); it.Valid() && err == nil && !first.is; it.Next() {
		if len(it.Key()) != orderKeyLength {
			err = &DamagedError{Kind: kindPending}
			break
		}
		id.Event = event.Key(it.Key()[len(prefix):])
		first, err = s.pendingOf(s.db, id) // it may have finished since the iterator was made
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil || !first.is {
		return delivery.PendingDelivery{}, false, err
	}
	return first.delivery(sub, id.Event, first.due), true, nil
}

// OldestPending compares the oldest delivery with a history to the oldest without.
func (s *Store) OldestPending(ctx context.Context, sub event.SubscriptionKey) (time.Time, error) {
	if err := s.enter(ctx); err != nil {
		return time.Time{}, err
	}
	defer s.leave()
	oldest := uint64(math.MaxInt64)
	err := s.walkHistory(s.db, sub, oldest, func(key event.Key, _ []byte) (bool, error) {
		oldest = accepted(key)
		return false, nil
	})
	if err == nil {
		err = s.walkFresh(s.db, sub, oldest, func(key event.Key, _ []byte) (bool, error) {
			oldest = accepted(key)
			return false, nil
		})
	}
	if err == nil {
		err = s.walkComing(s.db, sub, min(oldest, s.now()+1), func(due uint64, _ event.Key) (bool, error) {
			oldest = due
			return false, nil
		})
	}
	if err != nil || oldest == math.MaxInt64 {
		return time.Time{}, err
	}
	return moment(oldest), nil
}

// manyRetrying is from where on it costs less to look at what is due next than at every delivery with a history.
const manyRetrying = 4096

// Retrying returns the deliveries that failed at least once and are pending, next due first.
func (s *Store) Retrying(ctx context.Context, sub event.SubscriptionKey, limit int) ([]store.RetryingDelivery, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	counts, err := s.counts(s.db, sub)
	if err != nil || counts.Retrying == 0 || limit <= 0 {
		return nil, err
	}
	s.dropping.RLock()
	defer s.dropping.RUnlock()
	var ids []dueDelivery
	if counts.Retrying < manyRetrying {
		ids, err = s.retryingByHistory(sub, limit)
	} else {
		ids, err = s.retryingByDue(ctx, sub, limit)
	}
	if err != nil {
		return nil, err
	}
	var found []store.RetryingDelivery
	for _, d := range ids {
		r, err := s.retrying(event.DeliveryID{Event: d.key, Subscription: sub})
		if err != nil {
			return nil, err
		}
		if r.Attempts > 0 {
			found = append(found, r)
		}
	}
	return found, nil
}

// dueDelivery is a pending delivery of a subscription and when it is due.
type dueDelivery struct {
	due uint64
	key event.Key
}

func (d dueDelivery) compare(other dueDelivery) int {
	if d.due != other.due {
		if d.due < other.due {
			return -1
		}
		return 1
	}
	return slices.Compare(d.key[:], other.key[:])
}

func (s *Store) retryingByHistory(sub event.SubscriptionKey, limit int) ([]dueDelivery, error) {
	var next []dueDelivery
	err := s.walkHistory(s.db, sub, math.MaxInt64, func(key event.Key, value []byte) (bool, error) {
		h, err := decodeHistory(value)
		if err != nil || h.attempts == 0 {
			return true, err
		}
		d := dueDelivery{h.due, key}
		i, _ := slices.BinarySearchFunc(next, d, dueDelivery.compare)
		if i < limit {
			next = slices.Insert(next[:min(len(next), limit-1)], i, d)
		}
		return true, nil
	})
	return next, err
}

func (s *Store) retryingByDue(ctx context.Context, sub event.SubscriptionKey, limit int) ([]dueDelivery, error) {
	it, err := s.iterate(appendPendingKey(nil, sub, 0, event.Key{}), appendPendingKey(nil, sub, math.MaxUint64, event.Key{}))
	if err != nil {
		return nil, err
	}
	var next []dueDelivery
	for it.First(); it.Valid() && len(next) < limit && err == nil; it.Next() {
		_, due, key := parsePendingKey(it.Key())
		var p pending
		if p, err = decodePending(key, it.Value()); err == nil && p.attempts > 0 {
			next = append(next, dueDelivery{due, key})
		}
		err = errors.Join(err, ctx.Err())
	}
	return next, errors.Join(err, it.Error(), it.Close())
}

// retrying returns what is shown of a retrying delivery; one that is not retrying any more has no attempts.
func (s *Store) retrying(id event.DeliveryID) (store.RetryingDelivery, error) {
	st, err := s.pendingOf(s.db, id)
	if err != nil || !st.is || st.attempts == 0 {
		return store.RetryingDelivery{}, err
	}
	e, err := s.findEvent(s.db, id.Event)
	if err != nil {
		return store.RetryingDelivery{}, err
	}
	r := store.RetryingDelivery{ID: id, Type: e.Type, Attempts: st.attempts, Due: moment(st.due)}
	if n := len(st.list); n > 0 {
		r.LastStatusCode = st.list[n-1].StatusCode
	}
	return r, nil
}

// Event returns the event of a pending delivery.
func (s *Store) Event(ctx context.Context, key event.Key) (*delivery.Event, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	s.dropping.RLock()
	defer s.dropping.RUnlock()
	return s.findEvent(s.db, key)
}

// findEvent asks the bucket of the event's acceptance, and then those that a store of format 1 may have moved it to.
// dropping is held.
func (s *Store) findEvent(from pebble.Reader, key event.Key) (*delivery.Event, error) {
	for _, bucket := range s.events.from(bucketOf(accepted(key), hour)) {
		if e, err := readEvent(from, spaceEvent, bucket, key); err != nil || e != nil {
			return e, err
		}
	}
	return nil, fmt.Errorf("find event %x: %w", key, store.ErrNotFound)
}

// readEvent returns the event if the bucket has it, else nil.
func readEvent(from pebble.Reader, space byte, bucket uint32, key event.Key) (e *delivery.Event, err error) {
	err = get(from, appendEventKey(make([]byte, 0, 24), space, bucket, key), func(value []byte) error {
		if value != nil {
			var err error
			e, err = decodeEvent(key, slices.Clone(value))
			return err
		}
		return nil
	})
	return e, err
}
