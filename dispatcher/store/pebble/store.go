package pebble

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Store is an open store. It implements store.Store.
type Store struct {
	options Options
	dir     string
	id      string
	db      *pebble.DB
	lock    *pebble.Lock // nil if the engine holds it

	memTable int64 // bytes, from the volume's size when the store was opened

	failure atomic.Pointer[error]
	full    atomic.Bool
	opened  atomic.Bool
	// reading is the file that the engine read last while it was opened.
	reading atomic.Pointer[string]

	// users of the engine, which must not be closed before they are done.
	life struct {
		sync.Mutex
		closed bool
		users  int
		idle   chan struct{} // closed once closed is set and users is 0
	}
	closing  context.Context
	close    context.CancelFunc
	work     sync.WaitGroup // the background goroutines
	outcomes syncs

	clock struct {
		sync.Mutex
		last uint64 // newest acceptance, in Unix nanoseconds
	}
	ahead         time.Duration // how far the store's clock is ahead of the machine's
	claims        claims
	subscriptions subscriptions

	// owner is told of what is planned, while it owns the shards.
	owner struct {
		sync.RWMutex
		is delivery.Owner
	}

	// ledger is held by whoever changes the standing of deliveries: Record, Replay, Append of what plans or cancels.
	ledger ledger
	// starts are in one order with what is decided with the ledger in hand; see Start.
	starts starts
	// dropping is held for reading while a record and its event are looked up, so that no bucket goes in between.
	dropping                  sync.RWMutex
	events, delivered, failed buckets
	ids                       buckets
	retention                 atomic.Pointer[Retention]
	idFilter                  idFilter
	expiring                  sync.Mutex
	// horizon is the time, in Unix nanoseconds, before which events are dropped unless something refers to them. It is
	// set by the holder of ledger and of committing, so that whatever was written before is seen by the sweep.
	horizon    atomic.Uint64
	committing sync.RWMutex
	sweeping   sweeping

	space   space
	trouble trouble
	ballast struct {
		sync.Mutex
		held atomic.Int64 // bytes
	}
	counted chan struct{} // closed once the pending deliveries were counted
	tidying chan struct{} // holds something if history is to go before its time
	metrics *metrics
}

var _ store.Store = (*Store)(nil)

// enter must succeed before the engine is used, and leave follow.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.failure.Load(); err != nil {
		return *err
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

// Close waits for the calls under way, and releases the directory. A second Close does nothing.
func (s *Store) Close() error {
	s.life.Lock()
	if s.life.closed {
		s.life.Unlock()
		return nil
	}
	s.life.closed = true
	s.close()
	if s.life.users == 0 {
		close(s.life.idle)
	}
	s.life.Unlock()
	<-s.life.idle
	s.work.Wait()
	s.metrics.unregister()
	// What Record wrote last need not be lost.
	err := errors.Join(s.db.LogData(nil, pebble.Sync), s.db.Close())
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	if err != nil {
		return fmt.Errorf("close store %s: %w", s.dir, err)
	}
	return nil
}

// Ready returns nil while the store accepts events.
func (s *Store) Ready() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	s.life.Lock()
	defer s.life.Unlock()
	switch {
	case s.life.closed:
		return store.ErrClosed
	case s.full.Load():
		return store.ErrFull
	default:
		return nil
	}
}

// commit writes the batch, or ends the process. It fails with store.ErrFull if the batch adds events or pending
// deliveries for which there is no room.
func (s *Store) commit(b *pebble.Batch, durable *pebble.WriteOptions) error {
	written := s.outcomes.written.Load()
	defer func() {
		// Pebble panics if the log failed before.
		if r := recover(); r != nil {
			s.fail(fmt.Errorf("write to the log: %v", r))
		}
	}()
	s.committing.RLock()
	defer s.committing.RUnlock()
	c, err := s.contentsOf(b)
	if err != nil {
		return err
	}
	if err := s.charge(&c, b.Len()); err != nil {
		return err
	}
	if err = b.Commit(durable); err != nil {
		s.release(&c)
	}
	if err == nil && durable.GetSync() {
		s.outcomes.reached(written)
	}
	return err
}

// now is the time in Unix nanoseconds.
func (s *Store) now() uint64 { return nanos(s.Now()) }

// Now is the machine's clock, or ahead of it: see goOnFrom.
func (s *Store) Now() time.Time { return s.options.Now().Add(s.ahead) }

// acceptances returns the first of n consecutive nanoseconds that no event was accepted at, and now.
func (s *Store) acceptances(n int) (first, now uint64) {
	s.clock.Lock()
	defer s.clock.Unlock()
	now = s.now()
	first = max(now, s.clock.last+1)
	s.clock.last = first + uint64(n) - 1
	return first, now
}

// latest is the later of now and the newest acceptance: buckets never go back, whatever the clock does.
func (s *Store) latest(now uint64) uint64 {
	s.clock.Lock()
	defer s.clock.Unlock()
	return max(now, s.clock.last)
}

// get calls use with the value of key, which is nil if there is none. use must not keep it.
func get(from pebble.Reader, key []byte, use func(value []byte) error) error {
	value, closer, err := from.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return use(nil)
	}
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	return errors.Join(use(value), closer.Close())
}

// subscription is what is kept of one in memory.
type subscription struct {
	namespace, name string
	tenant          tenant
}

// subscriptions are all that ever had a delivery, by key and by namespace. A key names one subscription, whose namespace
// cannot change; should a manifest use one uid in two namespaces, both list only their own events.
type subscriptions struct {
	sync.RWMutex
	known      map[event.SubscriptionKey]subscription
	namespaces map[string]map[event.SubscriptionKey]string // names
}

// subscription returns what is known of the subscription with the given key; nothing, if it never had a delivery.
func (s *Store) subscription(key event.SubscriptionKey) (subscription, error) {
	if sub, ok := s.subscriptions.get(key); ok {
		return sub, nil
	}
	// Its first Append may have been committed, and not returned yet.
	prefix := appendSubscriptionKey(nil, spaceSubscription, key)
	if err := s.readSubscriptions(prefix, successor(prefix)); err != nil {
		return subscription{}, err
	}
	sub, _ := s.subscriptions.get(key)
	return sub, nil
}

func (s *subscriptions) get(key event.SubscriptionKey) (subscription, bool) {
	s.RLock()
	defer s.RUnlock()
	sub, ok := s.known[key]
	return sub, ok
}

// has reports whether sub was recorded as it is.
func (s *subscriptions) has(sub *delivery.Subscription) bool {
	known, ok := s.get(sub.Key)
	return ok && known.namespace == sub.Tenant && known.name == sub.Name
}

func (s *subscriptions) add(key event.SubscriptionKey, namespace, name string) {
	s.Lock()
	defer s.Unlock()
	names := s.namespaces[namespace]
	if names == nil {
		names = map[event.SubscriptionKey]string{}
		s.namespaces[namespace] = names
	}
	names[key] = name
	s.known[key] = subscription{namespace: namespace, name: name, tenant: tenantOf(namespace)}
}

// name of the namespace's subscription, and false if it has none such.
func (s *subscriptions) name(namespace string, key event.SubscriptionKey) (string, bool) {
	s.RLock()
	defer s.RUnlock()
	name, ok := s.namespaces[namespace][key]
	return name, ok
}

// named returns the keys of all of the namespace's subscriptions, or of those with the name.
func (s *subscriptions) named(namespace, name string) []event.SubscriptionKey {
	s.RLock()
	defer s.RUnlock()
	var keys []event.SubscriptionKey
	for key, have := range s.namespaces[namespace] {
		if name == "" || name == have {
			keys = append(keys, key)
		}
	}
	return keys
}

// Counts returns the subscription's counts.
func (s *Store) Counts(ctx context.Context, sub event.SubscriptionKey) (delivery.Counts, error) {
	if err := s.enter(ctx); err != nil {
		return delivery.Counts{}, err
	}
	defer s.leave()
	c, err := s.counts(s.db, sub)
	return c.Counts, err
}

func (s *Store) counts(from pebble.Reader, sub event.SubscriptionKey) (tally, error) {
	var c tally
	err := get(from, appendSubscriptionKey(make([]byte, 0, 16), spaceCounts, sub), func(value []byte) (err error) {
		if value != nil {
			c, err = decodeCounts(value)
		}
		return err
	})
	return c, err
}

const (
	spacePause  = time.Second
	expirePause = time.Minute
)

// watch looks after free space until the store is closed.
func (s *Store) watch() {
	defer s.work.Done()
	space := time.NewTicker(cmp.Or(s.options.SpacePause, spacePause))
	defer space.Stop()
	for {
		select {
		case <-s.closing.Done():
			return
		case <-space.C:
			s.checkSpace()
		}
	}
}

// checkSpace looks at the volume, keeps the ballast, and lets history go where space is short.
func (s *Store) checkSpace() {
	s.look()
	s.keepBallast()
	if s.space.low() {
		select {
		case s.tidying <- struct{}{}:
		default:
		}
	}
}

// tidy looks after retention until the store is closed.
func (s *Store) tidy() {
	defer s.work.Done()
	expiry := time.NewTicker(expirePause)
	defer expiry.Stop()
	for {
		var err error
		select {
		case <-s.closing.Done():
			return
		case <-s.tidying:
			err = s.makeRoom()
			s.pause(roomPause)
		case <-expiry.C:
			err = s.Expire(s.options.Now())
		}
		if err != nil && !errors.Is(err, store.ErrClosed) && s.closing.Err() == nil {
			s.options.Logger.Error(oneLineError(err), "Dropping old deliveries failed; trying again", "pause", expirePause)
		}
	}
}
