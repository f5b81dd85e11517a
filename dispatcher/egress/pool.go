package egress

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// poolKey is what two attempts must share to share a connection: the tenant, and all that decided how it was made.
type poolKey struct {
	tenant   string
	endpoint string // scheme, address, and what the target trusts and may reach
}

// pool keeps connections that are not in use: at most limit, none idle for longer than timeout, and none older than age.
// There is no bound per host, nor on connections in use: it would couple subscriptions that share a host.
//
// Tenants share the limit. In a full pool, a connection replaces one of its own tenant if that has its fair share, and
// else one of a tenant that has more.
type pool struct {
	limit        int
	timeout, age time.Duration
	// allowed reports whether a connection may still be used; nil if all may.
	allowed func(*conn) bool

	mu      sync.Mutex
	closed  bool
	idle    map[poolKey][]*conn // the one used last at the end
	tenants map[string]int      // how many each has; no tenant that has none
	order   *list.List          // of *conn, the one used last in front
	reaper  *time.Timer
}

func newPool(limit int, timeout, age time.Duration) *pool {
	return &pool{
		limit: limit, timeout: timeout, age: age,
		idle: map[poolKey][]*conn{}, tenants: map[string]int{}, order: list.New(),
	}
}

// get returns the connection of the key that was used last, if there is one that can be used again.
func (p *pool) get(key poolKey) *conn {
	for {
		c := p.take(key)
		if c == nil || (p.current(c) && c.wire.quiet()) {
			return c
		}
		_ = c.Close()
	}
}

// current reports whether c is young enough, and its name still has its address.
func (p *pool) current(c *conn) bool {
	return time.Since(c.born) < p.age && c.host.has(c) && p.allows(c)
}

func (p *pool) allows(c *conn) bool { return p.allowed == nil || p.allowed(c) }

// review closes what is not allowed any more. Connections in use are closed when they come back.
func (p *pool) review() {
	for _, c := range p.forbidden() {
		_ = c.Close()
	}
}

// forbidden takes out what is not allowed any more.
func (p *pool) forbidden() (all []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.order.Front(); e != nil; {
		c := e.Value.(*conn)
		e = e.Next()
		if !p.allows(c) {
			p.remove(c)
			all = append(all, c)
		}
	}
	return all
}

func (p *pool) take(key poolKey) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := p.idle[key]
	if len(waiting) == 0 {
		return nil
	}
	c := waiting[len(waiting)-1]
	p.remove(c)
	return c
}

// remove takes c out of the pool.
func (p *pool) remove(c *conn) {
	key := c.key
	p.order.Remove(c.place)
	if n := p.tenants[key.tenant]; n > 1 {
		p.tenants[key.tenant] = n - 1
	} else {
		delete(p.tenants, key.tenant)
	}
	waiting := p.idle[key]
	switch last := len(waiting) - 1; {
	case last == 0:
		delete(p.idle, key)
	case waiting[last] == c:
		waiting[last] = nil
		p.idle[key] = waiting[:last]
	default:
		i := slices.Index(waiting, c)
		p.idle[key] = slices.Delete(waiting, i, i+1)
	}
}

// put keeps c for another attempt, or closes it if it is too old.
func (p *pool) put(c *conn) {
	_ = c.SetDeadline(time.Time{}) // if it fails, so does the next use
	c.reused, c.idleFrom = true, time.Now()
	if !p.current(c) {
		_ = c.Close()
		return
	}
	if replaced := p.add(c); replaced != nil {
		_ = replaced.Close()
	}
}

// add adds c, and returns what has no place any more, nil if all have.
func (p *pool) add(c *conn) (replaced *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.allows(c) { // asked under the lock: review may have been here since
		return c
	}
	if p.order.Len() >= p.limit {
		replaced = p.victim(c.key.tenant)
		p.remove(replaced)
	}
	c.place = p.order.PushFront(c)
	p.tenants[c.key.tenant]++
	p.idle[c.key] = append(p.idle[c.key], c)
	if p.reaper == nil {
		p.reaper = time.AfterFunc(p.timeout, p.reap)
	}
	return replaced
}

// victim is what gives way to a connection of the tenant in a full pool.
func (p *pool) victim(tenant string) *conn {
	share := p.limit / len(p.tenants)
	own := p.tenants[tenant] >= max(share, 1)
	for e := p.order.Back(); e != nil; e = e.Prev() {
		c := e.Value.(*conn)
		if own && c.key.tenant == tenant || !own && p.tenants[c.key.tenant] > share {
			return c
		}
	}
	return p.order.Back().Value.(*conn) // all have their share: the one used longest ago
}

// reap closes what was idle for too long.
func (p *pool) reap() {
	for _, c := range p.expired() {
		_ = c.Close()
	}
}

// expired takes out what was idle for too long, everything if the pool is closed.
func (p *pool) expired() (all []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaper = nil
	for e := p.order.Back(); e != nil; e = p.order.Back() {
		c := e.Value.(*conn)
		if wait := p.timeout - time.Since(c.idleFrom); wait > 0 && !p.closed {
			p.reaper = time.AfterFunc(wait, p.reap)
			break
		}
		p.remove(c)
		all = append(all, c)
	}
	return all
}

// close closes every connection in the pool, and those that come.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	if p.reaper != nil {
		p.reaper.Stop()
	}
	p.mu.Unlock()
	p.reap()
}
