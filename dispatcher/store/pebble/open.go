package pebble

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// format is the version of the layout that the package comment describes.
const format = 3

// Formats that are read, too. In the first, events of failed and of late deliveries were copied to where their deliveries
// are, and those of pending deliveries moved to later buckets. The second had no schedules, and no reasons of deliveries.
const (
	oldFormat    = 1
	formatBefore = 2
)

var (
	formatKey = []byte{spaceMeta, 'f', 'o', 'r', 'm', 'a', 't'}
	clockKey  = []byte{spaceMeta, 'c', 'l', 'o', 'c', 'k'}
	idKey     = []byte{spaceMeta, 'i', 'd'}
)

const lockPause = 50 * time.Millisecond

// Open opens the store in dir, which is created if there is none. It fails, in one line, if another process holds the
// directory for longer than LockWait (store.ErrLocked), if a file is damaged (store.ErrDamaged), and if a newer program wrote
// it (store.ErrNewer); each is store.ErrNotOpen, too. It fails with store.ErrFull, and leaves the directory as it is, if
// the volume has no room to start in; it may be called again then.
func Open(dir string, options Options) (*Store, error) {
	return OpenContext(context.Background(), dir, options)
}

// OpenContext is Open, and gives up waiting for another process once ctx ends, with ctx's error. What is then being read
// or written is finished first.
func OpenContext(ctx context.Context, dir string, options Options) (*Store, error) {
	s := &Store{options: options.withDefaults(), dir: dir}
	s.life.idle = make(chan struct{})
	s.outcomes.waiting = make(chan struct{}, 1)
	s.retention.Store(&s.options.Retention)
	s.claims.held = map[identity]*claim{}
	s.subscriptions.known = map[event.SubscriptionKey]subscription{}
	s.subscriptions.namespaces = map[string]map[event.SubscriptionKey]string{}
	s.ledger.cached = map[event.SubscriptionKey]tally{}
	s.starts.under, s.starts.claimed = map[event.DeliveryID]struct{}{}, map[event.DeliveryID]struct{}{}
	s.sweeping.atOnce = keysAtOnce
	s.tidying, s.counted = make(chan struct{}, 1), make(chan struct{})
	s.closing, s.close = context.WithCancel(context.Background())
	if err := s.open(ctx); err != nil {
		s.close()
		return nil, fmt.Errorf("open store %s: %w", dir, openError{lineError{err}, kindOf(err)})
	}
	s.opened.Store(true)
	s.metrics = newMetrics(s, s.options.Registerer)
	counted := s.db.NewSnapshot() // before anything is written
	s.checkSpace()
	s.work.Add(5)
	s.work.Go(func() { s.metrics.common.Run(s.closing) })
	go s.census(counted)
	go s.watch()
	go s.tidy()
	go s.fillIDFilter()
	go s.syncOutcomes()
	return s, nil
}

// lineError is an error in one line.
type lineError struct{ error }

func (e lineError) Error() string { return oneLine(e.error.Error()) }

func (e lineError) Unwrap() error { return e.error }

// openError is why the store could not be opened, and of which kind that is.
type openError struct {
	lineError
	kind error // nil if it is of no special one
}

func (e openError) Unwrap() []error {
	all := []error{store.ErrNotOpen, e.lineError}
	if e.kind != nil {
		all = append(all, e.kind)
	}
	return all
}

// kindOf is the kind of an error of opening that the engine or a record tells of.
func kindOf(err error) error {
	record, isRecord := errors.AsType[*DamagedError](err)
	switch {
	case errors.Is(err, store.ErrFull), errors.Is(err, store.ErrNewer), errors.Is(err, store.ErrLocked):
		return nil // it says so itself
	case isRecord && record.Version != 0:
		return store.ErrNewer
	case isRecord, pebble.IsCorruptionError(err), errors.Is(err, fs.ErrNotExist), errors.Is(err, io.ErrUnexpectedEOF):
		return store.ErrDamaged
	default:
		return nil
	}
}

func (s *Store) open(ctx context.Context) error {
	if err := s.lockDirectory(ctx); err != nil {
		return err
	}
	err := s.prepare()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return errors.Join(err, s.unlock())
	}
	engine := s.engineOptions()
	engine.Lock = s.lock
	var db *pebble.DB
	db, err = openEngine(s.dir, engine)
	if file := s.reading.Load(); err != nil && file != nil {
		err = fmt.Errorf("%w (the last file read was %s)", err, *file)
	}
	if err == nil {
		s.db = db
		if err = s.restore(); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		err = errors.Join(err, s.unlock())
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return err
}

// prepare finds out about the volume, and makes room on it.
func (s *Store) prepare() error {
	if err := s.measure(); err != nil {
		return err
	}
	s.memTable = memTableSize(s.space.reserve)
	s.findBallast()
	return s.makeRoomToOpen()
}

func (s *Store) unlock() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// openEngine opens the engine, which panics where it cannot write some of its files.
func openEngine(dir string, options *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("write the database's files: %v", r)
			if cause, ok := r.(error); ok {
				err = fmt.Errorf("write the database's files: %w", cause)
			}
		}
	}()
	return pebble.Open(dir, options)
}

// lockDirectory waits until no other process holds the directory. One that does not exist yet nobody holds; the engine
// creates and locks it.
func (s *Store) lockDirectory(ctx context.Context) error {
	if _, err := s.options.FS.Stat(s.dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("look for the directory: %w", err)
	}
	timeout := time.NewTimer(s.options.LockWait)
	defer timeout.Stop()
	again := time.NewTicker(lockPause)
	defer again.Stop()
	for {
		var err error
		s.lock, err = pebble.LockDirectory(s.dir, s.options.FS)
		if err == nil {
			return nil
		}
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			return fmt.Errorf("lock the directory: %w", err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout.C:
			return fmt.Errorf("%w (waited %s)", store.ErrLocked, s.options.LockWait)
		}
	}
}

// restore reads into memory what is kept there.
func (s *Store) restore() error {
	if err := s.checkFormat(); err != nil {
		return err
	}
	if err := s.restoreID(); err != nil {
		return err
	}
	if err := s.estimatePending(); err != nil {
		return err
	}
	for _, live := range []struct {
		space   byte
		buckets *buckets
	}{
		{spaceEvent, &s.events}, {spaceDelivered, &s.delivered}, {spaceLate, &s.delivered}, {spaceFailed, &s.failed},
		{spaceFailedEvent, &s.failed}, {spaceIdempotency, &s.ids},
	} {
		if err := s.restoreBuckets(live.space, live.buckets); err != nil {
			return err
		}
	}
	if err := s.restoreClock(); err != nil {
		return err
	}
	return s.readSubscriptions([]byte{spaceSubscription}, []byte{spaceSubscription + 1})
}

func (s *Store) checkFormat() error {
	var have []byte
	err := get(s.db, formatKey, func(value []byte) error {
		have = bytes.Clone(value)
		return nil
	})
	if err != nil {
		return err
	}
	if have != nil {
		d := newDecoder(kindMeta, have)
		version := d.uvarint()
		if err := d.end(); err != nil {
			return err
		}
		switch version {
		case format:
			return nil
		case oldFormat, formatBefore:
			return s.setFormat()
		default:
			return fmt.Errorf("it has format %d: this program reads formats %d to %d: %w", version, oldFormat, format, store.ErrNewer)
		}
	}
	it, err := s.db.NewIter(nil)
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	foreign := it.First()
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	if foreign {
		return errors.New("the directory holds another program's database")
	}
	return s.setFormat()
}

// setFormat keeps programs that do not know the format from reading the store.
func (s *Store) setFormat() error {
	if err := s.db.Set(formatKey, append(appendHeader(nil), format), pebble.Sync); err != nil {
		return fmt.Errorf("write the format: %w", err)
	}
	return nil
}

// ID names the store: a copy of the directory has the same, and no other store has it. It is random, and made when the
// directory is opened first.
func (s *Store) ID() string { return s.id }

func (s *Store) restoreID() error {
	err := get(s.db, idKey, func(value []byte) (err error) {
		if value == nil {
			return nil
		}
		d := newDecoder(kindMeta, value)
		s.id = d.string()
		return d.end()
	})
	if err != nil || s.id != "" {
		return err
	}
	s.id = rand.Text()
	if err := s.db.Set(idKey, appendString(appendHeader(nil), s.id), pebble.Sync); err != nil {
		return fmt.Errorf("write the store's id: %w", err)
	}
	return nil
}

// restoreBuckets finds the buckets that exist, by skipping from one to the next.
func (s *Store) restoreBuckets(space byte, live *buckets) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}})
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	for ok := it.First(); ok; {
		d := decoder{rest: it.Key()[1:]}
		bucket := uint32(d.uint64() >> 32)
		live.add(bucket)
		ok = it.SeekGE(successor(appendBucketKey(nil, space, bucket)))
	}
	return errors.Join(it.Error(), it.Close())
}

// restoreClock finds the newest acceptance, which may be that of an event that was dropped. Moved events sort before those that were accepted in their bucket, so one
// look into each bucket is enough, and none beyond the newest that has an event of its own.
func (s *Store) restoreClock() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceEvent}, UpperBound: []byte{spaceEvent + 1}})
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	live := s.events.list()
	for i := len(live) - 1; i >= 0; i-- {
		if !it.SeekLT(successor(appendBucketKey(nil, spaceEvent, live[i]))) || len(it.Key()) < 13 {
			break
		}
		d := decoder{rest: it.Key()[5:]}
		newest := d.uint64()
		s.clock.last = max(s.clock.last, newest)
		if bucketOf(newest, hour) == live[i] {
			break
		}
	}
	err = get(s.db, clockKey, func(value []byte) error {
		if value == nil {
			return nil
		}
		kept, err := decodeClock(value)
		s.clock.last = max(s.clock.last, kept)
		return err
	})
	s.goOnFrom(s.clock.last)
	return errors.Join(err, it.Error(), it.Close())
}

// goOnFrom sets the store's clock ahead of the machine's if that was set back since the store was used last: what is due
// would come late by as much.
func (s *Store) goOnFrom(last uint64) {
	machine := nanos(s.options.Now())
	if last <= machine+uint64(maxSkew) {
		return
	}
	s.ahead = time.Duration(last + 1 - machine)
	s.options.Logger.Info("The machine's clock was set back; the dispatcher goes on from the time that it knows", "by", s.ahead.String())
}

// readSubscriptions reads those whose keys lie between the bounds.
func (s *Store) readSubscriptions(lower, upper []byte) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	for it.First(); it.Valid() && err == nil; it.Next() {
		var name string
		if name, err = decodeName(it.Value()); err == nil && len(it.Key()) > 9 {
			s.subscriptions.add(event.SubscriptionKey(it.Key()[1:9]), string(it.Key()[9:]), name)
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}
