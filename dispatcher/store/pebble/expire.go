package pebble

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// moveBytes is how much of events is moved in one batch.
const moveBytes = 1 << 20

// Expire drops what is older at the given time than the store's retention: whole buckets, the newest part of which has
// been kept for long enough. The store does so by itself, once a minute.
func (s *Store) Expire(now time.Time) error {
	if err := s.enter(s.closing); err != nil {
		return err
	}
	defer s.leave()
	s.expiring.Lock()
	defer s.expiring.Unlock()
	ns := s.latest(nanos(now))
	if last, ok := endedBefore(ns, s.options.Retention.Delivered, hour); ok {
		if err := s.drop(&s.delivered, last, spaceDelivered); err != nil {
			return err
		}
		// An event may be kept for a delivery that finished in the hour after its own.
		if err := s.dropEvents(last, ns); err != nil {
			return err
		}
	}
	if last, ok := endedBefore(ns, s.options.Retention.Failed, day); ok {
		if err := s.drop(&s.failed, last, spaceFailed, spaceFailedEvent); err != nil {
			return err
		}
	}
	return s.forget(ns)
}

// endedBefore returns the newest bucket that ended at least the given time ago.
func endedBefore(ns uint64, ago time.Duration, width uint64) (bucket uint32, ok bool) {
	if ns < uint64(ago)+width {
		return 0, false
	}
	return bucketOf(ns-uint64(ago)-width, width), true
}

// drop drops the buckets until last in the given keyspaces.
func (s *Store) drop(live *buckets, last uint32, spaces ...byte) error {
	last, ok := live.expired(last)
	if !ok {
		return nil
	}
	b := s.db.NewBatch()
	for _, space := range spaces {
		_ = b.DeleteRange(appendBucketKey(nil, space, 0), appendBucketKey(nil, space, last+1), nil)
	}
	s.dropping.Lock()
	defer s.dropping.Unlock()
	// Durable, so that what was dropped does not come back after a power failure.
	if err := s.commit(b, pebble.Sync); err != nil {
		return fmt.Errorf("drop buckets: %w", err)
	}
	live.drop(last)
	return b.Close()
}

// dropEvents drops the events' buckets before last, after it moved what is owed to the present one.
func (s *Store) dropEvents(last uint32, now uint64) error {
	if last == 0 {
		return nil
	}
	last, ok := s.events.expired(last - 1)
	if !ok {
		return nil
	}
	m := &move{store: s, last: last, to: bucketOf(now, hour), moved: map[event.Key]struct{}{}}
	if err := m.run(); err != nil {
		return fmt.Errorf("move events that are owed: %w", err)
	}
	return s.drop(&s.events, last, spaceEvent)
}

// forget drops the ids that no event of today can meet.
func (s *Store) forget(now uint64) error {
	today := bucketOf(now, day)
	if today < 2 {
		return nil
	}
	last, ok := s.ids.expired(today - 2)
	if !ok {
		return nil
	}
	b := s.db.NewBatch()
	_ = b.DeleteRange(appendBucketKey(nil, spaceIdempotency, 0), appendBucketKey(nil, spaceIdempotency, last+1), nil)
	if err := s.commit(b, pebble.NoSync); err != nil {
		return fmt.Errorf("drop ids: %w", err)
	}
	s.ids.drop(last)
	s.idFilter.drop(last)
	return b.Close()
}

// move is the work of moving the events of pending deliveries out of buckets that are to be dropped. A delivery that
// becomes pending while it runs brings its event along, or has it in a bucket that stays.
type move struct {
	store *Store
	last  uint32 // the newest bucket that is to be dropped
	to    uint32
	batch *pebble.Batch
	moved map[event.Key]struct{} // by the batch
	bytes int
}

func (m *move) run() error {
	// One view of everything: a delivery that is attempted meanwhile is found either as it was or as it is.
	snapshot := m.store.db.NewSnapshot()
	m.batch = m.store.db.NewBatch()
	err := m.walk(snapshot)
	if err == nil {
		err = m.flush()
	}
	return errors.Join(err, m.batch.Close(), snapshot.Close())
}

// walk visits every pending delivery whose event was accepted before the end of the last bucket.
func (m *move) walk(snapshot *pebble.Snapshot) error {
	end := (uint64(m.last) + 1) * hour
	it, err := snapshot.NewIter(&pebble.IterOptions{LowerBound: []byte{spacePending}, UpperBound: []byte{spacePending + 1}})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; {
		if len(it.Key()) != pendingKeyLength {
			err = &DamagedError{Kind: kindPending}
			break
		}
		sub, _, _ := parsePendingKey(it.Key())
		visit := func(key event.Key, _ []byte) (bool, error) { return true, m.event(key) }
		if err = m.store.walkFresh(snapshot, sub, end, visit); err == nil {
			err = m.store.walkHistory(snapshot, sub, end, visit)
		}
		ok = it.SeekGE(appendPendingKey(nil, sub, math.MaxUint64, event.Key{}))
	}
	return errors.Join(err, it.Error(), it.Close())
}

// event moves an event, unless a bucket that stays has it.
func (m *move) event(key event.Key) error {
	if err := m.store.closing.Err(); err != nil {
		return err
	}
	if _, done := m.moved[key]; done {
		return nil
	}
	s := m.store
	var old *delivery.Event
	for _, bucket := range s.events.from(bucketOf(accepted(key), hour)) {
		e, err := readEvent(s.db, spaceEvent, bucket, key)
		if err != nil {
			return err
		}
		if e != nil && bucket > m.last {
			return nil
		}
		if e != nil {
			old = e
		}
	}
	if old == nil {
		s.options.Logger.Error(nil, "The event of a pending delivery is missing", "accepted", key.Accepted())
		return nil
	}
	s.setEvent(m.batch, spaceEvent, &s.events, m.to, old)
	m.moved[key] = struct{}{}
	m.bytes += len(old.Body)
	if m.bytes >= moveBytes {
		return m.flush()
	}
	return nil
}

func (m *move) flush() error {
	if !m.batch.Empty() {
		if err := m.store.commit(m.batch, pebble.NoSync); err != nil {
			return err
		}
	}
	if err := m.batch.Close(); err != nil {
		return err
	}
	m.batch, m.bytes = m.store.db.NewBatch(), 0
	clear(m.moved)
	return nil
}
