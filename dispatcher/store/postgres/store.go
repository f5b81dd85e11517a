package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/figures"
)

// Store keeps events and deliveries in a PostgreSQL database that many dispatchers share.
type Store struct {
	options Options
	id      string
	pool    *pgxpool.Pool
	// control is apart from pool, so that leases are renewed however busy that is.
	control *pgxpool.Pool
	metrics *figures.Set

	closing context.Context
	stop    context.CancelFunc
	// ending ends once Close is called, closing once no call is under way any more.
	ending context.Context
	end    context.CancelFunc
	work   sync.WaitGroup // the background goroutines
	life   struct {
		sync.Mutex
		closed bool
		users  int
		idle   chan struct{} // closed once closed is set and users is 0
	}

	pooled    atomic.Bool           // a pooler is in between that does not know prepared statements
	down      atomic.Pointer[error] // why the database cannot be used now
	full      atomic.Bool
	clock     clock
	calls     chan *call
	large     chan struct{} // holds something for each large call on its way
	events    chan *eventRead
	starts    chan *startCall
	periods   periods
	retention atomic.Pointer[Retention]
	known     knownSubscriptions
	ownership ownership
	forgotten atomic.Int64 // the hour in which keys were forgotten last
	texts     sync.Map     // statements with their tables' names filled in
}

var _ store.Store = (*Store)(nil)

// Open connects to the database and brings its schema up to date. It fails with ErrUnreachable, ErrTooOld,
// ErrNewerSchema or ErrNotMigrated, in one line that shows nothing of the URL.
func Open(ctx context.Context, options Options) (*Store, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	config, err := options.poolConfig()
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	s := &Store{options: options, calls: make(chan *call, maxWaiting), large: make(chan struct{}, committers-1), events: make(chan *eventRead), starts: make(chan *startCall)}
	s.life.idle = make(chan struct{})
	s.retention.Store(&options.Retention)
	s.closing, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.ending, s.end = context.WithCancel(s.closing)
	if err := s.open(ctx, config); err != nil {
		s.stop()
		s.closePools()
		return nil, fmt.Errorf("open the store: %w", err)
	}
	s.metrics = newMetrics(s, options.Registerer)
	for n := range committers {
		s.work.Go(func() { s.commitCalls(n) })
	}
	for range eventReaders {
		s.work.Go(s.readEvents)
	}
	for range starters {
		s.work.Go(s.startCalls)
	}
	s.work.Go(s.watch)
	s.work.Go(s.keepHouse)
	s.work.Go(func() { s.metrics.Run(s.closing) })
	return s, nil
}

func (s *Store) open(ctx context.Context, config *pgxpool.Config) error {
	var err error
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		if s.pooled.Load() && c.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
			c.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		}
		return nil
	}
	// Nothing is connected yet.
	if s.pool, err = pgxpool.NewWithConfig(s.closing, config); err != nil {
		return errURL
	}
	few := config.Copy()
	few.MaxConns, few.MinConns, few.MinIdleConns = 3, 0, 0
	if s.control, err = pgxpool.NewWithConfig(s.closing, few); err != nil {
		return errURL
	}
	err = s.prepare(ctx)
	if isPooled(err) {
		s.notePooler(err)
		err = s.prepare(ctx)
	}
	return err
}

// ID names the store: a copy of the database has the same, and no other store has it.
func (s *Store) ID() string { return s.id }

// prepare makes the database ready for use.
func (s *Store) prepare(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if err := s.pool.QueryRow(ctx, s.sql(`SELECT store FROM eventflow.identity WHERE id = 1`)).Scan(&s.id); err != nil {
		return concealed(err)
	}
	if err := s.syncClock(ctx); err != nil {
		return concealed(err)
	}
	if err := s.makePeriods(ctx); err != nil {
		return notMigrated(err)
	}
	return nil
}

// connect waits for a server that accepts writes.
func (s *Store) connect(ctx context.Context) error {
	deadline := time.Now().Add(s.options.ConnectWait)
	for logged := false; ; logged = true {
		err := s.control.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return checkServer(ctx, c.Conn()) })
		switch {
		case err == nil || errors.Is(err, ErrTooOld) || isPooled(err) || ctx.Err() != nil:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("%w: %w", lossOf(err), concealed(err))
		case !logged:
			s.options.Logger.Info("Waiting for the database", "reason", textOf(err), "atMost", s.options.ConnectWait)
		}
		pause(ctx, min(time.Second, max(time.Until(deadline), 10*time.Millisecond)))
	}
}

// Close waits for the calls under way, and closes the connections. A second Close does nothing.
func (s *Store) Close() error {
	s.life.Lock()
	if s.life.closed {
		s.life.Unlock()
		return nil
	}
	s.life.closed = true
	s.end()
	if s.life.users == 0 {
		close(s.life.idle)
	}
	s.life.Unlock()
	<-s.life.idle
	s.stop()
	s.work.Wait()
	s.metrics.Unregister()
	s.closePools()
	return nil
}

func (s *Store) closePools() {
	for _, pool := range []*pgxpool.Pool{s.pool, s.control} {
		if pool != nil {
			pool.Close()
		}
	}
}

// enter must succeed before the database is used, and leave follow.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.life.Lock()
	defer s.life.Unlock()
	if s.life.closed {
		return store.ErrClosed
	}
	s.life.users++
	return nil
}

func (s *Store) leave() {
	s.life.Lock()
	defer s.life.Unlock()
	s.life.users--
	if s.life.closed && s.life.users == 0 {
		close(s.life.idle)
	}
}

// Ready returns nil while the store accepts events.
func (s *Store) Ready() error {
	s.life.Lock()
	closed := s.life.closed
	s.life.Unlock()
	down := s.down.Load()
	switch {
	case closed:
		return store.ErrClosed
	case down != nil:
		return *down
	case s.full.Load():
		return store.ErrFull
	default:
		return nil
	}
}

// noteFailure keeps why the database cannot be used, if err is of that kind.
func (s *Store) noteFailure(err error) {
	s.notePooler(err)
	switch {
	case code(err) == codeDiskFull:
		if !s.full.Swap(true) {
			s.options.Logger.Info("The database's volume is full: events are refused")
		}
	case isLost(err) && s.closing.Err() == nil:
		reason := fmt.Errorf("%w: %w", lossOf(err), concealed(err))
		if s.down.Swap(&reason) == nil {
			s.options.Logger.Info("The database cannot be used: events are refused", "reason", textOf(err))
		}
		if !pgconn.Timeout(err) {
			s.pool.Reset() // whatever else is connected leads to the same server
		}
	}
}

// lossOf is the kind of a failure after which the database cannot be used.
func lossOf(err error) error {
	if isReadOnly(err) {
		return store.ErrReadOnly
	}
	return ErrUnreachable
}

// notePooler gives prepared statements up, if err says that they do not work.
func (s *Store) notePooler(err error) {
	if !isPooled(err) || s.pooled.Swap(true) {
		return
	}
	s.options.Logger.Info("A pooler does not know prepared statements: the database plans each statement anew")
	s.pool.Reset()
	s.control.Reset()
}

// noteSuccess notes that the database accepts writes.
func (s *Store) noteSuccess() {
	if s.full.Load() {
		s.full.Store(false)
		s.options.Logger.Info("The database's volume has space again: events are accepted")
	}
	if s.down.Load() != nil {
		s.down.Store(nil)
		s.options.Logger.Info("The database can be used again")
	}
}

// textKey is a statement and the tables whose names it is filled in with.
type textKey struct{ statement, one, two string }

// sql returns a statement with the schema's name, and for @1 and @2 those of tables.
func (s *Store) sql(statement string, tables ...string) string {
	key := textKey{statement: statement}
	if len(tables) > 0 {
		key.one = tables[0]
	}
	if len(tables) > 1 {
		key.two = tables[1]
	}
	if text, ok := s.texts.Load(key); ok {
		return text.(string)
	}
	schema := s.options.Schema + "."
	text := strings.NewReplacer("eventflow.", schema, "@1", schema+key.one, "@2", schema+key.two).Replace(statement)
	s.texts.Store(key, text)
	return text
}

// The settings of a transaction. It ends by itself where this process does not end it, so that no lock outlives it.
const (
	settingsDurable = `SELECT set_config('idle_in_transaction_session_timeout', $1, true), set_config('statement_timeout', $1, true)`
	settingsLazy    = `SELECT set_config('idle_in_transaction_session_timeout', $1, true), set_config('statement_timeout', $1, true), set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', 'off', true)`
)

// settingsIndexed keep a plan that was made while a table was small from being used when it is large.
const settingsIndexed = `SELECT set_config('enable_seqscan', 'off', true)`

// begin queues the beginning of a transaction.
func (s *Store) begin(b *pgx.Batch, settings string) {
	b.Queue("begin")
	b.Queue(settings, fmt.Sprintf("%dms", s.options.Timeout.Milliseconds()))
}

// afterBegin are the readers of a transaction's first answers, behind those to what begin queued.
func afterBegin(readers ...func(pgx.BatchResults) error) []func(pgx.BatchResults) error {
	return append(make([]func(pgx.BatchResults) error, 2, 2+len(readers)), readers...)
}

// connection is one that is the caller's until it is released.
type connection struct {
	*pgxpool.Conn
	store *Store
	ctx   context.Context
	end   context.CancelFunc
}

// acquire takes a connection for a transaction, which the store's timeout bounds.
func (s *Store) acquire(ctx context.Context, pool *pgxpool.Pool) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	conn, err := s.acquireUntil(ctx, pool)
	if err != nil {
		cancel()
		return nil, err
	}
	conn.end = cancel
	return conn, nil
}

// acquireUntil takes a connection for a transaction that ctx bounds.
func (s *Store) acquireUntil(ctx context.Context, pool *pgxpool.Pool) (*connection, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, store: s, ctx: ctx, end: func() {}}, nil
}

// send sends what is queued, and hands each answer in turn to one of the readers; nil passes over one.
func (c *connection) send(b *pgx.Batch, readers ...func(pgx.BatchResults) error) error {
	results := c.SendBatch(c.ctx, b)
	var failed error
	for _, read := range readers {
		if read == nil {
			_, failed = results.Exec()
		} else {
			failed = read(results)
		}
		if failed != nil {
			break
		}
	}
	err := errors.Join(failed, results.Close())
	c.store.notePooler(err)
	return err
}

// release gives the connection back; in the middle of a transaction, which that rolls back. A second one does nothing.
func (c *connection) release() {
	if c.Conn == nil {
		return
	}
	defer c.end()
	if !c.Conn.Conn().IsClosed() && c.Conn.Conn().PgConn().TxStatus() != 'I' {
		_, _ = c.Exec(c.ctx, "rollback", pgx.QueryExecModeSimpleProtocol) // if it fails, the connection is closed
	}
	c.Release()
	c.Conn = nil
}

// transact runs f in a transaction of its own, again if it met contention.
func (s *Store) transact(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	return retry(ctx, 5, func() error {
		conn, err := s.acquire(ctx, s.pool)
		if err != nil {
			return err
		}
		defer conn.release()
		b := &pgx.Batch{}
		s.begin(b, settingsDurable)
		if err := conn.send(b); err != nil {
			return err
		}
		if err := f(conn.ctx, conn.Conn.Conn()); err != nil {
			return err
		}
		_, err = conn.Exec(conn.ctx, "commit")
		return err
	})
}
