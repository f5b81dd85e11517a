package pebble

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// firstPause and lastPause bound the pause after background work of the engine failed; each is twice the one before.
	firstPause = 20 * time.Millisecond
	lastPause  = 5 * time.Second
	// descriptorWait is how long opening a file waits for a descriptor, logWait how long for a log, without which the
	// store cannot go on.
	descriptorWait = 5 * time.Second
	logWait        = time.Minute
	// troublePause is how often a trouble that lasts is logged.
	troublePause = 30 * time.Second
	// lookBytes is how much a compaction writes between two looks at the volume.
	lookBytes = 1 << 20

	categoryFlush   = vfs.DiskWriteCategory("pebble-memtable-flush")
	categoryCompact = vfs.DiskWriteCategory("pebble-compaction")
)

// trouble is what went wrong in the background. The engine tries again at once; this is what holds it back.
type trouble struct {
	mu       sync.Mutex
	failures int // in a row
	until    time.Time
	total    int64
	logged   time.Time
	silent   int
}

// troubled notes an error, and says so unless it did just before.
func (s *Store) troubled(err error) {
	t := &s.trouble
	t.mu.Lock()
	now := time.Now()
	pause := min(firstPause<<min(t.failures, 16), lastPause)
	t.failures++
	t.total++
	t.until = now.Add(pause)
	t.silent++
	say, silent := now.Sub(t.logged) >= troublePause, t.silent
	if say {
		t.logged, t.silent = now, 0
	}
	t.mu.Unlock()
	if say {
		s.options.Logger.Error(oneLineError(err), "The storage engine's background work failed; trying again", "failures", silent, "pause", pause)
	}
}

// succeeded ends the trouble.
func (t *trouble) succeeded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures, t.until = 0, time.Time{}
}

// rest is how long background work has to wait.
func (t *trouble) rest() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failures == 0 {
		return 0
	}
	return time.Until(t.until)
}

func (t *trouble) count() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

// pause waits, and reports whether the store is still open.
func (s *Store) pause(d time.Duration) bool {
	if d <= 0 {
		return s.closing.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closing.Done():
		return false
	}
}

// pacedFS is the file system that the engine's background work sees. It waits for descriptors, holds flushes back that
// failed, and keeps compactions from taking the space that logs and flushes need.
type pacedFS struct {
	vfs.FS
	store *Store
}

// Unwrap returns the file system below.
func (fs pacedFS) Unwrap() vfs.FS { return fs.FS }

// short reports whether err means that the process or the machine has no descriptor left.
func short(err error) bool { return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) }

// await tries again, with growing pauses, as long as there is no descriptor.
func await(s *Store, name string, open func() (vfs.File, error)) (vfs.File, error) {
	limit := descriptorWait
	if strings.HasSuffix(name, ".log") || strings.Contains(name, "MANIFEST") {
		limit = logWait
	}
	pause := firstPause
	for waited := time.Duration(0); ; waited += pause {
		f, err := open()
		if !short(err) || waited >= limit {
			return f, err
		}
		s.troubled(fmt.Errorf("open a file: %w", err))
		if waited > 0 {
			pause = min(2*pause, time.Second)
		}
		if !s.pause(pause) {
			return f, err
		}
	}
}

// Open opens a file for reading.
func (fs pacedFS) Open(name string, options ...vfs.OpenOption) (vfs.File, error) {
	return await(fs.store, name, func() (vfs.File, error) { return fs.FS.Open(name, options...) })
}

// OpenDir opens a directory.
func (fs pacedFS) OpenDir(name string) (vfs.File, error) {
	return await(fs.store, name, func() (vfs.File, error) { return fs.FS.OpenDir(name) })
}

// ReuseForWrite makes an old file a new one. It is not tried again: the old name may be gone.
func (fs pacedFS) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(oldName, newName, category)
	if !short(err) {
		return f, err
	}
	return await(fs.store, newName, func() (vfs.File, error) { return fs.FS.Create(newName, category) })
}

// Create creates a file.
func (fs pacedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	s := fs.store
	if category == categoryFlush {
		s.pause(s.trouble.rest())
	}
	if category == categoryCompact {
		if err := s.roomToCompact(); err != nil {
			return nil, err
		}
	}
	f, err := await(s, name, func() (vfs.File, error) { return fs.FS.Create(name, category) })
	if err == nil && category == categoryCompact {
		f = &compactedFile{File: f, store: s}
	}
	return f, err
}

// compactedFile is a table that a compaction writes.
type compactedFile struct {
	vfs.File
	store   *Store
	written int
}

// Write writes to the table, unless that would take the space that logs and flushes need.
func (f *compactedFile) Write(b []byte) (int, error) {
	if f.written += len(b); f.written >= lookBytes {
		f.written = 0
		if err := f.store.roomToCompact(); err != nil {
			return 0, err
		}
	}
	return f.File.Write(b)
}

// roomToCompact fails if less than the floor is free. The engine gives the compaction up, removes what it
// wrote, and tries again later.
func (s *Store) roomToCompact() error {
	a := &s.space
	a.mu.Lock()
	known, floor := a.known, s.compactionFloor()
	a.mu.Unlock()
	if !known || floor == 0 {
		return nil
	}
	usage, err := s.options.FS.GetDiskUsage(s.dir)
	if err != nil || clampBytes(usage.AvailBytes) >= floor {
		return nil
	}
	return fmt.Errorf("compact: %d bytes are free, and logs need them: %w", usage.AvailBytes, syscall.ENOSPC)
}

// reports tells what goes wrong in the background. Pebble tries again by itself, except after damage.
func (s *Store) reports() *pebble.EventListener {
	log := s.options.Logger
	ended := func(err error) {
		if err == nil {
			s.trouble.succeeded()
		}
	}
	return &pebble.EventListener{
		BackgroundError: s.troubled,
		FlushEnd:        func(info pebble.FlushInfo) { ended(info.Err) },
		CompactionEnd:   func(info pebble.CompactionInfo) { ended(info.Err) },
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			log.Info("Writes wait for tables to be written", "reason", info.Reason)
		},
		WriteStallEnd: func() { log.Info("Writes go on") },
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			s.fail(fmt.Errorf("damaged file %s: %w", info.Path, info.Details))
		},
	}
}
