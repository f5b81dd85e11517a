package audit

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// waiting is how many records may wait to be written: with texts of the usual length, one MiB.
	waiting = 4096
	// maxBatch bounds the bytes of one write.
	maxBatch = 64 << 10
	// retryPause is how long to wait before a write that failed is tried again.
	retryPause = time.Second
	// closeTimeout bounds the last writes.
	closeTimeout = 2 * time.Second
	// syncPause is how often a file that was written is made durable, while more is written.
	syncPause = time.Second
	// stdoutName is standard output in place of a file.
	stdoutName = "-"
)

// Options are the settings of a Log.
type Options struct {
	Level Level
	// File is where the trail is appended, "-" for standard output.
	File string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Failed hears of each write that failed; nil for nobody.
	Failed func(error)
	// Registerer gets the metrics; it may be nil.
	Registerer prometheus.Registerer
}

// Log writes a trail. A nil Log records nothing. It is safe for concurrent use.
type Log struct {
	level    Level
	now      func() time.Time
	notify   func(error)
	records  chan entry
	lost     atomic.Uint64
	dropped  prometheus.Counter
	failures prometheus.Counter

	to    output
	trail string
	seq   uint64
	hash  digest

	closing, late, done chan struct{}
	once                sync.Once
	cutOff              bool // the end could not be written; set before done
}

type entry struct {
	Record
	at time.Time
}

// output is where lines go.
type output interface {
	io.Writer
	// Restore takes back what a write that failed left of its lines, and returns how many of the bytes that it wrote stay.
	Restore(written int) (stay int, err error)
	Sync() error
	Close() error
}

// Open begins to write, behind what a file has already. It returns nil for the level None. It fails if the file cannot be opened or
// is no trail, or the metrics are registered already.
func Open(options Options) (*Log, error) {
	if options.Level == None {
		return nil, nil
	}
	if options.File == stdoutName {
		return start(options, &stream{Writer: os.Stdout}, line{}, digest{})
	}
	file, last, hash, err := openFile(options.File)
	if err != nil {
		return nil, fmt.Errorf("open the audit trail: %w", err)
	}
	return start(options, file, last, hash)
}

func start(options Options, to output, last line, hash digest) (*Log, error) {
	l := &Log{
		level: options.Level, now: options.Now, notify: options.Failed, records: make(chan entry, waiting), to: to,
		trail: last.Trail, seq: last.Seq, hash: hash, closing: make(chan struct{}), late: make(chan struct{}), done: make(chan struct{}),
		dropped:  prometheus.NewCounter(prometheus.CounterOpts{Name: "eventflow_audit_lost_total", Help: "Audit records that were lost, because the trail could not be written fast enough."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "eventflow_audit_write_failures_total", Help: "Writes of the audit trail that failed, and were tried again."}),
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.notify == nil {
		l.notify = func(error) {}
	}
	if l.trail == "" {
		var id [8]byte
		_, _ = rand.Read(id[:]) // never fails
		l.trail = hex.EncodeToString(id[:])
	}
	if options.Registerer != nil {
		if err := errors.Join(options.Registerer.Register(l.dropped), options.Registerer.Register(l.failures)); err != nil {
			return nil, errors.Join(fmt.Errorf("register the metrics of the audit trail: %w", err), to.Close())
		}
	}
	l.records <- entry{Record{Action: actionStart}, l.now()}
	go l.run()
	return l, nil
}

// Records reports whether a level is recorded.
func (l *Log) Records(level Level) bool { return l != nil && level <= l.level }

// Add records what somebody did, if its level is recorded. It never waits.
func (l *Log) Add(level Level, record Record) {
	if !l.Records(level) {
		return
	}
	select {
	case l.records <- entry{record, l.now()}:
	default:
		l.lost.Add(1)
		l.dropped.Inc()
	}
}

// Close writes what waits, for about 3 s at most, and ends the trail. Nothing may be added any more.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.once.Do(func() {
		close(l.closing)
		time.AfterFunc(closeTimeout, func() { close(l.late) })
	})
	late := time.NewTimer(closeTimeout + retryPause)
	defer late.Stop()
	select {
	case <-l.done:
		err := l.to.Close()
		if l.cutOff {
			err = errors.Join(errors.New("the end of the audit trail could not be written"), err)
		}
		return err
	case <-late.C: // a write hangs, and still has the output
		return errors.New("the audit trail could not be ended: a write hangs")
	}
}

// run writes until the Log is closed.
func (l *Log) run() {
	defer close(l.done)
	synced := time.Now()
	for {
		select {
		case first := <-l.records:
			if l.write(l.batch(first)) && time.Since(synced) >= syncPause {
				_ = l.to.Sync() // a disk that cannot be synced fails the next write
				synced = time.Now()
			}
		case <-l.closing:
			l.finish()
			return
		}
	}
}

// finish writes what waits, and that it ends.
func (l *Log) finish() {
	for {
		select {
		case first := <-l.records:
			if !l.write(l.batch(first)) {
				return
			}
		default:
			var text bytes.Buffer
			l.append(&text, newLine(&Record{Action: actionStop}, l.now()))
			if l.write(text.Bytes()) {
				_ = l.to.Sync()
			}
			return
		}
	}
}

// batch is what waits, as lines.
func (l *Log) batch(first entry) []byte {
	var text bytes.Buffer
	for next := first; ; {
		l.append(&text, newLine(&next.Record, next.at))
		if text.Len() >= maxBatch {
			break
		}
		select {
		case next = <-l.records:
			continue
		default:
		}
		break
	}
	if n := l.lost.Swap(0); n > 0 { // those that were lost came behind all that waited
		lost := newLine(&Record{Action: actionLost}, l.now())
		lost.Lost = n
		l.append(&text, lost)
	}
	return text.Bytes()
}

func (l *Log) append(text *bytes.Buffer, next line) {
	l.seq++
	next.Trail, next.Seq = l.trail, l.seq
	sealed, hash, err := next.sealed(l.hash)
	if err != nil { // no text that JSON cannot hold is in it
		l.notify(err)
		return
	}
	text.Write(sealed)
	l.hash = hash
}

// write writes lines, and tries again until it can. It reports whether it did before the Log's end.
func (l *Log) write(text []byte) bool {
	closing := l.closing
	for {
		n, err := l.to.Write(text)
		if err == nil {
			return true
		}
		stay, restoreErr := l.to.Restore(n)
		text = text[stay:]
		l.failures.Inc()
		l.notify(fmt.Errorf("write the audit trail: %w", errors.Join(err, restoreErr)))
		select {
		case <-time.After(retryPause):
		case <-closing: // once more, and then for as long as is left
			closing = nil
		case <-l.late:
			l.cutOff = true
			return false
		}
	}
}
