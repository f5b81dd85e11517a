package pebble

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

// Retention is how long finished deliveries are kept, with their events. They may stay a bucket longer: an hour for
// delivered ones, a day for failed ones.
type Retention struct {
	Delivered time.Duration // 24 h if zero
	Failed    time.Duration // of failed and cancelled deliveries; 720 h if zero
}

// Options of a store. The zero value is usable.
type Options struct {
	// FS holds the directory; the operating system's file system if nil.
	FS vfs.FS
	// Logger tells what operators need to know. The zero Logger is silent.
	Logger    logr.Logger
	Retention Retention
	// FreeReserve is how many bytes must stay free on the volume, beyond what finishing the pending deliveries will cost:
	// below, events are refused with store.ErrFull. A tenth of the volume, at least 8 MiB and at most 512 MiB, if zero;
	// no reserve and no ballast if negative.
	FreeReserve int64
	// MaxOpenFiles bounds how many descriptors the engine keeps open, of which it needs 74; 500 if zero.
	MaxOpenFiles int
	// Registerer gets the store's metrics; none if nil.
	Registerer prometheus.Registerer
	// MeasurePause is how often the backlog is measured for the metrics; 10 s if zero. SpacePause is how often the volume is
	// looked at; 1 s if zero.
	MeasurePause, SpacePause time.Duration
	// LockWait is how long Open waits for another process to release the directory.
	LockWait time.Duration
	// Now tells the time; time.Now if nil.
	Now func() time.Time
	// Fatal is called once the store cannot go on, with the reason in one line. It must not return. If nil, the reason
	// is written to standard error and the process exits with status 1.
	Fatal func(error)
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger.GetSink() == nil {
		o.Logger = logr.Discard()
	}
	if o.Retention.Delivered <= 0 {
		o.Retention.Delivered = 24 * time.Hour
	}
	if o.Retention.Failed <= 0 {
		o.Retention.Failed = 720 * time.Hour
	}
	if o.MaxOpenFiles <= 0 {
		o.MaxOpenFiles = maxFiles
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Fatal == nil {
		o.Fatal = exit
	}
	return o
}

func exit(err error) {
	fmt.Fprintln(os.Stderr, "eventflow:", err)
	os.Exit(1)
}

const (
	minMemTableSize = 1 << 20
	maxMemTableSize = 16 << 20
	// memTables are those that may exist at once; appends wait while another is needed.
	memTables = 4
	// cacheSize holds the index and filter blocks that are in use and what was just written; payloads are read once.
	cacheSize = 48 << 20
	maxFiles  = 500
)

// engineOptions are Pebble's, for one dispatcher on two cores: enough memory to swallow a burst, filters so that asking
// for what is not there reads nothing.
func (s *Store) engineOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                          s.engineFS(),
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   cacheSize,
		MemTableSize:                uint64(s.memTable),
		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       2,
		L0CompactionFileThreshold:   200,
		L0StopWritesThreshold:       1000, // Append slows down by what it waits for, not by a full stop
		LBaseMaxBytes:               s.memTable * 4,
		FlushSplitBytes:             s.memTable / 8,
		FlushDelayDeleteRange:       10 * time.Second,
		MaxOpenFiles:                s.options.MaxOpenFiles,
		BytesPerSync:                1 << 20,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, 2 },
		Logger:                      engineLogger{s},
		EventListener:               s.reports(),
	}
	o.Experimental.CompactionScheduler = newCompactions(&s.trouble)
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	o.Levels[0].BlockSize = 16 << 10
	return o
}

// engineFS is the file system as the engine sees it. On a full volume the first write that fails gives up the ballast,
// and is tried once more.
func (s *Store) engineFS() vfs.FS {
	below := vfs.OnDiskFull(s.options.FS, func() { s.giveUpBallast() })
	return logFS{pacedFS{below, s}, s}
}

// engineLogger takes what Pebble says. Its information is of no use to operators.
type engineLogger struct{ store *Store }

func (engineLogger) Infof(string, ...any) {}

func (l engineLogger) Errorf(format string, args ...any) {
	l.store.troubled(fmt.Errorf(format, args...))
}

// Fatalf is called when a write or a sync failed: what is in memory can no longer be trusted to be on disk.
func (l engineLogger) Fatalf(format string, args ...any) {
	l.store.fail(fmt.Errorf(format, args...))
}

// fail ends the process, or, in tests, at least the goroutine.
func (s *Store) fail(err error) {
	err = fmt.Errorf("store %s: %s", s.dir, oneLine(err.Error()))
	if s.failure.CompareAndSwap(nil, &err) {
		s.options.Fatal(err)
	}
	runtime.Goexit()
}

// oneLineError is an error without the stack traces that some loggers print.
func oneLineError(err error) error { return errors.New(oneLine(err.Error())) }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
