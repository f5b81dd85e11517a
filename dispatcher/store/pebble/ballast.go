package pebble

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	ballastName = "BALLAST"
	// ballastCategory is how its writes are accounted for.
	ballastCategory = vfs.DiskWriteCategory("eventflow-ballast")
	// smallWrites is room for what an open or an hour of deletions writes beside logs: manifests, options, tombstones.
	smallWrites = 2 << 20
)

// logBytes is how much the logs hold that were not flushed yet: as many memtables as may wait, and one more.
func (s *Store) logBytes() int64 { return (memTables + 1) * s.memTable }

// compactionFloor is what compactions leave free: a quarter of the reserve, and as much as flushing a memtable and opening
// the store write. A process may be killed at any moment, with tables half made: the next one has to find room to start.
// A small reserve keeps a quarter for compactions, which make room in the end. The account's lock is held.
func (s *Store) compactionFloor() int64 {
	start := s.memTable + s.logBytes() + smallWrites
	return max(s.space.reserve/4, min(start, s.space.reserve*3/4))
}

// ballastSize is what opening the store needs at most, twice as much for small writes.
func (s *Store) ballastSize() int64 { return s.logBytes() + 2*smallWrites }

// memTableSize is the size of a memtable: 16 MiB, less on a small volume, whose reserve has to hold all logs.
func memTableSize(reserve int64) int64 {
	if reserve == 0 {
		return maxMemTableSize
	}
	return min(max(reserve/32, minMemTableSize), maxMemTableSize)
}

func (s *Store) ballastPath() string { return s.options.FS.PathJoin(s.dir, ballastName) }

// giveUpBallast makes room on a volume that is full. It reports whether there was a ballast.
func (s *Store) giveUpBallast() bool {
	s.ballast.Lock()
	defer s.ballast.Unlock()
	had := s.ballast.held.Swap(0) > 0
	err := s.options.FS.Remove(s.ballastPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.options.Logger.Error(oneLineError(err), "The ballast could not be removed")
		return false
	}
	if had {
		s.options.Logger.Info("The volume is full: the ballast was given up")
	}
	return had
}

// findBallast notes the ballast that an earlier process left.
func (s *Store) findBallast() {
	if s.space.reserve == 0 {
		return
	}
	if info, err := s.options.FS.Stat(s.ballastPath()); err == nil {
		s.ballast.held.Store(info.Size())
	}
}

// keepBallast makes the ballast where there is room for it and the reserve, and gives it up where next to nothing is left.
func (s *Store) keepBallast() {
	a := &s.space
	a.mu.Lock()
	known, available, reserve := a.known, a.available, a.reserve
	a.mu.Unlock()
	size := s.ballastSize()
	switch held := s.ballast.held.Load(); {
	case !known || reserve == 0:
	case held > 0 && available < smallWrites/2:
		s.giveUpBallast()
	case held < size && available-size > reserve+reserve/4:
		if err := s.makeBallast(size); err != nil {
			s.options.Logger.V(1).Info("The ballast could not be made", "reason", oneLine(err.Error()))
		}
	}
}

// makeBallast writes what no file system compresses, so that the room is there when it is needed.
func (s *Store) makeBallast(size int64) error {
	s.ballast.Lock()
	defer s.ballast.Unlock()
	path := s.ballastPath()
	f, err := s.options.FS.Create(path, ballastCategory)
	if err != nil {
		return err
	}
	err = fillBallast(f, size, s.options.FS == vfs.Default)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, s.options.FS.Remove(path))
	}
	s.ballast.held.Store(size)
	return nil
}

// fillBallast lets the file system allocate the blocks where it can, and writes them where it cannot.
func fillBallast(f vfs.File, size int64, allocate bool) error {
	if allocate && f.Preallocate(0, size) == nil {
		// The last byte makes the size visible. What was allocated before stays allocated.
		if _, err := f.WriteAt([]byte{1}, size-1); err != nil {
			return err
		}
		return f.Sync()
	}
	chunk := make([]byte, 1<<20)
	_, _ = rand.Read(chunk)
	for written := int64(0); written < size; written += int64(len(chunk)) {
		if _, err := f.Write(chunk[:min(int64(len(chunk)), size-written)]); err != nil {
			return err
		}
	}
	return f.Sync()
}

// makeRoomToOpen sees to it that the engine, which cannot stop half-way, finds the space that it opens with. It fails
// with store.ErrFull, without having written anything, if there is not enough.
func (s *Store) makeRoomToOpen() error {
	if !s.space.known || s.space.reserve == 0 {
		return nil
	}
	need, err := s.needToOpen()
	if err != nil {
		return err
	}
	if s.space.available >= need {
		return nil
	}
	if s.giveUpBallast() {
		if err := s.measure(); err != nil {
			return err
		}
	}
	if s.space.available < need {
		return fmt.Errorf("%w: %d bytes are free, and starting needs %d", store.ErrFull, s.space.available, need)
	}
	return nil
}

// needToOpen is how much the engine writes while it is opened: the logs become tables.
func (s *Store) needToOpen() (int64, error) {
	names, err := s.options.FS.List(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return smallWrites, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list the directory: %w", err)
	}
	logs := int64(0)
	for _, name := range names {
		if !strings.HasSuffix(name, ".log") {
			continue
		}
		info, err := s.options.FS.Stat(s.options.FS.PathJoin(s.dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("look for the logs: %w", err)
		}
		if err == nil {
			logs += info.Size()
		}
	}
	// Logs that are kept for use again count, too, but no more than this can be owed to tables.
	return min(logs, s.logBytes()) + smallWrites, nil
}
