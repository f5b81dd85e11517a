package seeds

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/envelope"
)

const (
	// defaultTenants bounds the tenants of a generation; there are two. Each costs envelope.Bytes at most.
	defaultTenants = 2048
	// maxAsking bounds the calls of the Keeper that are under way, askTimeout each of them.
	maxAsking  = 16
	askTimeout = 5 * time.Second
)

// Keys are a tenant's, as the store uses them.
type Keys struct {
	*envelope.Sealer
	// Blind says that ids, orders, keys of schedules and digests are looked up by what the Sealer makes of them. It is not
	// set for a tenant of which the store had something when its seed was made: that would not be found any more.
	Blind bool
}

// The marks of wrapped seeds.
const (
	markOpen  = 0
	markBlind = 1
)

// Options of a Cache.
type Options struct {
	Keeper Keeper
	Ring   *envelope.KeyRing
	// Store names the store, for the additional data of what is sealed.
	Store string
	// Known reports whether the store has something of the tenant already; nil for never.
	Known func(ctx context.Context, tenant string) (bool, error)
	// Namespace returns the name of the namespace that a tenant is, "" if it does not know; nil for never.
	Namespace func(tenant string) string
	// MaxTenants bounds what is kept in memory; 2048 if zero. The tenants used last are kept, up to twice as many.
	MaxTenants int
}

// Cache finds the keys of tenants. It is safe for concurrent use.
type Cache struct {
	options Options
	ring    atomic.Pointer[envelope.KeyRing]
	// newer and older are generations: what is used moves from the older to the newer, and what is not goes with the older.
	newer, older atomic.Pointer[generation]
	asking       chan struct{} // has room for the calls that may be under way

	mu      sync.Mutex // held to change the generations, and for flights
	flights map[flightKey]*flight
}

type generation struct {
	tenants sync.Map // of *Keys by tenant
	count   int      // under Cache.mu
}

type flightKey struct {
	tenant string
	create bool
}

// flight is a question to the Keeper that others may wait for.
type flight struct {
	done chan struct{}
	keys *Keys
	err  error
}

// New returns a cache that knows no tenant yet.
func New(options Options) *Cache {
	if options.MaxTenants <= 0 {
		options.MaxTenants = defaultTenants
	}
	c := &Cache{options: options, asking: make(chan struct{}, maxAsking), flights: map[flightKey]*flight{}}
	c.ring.Store(options.Ring)
	c.newer.Store(&generation{})
	c.older.Store(&generation{})
	return c
}

// Use makes ring the one to wrap and unwrap with.
func (c *Cache) Use(ring *envelope.KeyRing) { c.ring.Store(ring) }

// ForWriting returns the tenant's keys, and makes its seed if it has none.
func (c *Cache) ForWriting(ctx context.Context, tenant string) (*Keys, error) {
	return c.find(ctx, tenant, true)
}

// ForReading returns the tenant's keys, or ErrNone if it has no seed, or none any more.
func (c *Cache) ForReading(ctx context.Context, tenant string) (*Keys, error) {
	return c.find(ctx, tenant, false)
}

func (c *Cache) find(ctx context.Context, tenant string, create bool) (*Keys, error) {
	if keys, ok := c.newer.Load().tenants.Load(tenant); ok {
		return keys.(*Keys), nil
	}
	if keys, ok := c.older.Load().tenants.Load(tenant); ok {
		c.remember(tenant, keys.(*Keys))
		return keys.(*Keys), nil
	}
	return c.ask(ctx, flightKey{tenant, create})
}

// remember puts the tenant's keys into the newer generation.
func (c *Cache) remember(tenant string, keys *Keys) {
	c.mu.Lock()
	defer c.mu.Unlock()
	newer := c.newer.Load()
	if newer.count >= c.options.MaxTenants {
		c.older.Store(newer)
		newer = &generation{}
		c.newer.Store(newer)
	}
	if _, known := newer.tenants.Swap(tenant, keys); !known {
		newer.count++
	}
}

// forget takes the tenant out of memory.
func (c *Cache) forget(tenant string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	newer := c.newer.Load()
	if _, known := newer.tenants.LoadAndDelete(tenant); known {
		newer.count--
	}
	c.older.Load().tenants.Delete(tenant)
}

// ask asks the Keeper, or waits for another that does. The question goes on when the first that asked gives up.
func (c *Cache) ask(ctx context.Context, key flightKey) (*Keys, error) {
	if f := c.flightOf(key); f != nil {
		return f.wait(ctx)
	}
	free, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	select {
	case c.asking <- struct{}{}:
	case <-free.Done():
		return nil, fmt.Errorf("get a tenant's seed: %w", free.Err())
	}
	c.mu.Lock()
	f := c.flights[key]
	if f == nil { // it may have ended while this call waited; to ask once more does no harm
		f = &flight{done: make(chan struct{})}
		c.flights[key] = f
		go c.answer(context.WithoutCancel(ctx), key, f)
	} else {
		<-c.asking
	}
	c.mu.Unlock()
	return f.wait(ctx)
}

func (c *Cache) flightOf(key flightKey) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flights[key]
}

func (f *flight) wait(ctx context.Context) (*Keys, error) {
	select {
	case <-f.done:
		return f.keys, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Cache) answer(ctx context.Context, key flightKey, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	f.keys, f.err = c.get(ctx, key.tenant, key.create)
	if f.err == nil {
		c.remember(key.tenant, f.keys)
	}
	c.mu.Lock()
	delete(c.flights, key)
	c.mu.Unlock()
	<-c.asking
	close(f.done)
}

// get reads the tenant's record, or makes it.
func (c *Cache) get(ctx context.Context, tenant string, create bool) (*Keys, error) {
	r, err := c.options.Keeper.Get(ctx, tenant)
	if errors.Is(err, ErrNone) && create {
		r, err = c.create(ctx, tenant)
	}
	if err != nil {
		return nil, fmt.Errorf("get a tenant's seed: %w", err)
	}
	return c.open(r)
}

func (c *Cache) open(r Record) (*Keys, error) {
	seed, mark, _, err := c.ring.Load().Unwrap(r.Tenant, r.Seed)
	if err != nil {
		return nil, fmt.Errorf("unwrap a tenant's seed: %w", err)
	}
	sealer, err := envelope.New(seed, r.Tenant, c.options.Store, nil)
	if err != nil {
		return nil, err
	}
	return &Keys{Sealer: sealer, Blind: mark == markBlind}, nil
}

// create makes the tenant's seed, unless another was faster.
func (c *Cache) create(ctx context.Context, tenant string) (Record, error) {
	mark := byte(markBlind)
	if c.options.Known != nil {
		known, err := c.options.Known(ctx, tenant)
		if err != nil {
			return Record{}, fmt.Errorf("ask whether the tenant is known: %w", err)
		}
		if known {
			mark = markOpen
		}
	}
	seed, err := envelope.NewSeed(nil)
	if err != nil {
		return Record{}, err
	}
	r := Record{Tenant: tenant}
	if c.options.Namespace != nil {
		r.Namespace = c.options.Namespace(tenant)
	}
	if r.Seed, err = c.ring.Load().Wrap(tenant, seed, mark); err != nil {
		return Record{}, err
	}
	err = c.options.Keeper.Create(ctx, r)
	if errors.Is(err, ErrExists) {
		return c.options.Keeper.Get(ctx, tenant)
	}
	return r, err
}

// Delete forgets the tenant's seed, for good: nothing that was sealed with it opens any more, here or in a copy. Another
// process that shares the Keeper forgets it with its next Refresh.
func (c *Cache) Delete(ctx context.Context, tenant string) error {
	if err := c.options.Keeper.Delete(ctx, tenant); err != nil {
		return fmt.Errorf("delete a tenant's seed: %w", err)
	}
	c.forget(tenant)
	return nil
}

// Refreshed is what Refresh found.
type Refreshed struct {
	// Tenants have a seed; Rewrapped of them were wrapped by an earlier key, and are now by the current one. Locked need a
	// key that is not in the ring.
	Tenants, Rewrapped, Locked int
}

// Refresh wraps with the current key what an earlier one has wrapped, and forgets the tenants whose seed is gone. Once it
// found nothing to do, earlier keys can be deleted.
func (c *Cache) Refresh(ctx context.Context) (found Refreshed, err error) {
	ring := c.ring.Load()
	kept := map[string]bool{}
	err = c.options.Keeper.List(ctx, func(r Record) error {
		found.Tenants++
		kept[r.Tenant] = true
		seed, mark, key, err := ring.Unwrap(r.Tenant, r.Seed)
		switch {
		case errors.Is(err, envelope.ErrNoKey):
			found.Locked++
			return nil
		case err != nil:
			return fmt.Errorf("unwrap a tenant's seed: %w", err)
		case key == ring.Current():
			return nil
		}
		next := r
		if next.Seed, err = ring.Wrap(r.Tenant, seed, mark); err != nil {
			return err
		}
		if err = c.options.Keeper.Replace(ctx, r, next); err == nil {
			found.Rewrapped++
		} else if errors.Is(err, ErrExists) {
			err = nil // another was faster, or it was deleted
		}
		return err
	})
	if err != nil {
		return found, fmt.Errorf("refresh the seeds: %w", err)
	}
	for _, g := range []*generation{c.newer.Load(), c.older.Load()} {
		g.tenants.Range(func(tenant, _ any) bool {
			if kept[tenant.(string)] {
				return true
			}
			// It may have been made since the list was read.
			if _, err := c.options.Keeper.Get(ctx, tenant.(string)); errors.Is(err, ErrNone) {
				c.forget(tenant.(string))
			}
			return ctx.Err() == nil
		})
	}
	return found, nil
}
