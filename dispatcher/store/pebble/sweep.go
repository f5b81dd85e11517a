package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
)

const (
	// keysAtOnce is how many events that are needed a sweep keeps in memory, at most twice: 4 MiB.
	keysAtOnce = 128 << 10
	// pointDeletes is how many events between two that are needed are deleted one by one. More go by a range.
	pointDeletes = 32
	// sweepBytes is how much of deletions is written in one batch.
	sweepBytes = 256 << 10
)

// sweeping is which of the events' buckets were swept. What is left in them is needed for a while.
type sweeping struct {
	mu    sync.Mutex
	swept map[uint32]struct{}
	since uint64
	// atOnce is how many needed events are kept in memory, at most twice.
	atOnce int
}

// forget makes all buckets due.
func (w *sweeping) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.swept = nil
}

// due returns those of the buckets that were not swept within the last day.
func (w *sweeping) due(live []uint32, now uint64) []uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.swept == nil || now >= w.since+day {
		w.swept, w.since = map[uint32]struct{}{}, now
	}
	return slices.DeleteFunc(slices.Clone(live), func(bucket uint32) bool {
		_, done := w.swept[bucket]
		return done
	})
}

func (w *sweeping) done(bucket uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.swept != nil {
		w.swept[bucket] = struct{}{}
	}
}

// sweep drops the events that were accepted before the horizon, in Unix nanoseconds, and that neither a pending delivery
// nor a reference needs. Events never move: what is needed stays where it is.
func (s *Store) sweep(horizon, now uint64) error {
	due := s.sweeping.due(s.events.list(), now)
	end, _ := slices.BinarySearch(due, bucketOf(horizon, hour)+1)
	if due = due[:end]; len(due) > 0 && uint64(due[len(due)-1])*hour >= horizon {
		due = due[:len(due)-1]
	}
	if len(due) == 0 {
		return nil
	}
	s.setHorizon(horizon)
	w := &sweep{store: s, horizon: horizon, batch: s.db.NewBatch(), atOnce: s.sweeping.atOnce}
	err := w.run(due)
	if err == nil {
		err = w.flush()
	}
	if err = errors.Join(err, w.batch.Close()); err != nil {
		return fmt.Errorf("drop events: %w", err)
	}
	return nil
}

// setHorizon waits for all writes under way, so that the snapshots that follow see them.
func (s *Store) setHorizon(ns uint64) {
	s.ledger.Lock()
	defer s.ledger.Unlock()
	s.committing.Lock()
	defer s.committing.Unlock()
	s.horizon.Store(max(ns, s.horizon.Load()))
}

// sweep is the work of one sweep.
type sweep struct {
	store   *Store
	horizon uint64
	batch   *pebble.Batch
	atOnce  int
	key     []byte
}

// run sweeps the buckets, oldest first, by spans of time with as many needed events as fit into memory.
func (w *sweep) run(due []uint32) error {
	end := firstKey(min(uint64(due[len(due)-1]+1)*hour, w.horizon))
	from := firstKey(uint64(due[0]) * hour)
	for bytes.Compare(from[:], end[:]) < 0 {
		next, err := w.span(due, from, end)
		if err != nil {
			return err
		}
		from = next
	}
	for _, bucket := range due {
		if err := w.moved(bucket); err != nil {
			return err
		}
		if err := w.conclude(bucket); err != nil {
			return err
		}
	}
	return nil
}

// span sweeps the events from from on and before end, and returns where it stopped.
func (w *sweep) span(due []uint32, from, end event.Key) (next event.Key, err error) {
	if err := w.store.closing.Err(); err != nil {
		return end, err
	}
	// One view of everything: a delivery that finishes meanwhile is found either as it was or as it is.
	snapshot := w.store.db.NewSnapshot()
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	needed, next, err := w.needed(snapshot, from, end)
	if err != nil {
		return end, err
	}
	it, err := snapshot.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceEvent}, UpperBound: []byte{spaceEvent + 1}})
	if err != nil {
		return end, err
	}
	for _, bucket := range due {
		first, last := firstKey(uint64(bucket)*hour), firstKey(uint64(bucket+1)*hour)
		lower, upper := maxKey(first, from), minKey(last, next)
		if bytes.Compare(lower[:], upper[:]) >= 0 || err != nil {
			continue
		}
		err = w.gaps(it, bucket, needed, lower, upper)
	}
	return next, errors.Join(err, it.Error(), it.Close())
}

// moved sweeps the events that a store of format 1 moved into the bucket.
func (w *sweep) moved(bucket uint32) (err error) {
	own := firstKey(uint64(bucket) * hour)
	for from := (event.Key{}); ; {
		first, found, err := w.firstIn(bucket, from, own)
		if err != nil || !found {
			return err
		}
		snapshot := w.store.db.NewSnapshot()
		needed, next, err := w.needed(snapshot, first, own)
		var it *pebble.Iterator
		if err == nil {
			it, err = snapshot.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceEvent}, UpperBound: []byte{spaceEvent + 1}})
		}
		if err == nil {
			err = errors.Join(w.gaps(it, bucket, needed, first, next), it.Error(), it.Close())
		}
		if err := errors.Join(err, snapshot.Close()); err != nil {
			return err
		}
		from = next
	}
}

// firstIn returns the first event of a bucket within the bounds.
func (w *sweep) firstIn(bucket uint32, lower, upper event.Key) (first event.Key, found bool, err error) {
	it, err := w.store.iterate(appendEventKey(nil, spaceEvent, bucket, lower), appendEventKey(nil, spaceEvent, bucket, upper))
	if err != nil {
		return first, false, err
	}
	if it.First() && len(it.Key()) == eventKeyLength {
		_, first = parseEventKey(it.Key())
		found = true
	}
	return first, found, errors.Join(it.Error(), it.Close())
}

// conclude notes that the bucket was swept, and forgets it if nothing is left in it and nothing can come.
func (w *sweep) conclude(bucket uint32) error {
	if uint64(bucket+1)*hour > w.horizon {
		return nil
	}
	w.store.sweeping.done(bucket)
	if err := w.flush(); err != nil {
		return err
	}
	_, found, err := w.firstIn(bucket, event.Key{}, firstKey(math.MaxUint64))
	if err == nil && !found {
		w.store.events.remove(bucket)
	}
	return err
}

// gaps deletes the bucket's events from lower on and before upper, except for those that are needed.
func (w *sweep) gaps(it *pebble.Iterator, bucket uint32, needed []event.Key, lower, upper event.Key) error {
	i, _ := slices.BinarySearchFunc(needed, lower, compareKeys)
	from := appendEventKey(nil, spaceEvent, bucket, lower)
	for ; i < len(needed) && compareKeys(needed[i], upper) < 0; i++ {
		to := appendEventKey(nil, spaceEvent, bucket, needed[i])
		if err := w.gap(it, from, to); err != nil {
			return err
		}
		from = append(from[:0], to...)
		from = append(from, 0)
	}
	to := appendEventKey(nil, spaceEvent, bucket, upper)
	if accepted(upper) == uint64(bucket+1)*hour {
		to = appendBucketKey(to[:0], spaceEvent, bucket+1) // so that it meets the range of the next bucket
	}
	return w.gap(it, from, to)
}

// gap deletes what lies between two keys: few events one by one, which costs readers nothing, many by a range, by which
// whole tables can go.
func (w *sweep) gap(it *pebble.Iterator, from, to []byte) error {
	if err := w.store.closing.Err(); err != nil {
		return err
	}
	type single struct {
		key  [eventKeyLength]byte
		size uint32
	}
	var singles [pointDeletes]single
	n := 0
	for ok := it.SeekGE(from); ok && bytes.Compare(it.Key(), to) < 0; ok = it.Next() {
		if n == len(singles) || len(it.Key()) != eventKeyLength {
			_ = w.batch.DeleteRange(from, to, nil)
			return w.flushFull()
		}
		value := it.LazyValue()
		singles[n].size = uint32(value.Len())
		copy(singles[n].key[:], it.Key())
		n++
	}
	for _, d := range singles[:n] {
		_ = w.batch.DeleteSized(d.key[:], d.size, nil)
	}
	return w.flushFull()
}

func (w *sweep) flushFull() error {
	if w.batch.Len() < sweepBytes {
		return nil
	}
	return w.flush()
}

// flush writes what was collected. A power failure may bring back events that nothing refers to; the next sweep, which
// a new process makes over all buckets, finds them.
func (w *sweep) flush() error {
	if w.batch.Empty() {
		return nil
	}
	w.store.keepClock(w.batch)
	if err := w.store.commit(w.batch, pebble.NoSync); err != nil {
		return err
	}
	if err := w.batch.Close(); err != nil {
		return err
	}
	w.batch = w.store.db.NewBatch()
	return nil
}

// collector collects the smallest keys of events that are needed, in bounded memory.
type collector struct {
	keys   []event.Key
	atOnce int
	end    event.Key // no key from here on is collected
}

// add reports whether a greater key may be of use.
func (c *collector) add(k event.Key) bool {
	if compareKeys(k, c.end) >= 0 {
		return false
	}
	if c.keys = append(c.keys, k); len(c.keys) >= 2*c.atOnce {
		c.compact()
	}
	return true
}

// compact sorts the keys, and puts an end to those that do not fit.
func (c *collector) compact() {
	slices.SortFunc(c.keys, compareKeys)
	c.keys = slices.Compact(c.keys)
	if len(c.keys) > c.atOnce {
		c.end = c.keys[c.atOnce]
		c.keys = c.keys[:c.atOnce]
	}
}

// needed returns the events from from on and before end that something refers to, in order, and where it stopped.
func (w *sweep) needed(snapshot *pebble.Snapshot, from, end event.Key) ([]event.Key, event.Key, error) {
	it, err := snapshot.NewIter(nil)
	if err != nil {
		return nil, end, err
	}
	c := &collector{atOnce: w.atOnce, end: end}
	at := accepted(from)
	for _, bucket := range w.store.failed.from(bucketOf(at, day)) {
		w.references(it, c, spaceFailedEvent, bucket, from)
	}
	for _, bucket := range w.store.delivered.from(bucketOf(at, hour)) {
		w.references(it, c, spaceLate, bucket, from)
	}
	err = w.owed(it, c, from)
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return nil, end, err
	}
	c.compact()
	return c.keys, c.end, nil
}

// references collects the events that a bucket of finished deliveries refers to.
func (w *sweep) references(it *pebble.Iterator, c *collector, space byte, bucket uint32, from event.Key) {
	w.key = appendEventKey(w.key[:0], space, bucket, from)
	for ok := it.SeekGE(w.key); ok && len(it.Key()) == eventKeyLength && bytes.Equal(it.Key()[:5], w.key[:5]); ok = it.Next() {
		if !c.add(event.Key(it.Key()[5:])) {
			return
		}
	}
}

// owed collects the events of pending deliveries, one subscription after another.
func (w *sweep) owed(it *pebble.Iterator, c *collector, from event.Key) error {
	for ok := it.SeekGE([]byte{spacePending}); ok && it.Key()[0] == spacePending; {
		if len(it.Key()) != pendingKeyLength {
			return &DamagedError{Kind: kindPending}
		}
		if err := w.store.closing.Err(); err != nil {
			return err
		}
		sub, _, _ := parsePendingKey(it.Key())
		w.key = appendPendingKey(w.key[:0], sub, accepted(from), from)
		for ok := it.SeekGE(w.key); ok && len(it.Key()) == pendingKeyLength && bytes.Equal(it.Key()[:9], w.key[:9]); ok = it.Next() {
			_, due, key := parsePendingKey(it.Key())
			if due > accepted(c.end) {
				break
			}
			if isFresh(it.Value()) && !c.add(key) {
				break
			}
		}
		for _, space := range [...]byte{spaceHistory, spaceWaiting} {
			w.key = appendHistoryKey(w.key[:0], sub, from)
			w.key[0] = space
			for ok := it.SeekGE(w.key); ok && len(it.Key()) == historyKeyLength && bytes.Equal(it.Key()[:9], w.key[:9]); ok = it.Next() {
				if !c.add(event.Key(it.Key()[9:])) {
					break
				}
			}
		}
		w.key = appendPendingKey(w.key[:0], sub, math.MaxUint64, event.Key{})
		ok = it.SeekGE(w.key)
	}
	return nil
}

func compareKeys(a, b event.Key) int { return bytes.Compare(a[:], b[:]) }

func maxKey(a, b event.Key) event.Key {
	if compareKeys(a, b) >= 0 {
		return a
	}
	return b
}

func minKey(a, b event.Key) event.Key {
	if compareKeys(a, b) <= 0 {
		return a
	}
	return b
}

// decodeClock reads what keepClock wrote.
func decodeClock(value []byte) (uint64, error) {
	d := newDecoder(kindMeta, value)
	ns := d.uint64()
	return ns, d.end()
}
