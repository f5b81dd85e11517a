package egress

import (
	"container/list"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// pool keeps connections that are not in use, at most limit, and each for no longer than timeout. There is no bound per
// host, nor on connections in use: it would couple subscriptions that share a host.
type pool struct {
	limit   int
	timeout time.Duration

	mu     sync.Mutex
	closed bool
	idle   map[string][]*list.Element // by endpoint, the one used last at the end
	order  *list.List                 // of *conn, the one used last in front
	reaper *time.Timer
}

func newPool(limit int, timeout time.Duration) *pool {
	return &pool{limit: limit, timeout: timeout, idle: map[string][]*list.Element{}, order: list.New()}
}

// get returns the endpoint's connection that was used last, if there is one that can be used again.
func (p *pool) get(key string) *conn {
	for {
		c := p.take(key)
		if c == nil || quiet(socketOf(c.Conn)) {
			return c
		}
		_ = c.Close()
	}
}

// socketOf is the connection below TLS.
func socketOf(c net.Conn) net.Conn {
	if secured, ok := c.(*tls.Conn); ok {
		return secured.NetConn()
	}
	return c
}

func (p *pool) take(key string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := p.idle[key]
	if len(waiting) == 0 {
		return nil
	}
	return p.remove(waiting[len(waiting)-1])
}

// remove takes e, which is the first or the last of its endpoint's, out of the pool.
func (p *pool) remove(e *list.Element) *conn {
	c := p.order.Remove(e).(*conn)
	waiting := p.idle[c.key]
	switch last := len(waiting) - 1; {
	case last == 0:
		delete(p.idle, c.key)
	case waiting[last] == e:
		waiting[last] = nil
		p.idle[c.key] = waiting[:last]
	default:
		waiting[0] = nil
		p.idle[c.key] = waiting[1:]
	}
	return c
}

// put keeps c for another attempt, in place of the one that was used longest ago if there are too many.
func (p *pool) put(c *conn) {
	_ = c.SetDeadline(time.Time{}) // if it fails, so does the next use
	c.reused, c.idleFrom = true, time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return
	}
	if p.order.Len() >= p.limit {
		_ = p.remove(p.order.Back()).Close()
	}
	p.idle[c.key] = append(p.idle[c.key], p.order.PushFront(c))
	if p.reaper == nil {
		p.reaper = time.AfterFunc(p.timeout, p.reap)
	}
}

// reap closes what was idle for too long.
func (p *pool) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaper = nil
	for e := p.order.Back(); e != nil; e = p.order.Back() {
		if wait := p.timeout - time.Since(e.Value.(*conn).idleFrom); wait > 0 && !p.closed {
			p.reaper = time.AfterFunc(wait, p.reap)
			return
		}
		_ = p.remove(e).Close()
	}
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
