package pebble

import (
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// syncPause is how long outcomes are gathered before the log is synced: as much of them can be lost. Without, Pebble
// would keep them in memory until an event is appended or a block of its log is full, and a process that is killed would
// repeat attempts that it made minutes before.
const syncPause = 50 * time.Millisecond

// recorded notes that outcomes were written without a sync.
func (s *Store) recorded() {
	select {
	case s.unsynced <- struct{}{}:
	default:
	}
}

// syncOutcomes syncs the log soon after outcomes were written, until the store is closed.
func (s *Store) syncOutcomes() {
	defer s.work.Done()
	for {
		select {
		case <-s.closing.Done():
			return
		case <-s.unsynced:
		}
		select {
		case <-s.closing.Done():
			return // Close syncs
		case <-time.After(syncPause):
		}
		b := s.db.NewBatch()
		_ = b.LogData(nil, nil)
		if err := s.commit(b, pebble.Sync); err != nil {
			s.options.Logger.Error(err, "Syncing outcomes failed; some attempts may be repeated after a restart")
		}
		_ = b.Close() // its memory is the collector's
	}
}
