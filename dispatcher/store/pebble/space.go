package pebble

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	minFreeReserve = 8 << 20
	maxFreeReserve = 512 << 20
	// amplification is how often a byte that is appended may be on the disk before the next look at it: in the log, in
	// the table that the log is flushed to, and in the one that a compaction makes of that.
	amplification = 3
	// finishBytes is what the end of a pending delivery costs at most: its record and reference, and the tombstones of
	// what it was, in the log and in tables. BenchmarkCancel measures it.
	finishBytes = 256
	// lookPause is how often the volume is looked at while appends are refused for lack of space.
	lookPause = 20 * time.Millisecond
	// refusalPause is how long after a refusal room is made for what was refused.
	refusalPause = 10 * time.Second
)

// space is the account of the volume. What is appended is charged before it is written, and so is what finishing it will
// cost; what is free beyond that and the reserve may be appended.
type space struct {
	looking sync.Mutex // taken before mu
	mu      sync.Mutex
	// known is set once the volume was looked at; a file system that reports no usage has no bound.
	known            bool
	available, total int64
	looked           time.Time
	charged          int64 // bytes written since the last look
	backlog          int64 // bytes in tables that are yet to be compacted for the first time, which takes as much again
	pending          int64 // deliveries, all of which will finish
	keyed            int64 // those of them that have a schedule's key, which costs as much again to end
	uncounted        int64 // no fewer than both together when the store was opened, until they are counted
	reserve          int64
	full             bool
	// wanted is the cost of the largest batch that was refused lately, at the given time.
	wanted  int64
	refused time.Time
}

// owed is what finishing all pending deliveries costs. The lock is held.
func (a *space) owed() int64 { return max(a.pending+a.keyed, a.uncounted, 0) * finishBytes }

// headroom is how many bytes may still be spent on new events. The lock is held.
func (a *space) headroom() int64 {
	return a.available - a.reserve - a.owed() - a.backlog - amplification*a.charged
}

// low reports whether space is short enough for history to go before its time: little is left, or something was refused.
func (a *space) low() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.refused) > refusalPause {
		a.wanted = 0
	}
	return a.known && a.reserve > 0 && a.headroom() < a.reserve/4+a.wanted
}

// figures are those of the account, for metrics.
func (a *space) figures() (available, reserve, owed, pending int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.available, a.reserve, a.owed(), a.pending
}

// defaultReserve is the reserve of a volume of the given size: a tenth, within bounds.
func defaultReserve(total int64) int64 { return min(max(total/10, minFreeReserve), maxFreeReserve) }

// measure finds out how large the volume is before the engine is opened.
func (s *Store) measure() error {
	a := &s.space
	a.reserve = max(s.options.FreeReserve, 0)
	usage, err := s.usage()
	if err != nil {
		if errors.Is(err, vfs.ErrUnsupported) {
			return nil
		}
		return fmt.Errorf("look at the volume: %w", err)
	}
	a.known, a.available, a.total = true, clampBytes(usage.AvailBytes), clampBytes(usage.TotalBytes)
	if s.options.FreeReserve == 0 {
		a.reserve = defaultReserve(a.total)
	}
	return nil
}

// usage is that of the volume, also before the directory exists.
func (s *Store) usage() (vfs.DiskUsage, error) {
	fs, dir := s.options.FS, s.dir
	for {
		usage, err := fs.GetDiskUsage(dir)
		parent := fs.PathDir(dir)
		if err == nil || parent == dir {
			return usage, err
		}
		if _, missing := fs.Stat(dir); missing == nil {
			return usage, err
		}
		dir = parent
	}
}

func clampBytes(n uint64) int64 { return int64(min(n, 1<<62)) }

// look finds out how much space is left, and whether that is too little.
func (s *Store) look() {
	s.space.looking.Lock() // so that no older look overwrites a newer one
	defer s.space.looking.Unlock()
	usage, err := s.options.FS.GetDiskUsage(s.dir)
	if err != nil {
		return // a file system that reports no usage has no bound
	}
	backlog := s.db.Metrics().Levels[0].TablesSize
	a := &s.space
	a.mu.Lock()
	a.known, a.available, a.total, a.backlog = true, clampBytes(usage.AvailBytes), clampBytes(usage.TotalBytes), backlog
	if s.options.FreeReserve == 0 {
		a.reserve = defaultReserve(a.total)
	}
	a.charged, a.looked = 0, time.Now()
	s.judge()
	a.mu.Unlock()
}

// judge sets whether the volume is full. Once it is, it needs more than a little to be not. The lock is held.
func (s *Store) judge() {
	a := &s.space
	headroom := a.headroom()
	s.setFull(a.known && a.reserve > 0 && (headroom <= 0 || a.full && headroom < a.reserve/16))
}

// setFull says so when the volume becomes full, or has space again. The lock is held.
func (s *Store) setFull(full bool) {
	a := &s.space
	if full == a.full {
		return
	}
	a.full = full
	s.full.Store(full)
	if full {
		s.options.Logger.Info("Too little space is left: events are refused", "freeBytes", a.available, "reserveBytes", a.reserve, "owedBytes", a.owed())
	} else {
		s.options.Logger.Info("There is space again: events are accepted", "freeBytes", a.available)
	}
}

// refuse notes that a batch found no room. If it was not a large one, the volume is full. The lock is held.
func (s *Store) refuse(cost int64) {
	a := &s.space
	a.wanted, a.refused = max(a.wanted, cost), time.Now()
	if cost < a.reserve/16 {
		s.setFull(true)
	}
}

// charge takes what a batch costs. It fails with store.ErrFull if the batch makes more work and there is no room for it.
func (s *Store) charge(c *contents, bytes int) error {
	a := &s.space
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reserve == 0 || !a.known {
		a.take(c)
		return nil
	}
	cost := amplification*int64(bytes) + max(c.pending+c.keyed, 0)*finishBytes
	if c.grows() && a.headroom() < cost {
		if time.Since(a.looked) > lookPause {
			a.mu.Unlock()
			s.look()
			a.mu.Lock()
		}
		if a.headroom() < cost {
			s.refuse(cost)
			return store.ErrFull
		}
	}
	a.charged += int64(bytes)
	a.take(c)
	return nil
}

// take notes what a batch does to the pending deliveries. The lock is held.
func (a *space) take(c *contents) {
	a.pending += c.pending
	a.keyed += c.keyed
}

// release gives back what was charged for a batch that was not written.
func (s *Store) release(c *contents) {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	s.space.pending -= c.pending
	s.space.keyed -= c.keyed
}

// contents is what a batch does to the account.
type contents struct {
	pending int64 // deliveries that it adds, less those that it ends
	keyed   int64 // those of them that have a schedule's key
	events  int
}

// grows reports whether a batch adds what has to be delivered or kept.
func (c *contents) grows() bool { return c.pending > 0 || c.events > 0 }

// errDropped is returned for an event whose append took so long that its time was dropped meanwhile, for lack of space.
var errDropped = fmt.Errorf("%w: the event's time was dropped while it was appended", store.ErrFull)

// contentsOf reads what the batch does to the account. All writes come by here, so that it cannot be forgotten.
func (s *Store) contentsOf(b *pebble.Batch) (c contents, err error) {
	horizon := s.horizon.Load()
	for r := b.Reader(); ; {
		kind, key, _, ok, err := r.Next()
		if err != nil || !ok {
			return c, err
		}
		if len(key) == 0 {
			continue
		}
		switch {
		case key[0] == spacePending && kind == pebble.InternalKeyKindSet:
			c.pending++
		case key[0] == spacePending && kind == pebble.InternalKeyKindSingleDelete:
			c.pending--
		case key[0] == spaceKeyed && kind == pebble.InternalKeyKindSet:
			c.keyed++
		case key[0] == spaceKeyed && kind == pebble.InternalKeyKindDelete:
			c.keyed--
		case key[0] == spaceEvent && kind == pebble.InternalKeyKindSet:
			c.events++
			if !eventStays(key, horizon) {
				return c, errDropped
			}
		}
	}
}

// pendingKeyBytes is what the key of a pending delivery takes in a table at least, compressed.
const pendingKeyBytes = 8

// census counts the deliveries that were pending when the store was opened. Those that came and went since are counted as
// they are written.
func (s *Store) census(opened *pebble.Snapshot) {
	defer s.work.Done()
	defer close(s.counted)
	n, err := s.countKeys(opened, spacePending)
	var keyed int64
	if err == nil {
		keyed, err = s.countKeys(opened, spaceKeyed)
	}
	if err = errors.Join(err, opened.Close()); err != nil && s.closing.Err() == nil {
		s.options.Logger.Error(oneLineError(err), "Counting the pending deliveries failed; more space than necessary is set aside for them")
		return
	}
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	s.space.pending += n
	s.space.keyed += keyed
	s.space.uncounted = 0
}

// estimatePending bounds from above how many deliveries are pending, at little cost.
func (s *Store) estimatePending() error {
	for _, space := range [...]byte{spacePending, spaceKeyed} {
		bytes, err := s.db.EstimateDiskUsage([]byte{space}, []byte{space + 1})
		if err != nil {
			return fmt.Errorf("read the store: %w", err)
		}
		s.space.uncounted += clampBytes(bytes) / pendingKeyBytes
	}
	return nil
}

func (s *Store) countKeys(from pebble.Reader, space byte) (n int64, err error) {
	it, err := from.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}})
	if err != nil {
		return 0, err
	}
	for ok := it.First(); ok && s.closing.Err() == nil; ok = it.Next() {
		n++
	}
	return n, errors.Join(it.Error(), it.Close())
}
