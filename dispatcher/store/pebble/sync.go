package pebble

import (
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// syncPause is how long outcomes wait for an event that is appended, with which they are synced: as much of them can be
// lost, or twice as much. Without, Pebble would keep them in memory until an event is appended or a block of its log is
// full, and a process that is killed would repeat attempts that it made minutes before.
const syncPause = 25 * time.Millisecond

// syncs counts the writes of outcomes, which are not synced, and those that a sync that came later made durable.
type syncs struct {
	written, durable atomic.Uint64
	waiting          chan struct{} // holds something if there may be some to sync
}

// wrote notes that outcomes were written without a sync.
func (s *syncs) wrote() {
	s.written.Add(1)
	select {
	case s.waiting <- struct{}{}:
	default:
	}
}

// reached notes that the first n writes are durable.
func (s *syncs) reached(n uint64) {
	for {
		durable := s.durable.Load()
		if durable >= n || s.durable.CompareAndSwap(durable, n) {
			return
		}
	}
}

// syncOutcomes syncs the log soon after outcomes were written, until the store is closed.
func (s *Store) syncOutcomes() {
	defer s.work.Done()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-s.closing.Done():
			return
		case <-s.outcomes.waiting:
		}
		written := s.outcomes.written.Load()
		pause.Reset(syncPause)
		select {
		case <-s.closing.Done():
			return // Close syncs
		case <-pause.C:
		}
		if s.outcomes.durable.Load() >= written {
			continue // those after it are waiting by now
		}
		b := s.db.NewBatch()
		_ = b.LogData(nil, nil)
		if err := s.commit(b, pebble.Sync); err != nil {
			s.options.Logger.Error(err, "Syncing outcomes failed; some attempts may be repeated after a restart")
		}
		_ = b.Close() // its memory is the collector's
	}
}
