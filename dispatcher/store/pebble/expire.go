package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Expire drops what is older at the given time than the store's retention: whole buckets, the newest part of which has
// been kept for long enough, and the events that nothing refers to any more. The store does so by itself, once a minute.
func (s *Store) Expire(now time.Time) error {
	if err := s.enter(s.closing); err != nil {
		return err
	}
	defer s.leave()
	s.expiring.Lock()
	defer s.expiring.Unlock()
	ns := s.latest(nanos(now))
	retention := s.retention.Load()
	if last, ok := endedBefore(ns, retention.Failed, day); ok {
		dropped, err := s.drop(&s.failed, last, spaceFailed, spaceFailedEvent)
		if err != nil {
			return err
		}
		if dropped {
			s.sweeping.forget()
		}
	}
	if last, ok := endedBefore(ns, retention.Delivered, hour); ok {
		if _, err := s.drop(&s.delivered, last, spaceDelivered, spaceLate); err != nil {
			return err
		}
		// An event may be kept for a delivery that finished in the hour after its own.
		if err := s.sweep(uint64(last)*hour, ns); err != nil {
			return err
		}
	}
	if err := s.forgetKeys(ns); err != nil {
		return err
	}
	return s.forget(ns)
}

// Retain makes the store keep finished deliveries for as long as the arguments say from now on; see Retention. What was
// dropped before does not come back.
func (s *Store) Retain(delivered, failed time.Duration) {
	s.retention.Store(&Retention{Delivered: delivered, Failed: failed})
}

// endedBefore returns the newest bucket that ended at least the given time ago.
func endedBefore(ns uint64, ago time.Duration, width uint64) (bucket uint32, ok bool) {
	if ns < uint64(ago)+width {
		return 0, false
	}
	return bucketOf(ns-uint64(ago)-width, width), true
}

// drop drops the buckets until last in the given keyspaces, and reports whether there were some.
func (s *Store) drop(live *buckets, last uint32, spaces ...byte) (bool, error) {
	last, ok := live.expired(last)
	if !ok {
		return false, nil
	}
	b := s.db.NewBatch()
	for _, space := range spaces {
		_ = b.DeleteRange(appendBucketKey(nil, space, 0), appendBucketKey(nil, space, last+1), nil)
	}
	s.keepClock(b)
	if err := s.dropNow(live, last, b); err != nil {
		return false, fmt.Errorf("drop buckets: %w", err)
	}
	// Durable, so that what was dropped does not come back after a power failure. Readers do not wait for that.
	synced := s.db.NewBatch()
	_ = synced.LogData(nil, nil)
	if err := s.commit(synced, pebble.Sync); err != nil {
		return false, fmt.Errorf("sync dropped buckets: %w", err)
	}
	return true, errors.Join(b.Close(), synced.Close())
}

// dropNow lets no reader find anything in the buckets any more.
func (s *Store) dropNow(live *buckets, last uint32, b *pebble.Batch) error {
	s.dropping.Lock()
	defer s.dropping.Unlock()
	if err := s.commit(b, pebble.NoSync); err != nil {
		return err
	}
	live.drop(last)
	return nil
}

// keepClock notes the newest acceptance, whose event may be dropped.
func (s *Store) keepClock(b *pebble.Batch) {
	_ = b.Set(clockKey, binary.BigEndian.AppendUint64(appendHeader(nil), s.latest(0)), nil)
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

const (
	// roomPause is how long what was dropped has to leave the disk before more is dropped.
	roomPause = 2 * time.Second
	// appendMargin is how far from the present events are left alone, in nanoseconds: they may still be under way.
	appendMargin = uint64(10 * time.Second)
	// reclaimWait bounds the work of getting one hour off the disk.
	reclaimWait = 15 * time.Second
	// sliceBytes is how much is compacted at once to that end. It bounds the space that this needs.
	sliceBytes = 32 << 20
)

// makeRoom drops the oldest hour of delivered deliveries before its time, and the events that only they referred to.
// Nothing else is dropped before its time.
func (s *Store) makeRoom() error {
	if err := s.enter(s.closing); err != nil {
		return err
	}
	defer s.leave()
	s.look()
	if !s.space.low() {
		return nil
	}
	dropped, err := s.dropOldestHour()
	if err != nil || !dropped {
		return err
	}
	return s.reclaim()
}

// dropOldestHour reports whether there was an hour of history to drop.
func (s *Store) dropOldestHour() (bool, error) {
	s.expiring.Lock()
	defer s.expiring.Unlock()
	live := s.delivered.list()
	if len(live) == 0 {
		return false, nil
	}
	oldest := live[0]
	s.options.Logger.Info("Space is short: delivered deliveries are dropped before their time",
		"hour", moment(uint64(oldest)*hour).UTC().Format(time.RFC3339), "retention", s.retention.Load().Delivered.String())
	now := s.latest(s.now())
	if _, err := s.drop(&s.delivered, oldest, spaceDelivered, spaceLate); err != nil {
		return false, err
	}
	s.metrics.droppedEarly()
	s.sweeping.forget()
	// A delivery that is still kept refers to its event if that was accepted more than an hour before it finished.
	end := max(now, appendMargin) - appendMargin
	if rest := s.delivered.list(); len(rest) > 0 {
		end = min(end, uint64(max(rest[0], 1)-1)*hour)
	}
	return true, s.sweep(end, now)
}

// reclaim gets off the disk what was dropped. Tables that hold nothing else are dropped as they are. The others are
// compacted in slices, each of which needs little space.
func (s *Store) reclaim() error {
	ctx, cancel := context.WithTimeout(s.closing, reclaimWait)
	defer cancel()
	if err := s.db.Flush(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	spans := [][2][]byte{
		{{spaceDelivered}, {spaceDelivered + 1}},
		{{spaceEvent}, appendEventKey(nil, spaceEvent, bucketOf(s.horizon.Load(), hour), firstKey(s.horizon.Load()))},
	}
	for _, span := range spans {
		if err := s.compact(ctx, span[0], span[1]); err != nil {
			if ctx.Err() != nil && s.closing.Err() == nil {
				return nil // the rest comes with the next hour
			}
			return fmt.Errorf("compact: %w", err)
		}
	}
	return nil
}

// compact compacts what lies between the keys, a slice after another.
func (s *Store) compact(ctx context.Context, lower, upper []byte) error {
	size, err := s.db.EstimateDiskUsage(lower, upper)
	if err != nil || size == 0 {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if middle := between(lower, upper); size > sliceBytes && middle != nil {
		return errors.Join(s.compact(ctx, lower, middle), s.compact(ctx, middle, upper))
	}
	return s.db.Compact(ctx, lower, upper, false)
}

// between returns a key in the middle of two of the same keyspace, by their first 12 bytes after the space; nil if they
// are too close.
func between(lower, upper []byte) []byte {
	a, b := position(lower), position(upper)
	if upper[0] != lower[0] {
		b = math.MaxUint64
	}
	if b-a < uint64(time.Second) {
		return nil
	}
	middle := a + (b-a)/2
	return appendEventKey(nil, lower[0], bucketOf(middle, hour), firstKey(middle))
}

// position is the time that a key of a bucket of hours stands for.
func position(k []byte) uint64 {
	switch {
	case len(k) >= 13 && k[0] == spaceEvent:
		return binary.BigEndian.Uint64(k[5:13])
	case len(k) >= 5:
		return uint64(binary.BigEndian.Uint32(k[1:5])) * hour
	default:
		return 0
	}
}
