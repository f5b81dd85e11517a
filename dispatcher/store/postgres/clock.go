package postgres

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clinikapi/eventflow/dispatcher/store"
)

// clock estimates the database's clock. Where that was set back, or another server with a slower one took over, it goes
// on from the time that the dispatchers have reached, and loses its lead little by little.
type clock struct {
	sync.Mutex
	base   time.Time // of this process, with its monotonic part
	start  int64     // what the clock is taken to have shown then, in Unix nanoseconds
	synced bool
	last   int64         // newest acceptance that is known
	shown  int64         // newest time that now returned
	lead   time.Duration // of the estimate before the database's clock, when that was asked last
}

const (
	// clockStep is how far the estimate moves at once: what is due and what ages goes by it, and it should not jump.
	clockStep = 50 * time.Millisecond
	// clockJump is from where on the estimate is so wrong that it jumps forward nevertheless.
	clockJump = time.Second
)

// sample takes in that the database's clock showed ns at some time between before and after, when the newest acceptance
// was last.
func (c *clock) sample(before, after time.Time, ns, last int64) {
	c.Lock()
	defer c.Unlock()
	c.last = max(c.last, last)
	uncertain := after.Sub(before) / 2
	middle, reached := before.Add(uncertain), max(ns, last)
	if !c.synced {
		c.base, c.start, c.synced = middle, reached, true
	}
	estimate := c.start + int64(middle.Sub(c.base))
	c.lead = time.Duration(estimate - ns)
	ahead := time.Duration(reached - estimate)
	switch {
	case ahead.Abs() <= uncertain:
		return // it may be right
	case ahead > clockJump:
		c.start += int64(ahead)
	default:
		c.start += int64(min(max(ahead, -clockStep), clockStep))
	}
}

// now is the estimate, in Unix nanoseconds. It never goes back.
func (c *clock) now() int64 {
	c.Lock()
	defer c.Unlock()
	c.shown = max(c.shown, c.start+int64(time.Since(c.base)))
	return c.shown
}

// leads reports whether the estimate is well before the database's clock.
func (c *clock) leads() bool {
	c.Lock()
	defer c.Unlock()
	return c.lead > clockJump
}

// accept notes the newest acceptance.
func (c *clock) accept(ns int64) {
	c.Lock()
	defer c.Unlock()
	c.last = max(c.last, ns)
}

func (c *clock) newest() int64 {
	c.Lock()
	defer c.Unlock()
	return c.last
}

// Now is the time that the store goes by: an estimate of the database's clock that does not go back. What works with
// the store's due times and ages should go by it, too.
func (s *Store) Now() time.Time {
	if s.options.Now != nil {
		return s.options.Now()
	}
	return moment(s.clock.now())
}

func (s *Store) now() int64 { return nanos(s.Now()) }

// latest is the later of now and the newest acceptance: periods never go back, whatever the clock does.
func (s *Store) latest() int64 { return max(s.now(), s.clock.newest()) }

// present is the time that a transaction goes by whose database's clock showed ns.
func (s *Store) present(ns int64) int64 {
	if s.options.Now != nil {
		return ns
	}
	return max(ns, s.clock.now())
}

// fixedNow is the argument that stands for the present time in statements: NULL, for the database's clock, if nobody
// set one.
func (s *Store) fixedNow() *int64 {
	if s.options.Now == nil {
		return nil
	}
	ns := nanos(s.options.Now())
	return &ns
}

// databaseNow is the database's clock in Unix nanoseconds.
const databaseNow = `(extract(epoch from clock_timestamp()) * 1000000)::bigint * 1000`

// syncClock asks the database for its time and the newest acceptance.
func (s *Store) syncClock(ctx context.Context) error {
	return s.control.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		var ns, last int64
		before := time.Now()
		err := c.QueryRow(ctx, s.sql(`SELECT `+databaseNow+`, (SELECT coalesce(max(last), 0) FROM eventflow.acceptors)`)).Scan(&ns, &last)
		if err == nil {
			s.clock.sample(before, time.Now(), ns, last)
		}
		return err
	})
}

const (
	pingPause   = time.Second
	pingAgain   = 200 * time.Millisecond // while the database is down
	pingTimeout = 2 * time.Second
)

// watch finds out whether the database can be used, until the store is closed.
func (s *Store) watch() {
	wait := pingPause
	for pause(s.closing, wait) {
		wait = pingPause
		if err := s.ping(); err != nil && s.closing.Err() == nil {
			s.noteFailure(err)
			s.pool.Reset()
			s.control.Reset()
			wait = pingAgain
		}
	}
}

// ping reports whether the database answers, and, if it did not before, whether it takes writes.
func (s *Store) ping() error {
	ctx, cancel := context.WithTimeout(s.closing, pingTimeout)
	defer cancel()
	if err := s.syncClock(ctx); err != nil {
		return err
	}
	if s.down.Load() == nil && !s.full.Load() {
		if err := s.checkWritable(ctx); err != nil {
			return err
		}
		s.shareTime(ctx)
		return nil
	}
	if err := s.tryWrite(ctx); err != nil {
		if !isLost(err) {
			return nil // still full
		}
		return err
	}
	s.noteSuccess()
	return nil
}

// saveTime keeps a time as if an event was accepted then.
const saveTime = `INSERT INTO eventflow.acceptors AS o (id, last) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET last = greatest(o.last, excluded.last)`

// shareTime tells those who ask, and those who start later, how far time has come, while the database does not know.
func (s *Store) shareTime(ctx context.Context) {
	if s.options.Now != nil || !s.clock.leads() {
		return
	}
	if _, err := s.control.Exec(ctx, s.sql(saveTime), s.options.Identity+"/clock", s.clock.now()); err != nil && s.closing.Err() == nil {
		s.options.Logger.Info("The time could not be shared; trying again", "reason", textOf(err))
	}
}

// tryWrite writes what an append writes first.
func (s *Store) tryWrite(ctx context.Context) error {
	_, err := s.control.Exec(ctx, s.sql(`INSERT INTO eventflow.acceptors (id, last) VALUES ($1, 0) ON CONFLICT (id) DO UPDATE SET last = excluded.last`), s.options.Identity+"/ping")
	return err
}

// nanos is t in Unix nanoseconds, 0 for what lies before and the greatest for what lies too far ahead.
func nanos(t time.Time) int64 {
	switch {
	case t.Unix() < 0:
		return 0
	case t.Unix() >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	default:
		return t.UnixNano()
	}
}

// moment is the time that nanos wrote.
func moment(ns int64) time.Time { return time.Unix(0, ns) }

// checkWritable asks whether a transaction may write, so that it is known before one fails.
func (s *Store) checkWritable(ctx context.Context) error {
	var readOnly string
	if err := s.control.QueryRow(ctx, `SELECT current_setting('transaction_read_only')`).Scan(&readOnly); err != nil {
		return err
	}
	if readOnly == "on" {
		return store.ErrReadOnly
	}
	return nil
}
