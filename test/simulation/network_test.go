package simulation

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// network carries the connections of a world. Nothing in it blocks but for a clock or a channel, so that a bubble's time
// goes on.
type network struct {
	seed uint64

	mu        sync.Mutex
	listeners map[string]*memListener
	pairs     map[*pair]struct{}
	weather   map[string]weather // by address that is dialled
	dialled   map[string]uint64  // how often, by address: what makes each connection's luck
	down      map[string]bool    // processes that are no more
}

// weather is what befalls connections to an address.
type weather struct {
	delay time.Duration // of each segment at most
	lost  bool          // connections are half open: what is written does not arrive, and nobody is told
	cut   int           // of 100 connections, how many break off after some bytes
}

func newNetwork(seed uint64) *network {
	return &network{
		seed: seed, listeners: map[string]*memListener{}, pairs: map[*pair]struct{}{}, weather: map[string]weather{},
		dialled: map[string]uint64{}, down: map[string]bool{},
	}
}

// luck is a source of random numbers for the nth thing of a name: the same in each run, whatever the scheduler does.
func luck(seed uint64, name string, n uint64) *rand.Rand {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s/%d", name, n)
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// memListener accepts the connections to an address.
type memListener struct {
	network *network
	owner   string
	address *net.TCPAddr
	backlog chan *memConn
	once    sync.Once
	closed  chan struct{}
}

// listen listens at an address for a process.
func (n *network) listen(owner, address string) (net.Listener, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, syscall.EADDRINUSE
	}
	l := &memListener{network: n, owner: owner, address: net.TCPAddrFromAddrPort(at), backlog: make(chan *memConn, 1024), closed: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		defer l.network.mu.Unlock()
		if l.network.listeners[l.address.String()] == l {
			delete(l.network.listeners, l.address.String())
		}
		close(l.closed)
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return l.address }

// dial connects a process to an address. It takes a round trip, for ever if the address is lost.
func (n *network) dial(ctx context.Context, owner, source, address string) (net.Conn, error) {
	n.mu.Lock()
	w := n.weather[address]
	count := n.dialled[address]
	n.dialled[address]++
	dead := n.down[owner]
	n.mu.Unlock()
	if dead {
		return nil, syscall.ENETUNREACH
	}
	random := luck(n.seed, address, count)
	begun := time.Now()
	if w.lost {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("dial: %w", ctx.Err())
		case <-time.After(synTimeout):
			return nil, syscall.ETIMEDOUT
		}
	}
	trip := time.NewTimer(minDelay + time.Duration(random.Int64N(int64(w.delay)+1)))
	defer trip.Stop()
	select {
	case <-trip.C:
	case <-ctx.Done():
		return nil, fmt.Errorf("dial: %w", ctx.Err())
	}
	return n.connect(owner, source, address, random, begun)
}

// synTimeout is when a system gives a connection up that nobody answers: Linux after 127 s.
const synTimeout = 127 * time.Second

// minDelay is how long every segment takes at least: so that a crash may fall between what is sent and what comes of it.
const minDelay = 200 * time.Microsecond

func (n *network) connect(owner, source, address string, random *rand.Rand, begun time.Time) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[address]
	if l == nil || n.down[owner] {
		return nil, syscall.ECONNREFUSED
	}
	p := &pair{network: n, address: address, owners: [2]string{owner, l.owner}, random: random, begun: begun, breaks: -1}
	if w := n.weather[address]; random.IntN(100) < w.cut {
		p.breaks = random.IntN(2000)
	}
	here, _ := netip.ParseAddrPort(source)
	from := net.TCPAddrFromAddrPort(here)
	p.ends[0] = &memConn{pair: p, local: from, remote: l.address, wake: make(chan struct{})}
	p.ends[1] = &memConn{pair: p, local: l.address, remote: from, wake: make(chan struct{})}
	p.ends[0].peer, p.ends[1].peer = p.ends[1], p.ends[0]
	select {
	case l.backlog <- p.ends[1]:
	default:
		return nil, syscall.ECONNREFUSED
	}
	n.pairs[p] = struct{}{}
	return p.ends[0], nil
}

// set makes the weather of an address. When a connection was half open once, nothing comes through it any more.
func (n *network) set(address string, w weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.weather[address] = w
	if !w.lost {
		return
	}
	for p := range n.pairs {
		if p.address == address {
			p.lose()
		}
	}
}

// cut resets all connections to an address.
func (n *network) cut(address string) {
	n.reset(func(p *pair) bool { return p.address == address })
}

// kill ends a process: its connections are reset, and it neither listens nor dials any more.
func (n *network) kill(owner string) {
	n.mu.Lock()
	n.down[owner] = true
	var owned []*memListener
	for _, l := range n.listeners {
		if l.owner == owner {
			owned = append(owned, l)
		}
	}
	n.mu.Unlock()
	for _, l := range owned {
		_ = l.Close()
	}
	n.reset(func(p *pair) bool { return p.owners[0] == owner || p.owners[1] == owner })
}

func (n *network) reset(of func(*pair) bool) {
	n.mu.Lock()
	var chosen []*pair
	for p := range n.pairs {
		if of(p) {
			chosen = append(chosen, p)
		}
	}
	n.mu.Unlock()
	for _, p := range chosen {
		p.reset()
	}
}

// open is how many connections there are.
func (n *network) open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.pairs)
}

// pair is both ends of a connection.
type pair struct {
	network *network
	address string
	owners  [2]string
	random  *rand.Rand
	begun   time.Time // when it was dialled

	mu     sync.Mutex
	ends   [2]*memConn
	lost   bool
	broken bool
	breaks int // bytes after which it breaks; negative for never
	closed int
}

func (p *pair) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost = true
}

// reset tells both ends at once.
func (p *pair) reset() {
	p.mu.Lock()
	p.broken = true
	p.ends[0].rouse()
	p.ends[1].rouse()
	p.mu.Unlock()
	p.forget()
}

func (p *pair) forget() {
	p.network.mu.Lock()
	defer p.network.mu.Unlock()
	delete(p.network.pairs, p)
}

// segment is what one write sent.
type segment struct {
	at, sent time.Time
	bytes    []byte
	end      bool
}

// memConn is one end of a connection. Its pair's mu guards all that changes.
type memConn struct {
	pair          *pair
	peer          *memConn
	local, remote *net.TCPAddr
	wake          chan struct{}

	inbox    []segment
	last     time.Time // when the newest segment in it arrives
	heard    time.Time // when what was read last had been sent
	closed   bool
	deadline [2]time.Time // for reading and writing
}

func (c *memConn) rouse() {
	close(c.wake)
	c.wake = make(chan struct{})
}

// Read reads what has arrived.
func (c *memConn) Read(b []byte) (int, error) {
	for {
		n, wait, wake, err := c.take(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		var timer *time.Timer
		var due <-chan time.Time
		if wait >= 0 {
			timer = time.NewTimer(wait)
			due = timer.C
		}
		select {
		case <-wake:
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// take reads what is there, or says how long to wait; wait is negative if only wake ends it.
func (c *memConn) take(b []byte) (n int, wait time.Duration, wake chan struct{}, err error) {
	p := c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	limit := c.deadline[0]
	switch {
	case c.closed:
		return 0, 0, nil, net.ErrClosed
	case p.broken:
		return 0, 0, nil, syscall.ECONNRESET
	case !limit.IsZero() && !now.Before(limit):
		return 0, 0, nil, os.ErrDeadlineExceeded
	}
	if len(c.inbox) > 0 && !c.inbox[0].at.After(now) {
		first := &c.inbox[0]
		if first.end {
			return 0, 0, nil, io.EOF
		}
		n = copy(b, first.bytes)
		c.heard = first.sent
		if first.bytes = first.bytes[n:]; len(first.bytes) == 0 {
			c.inbox = c.inbox[1:]
		}
		return n, 0, nil, nil
	}
	wait = -1
	if len(c.inbox) > 0 {
		wait = c.inbox[0].at.Sub(now)
	}
	if !limit.IsZero() && (wait < 0 || limit.Sub(now) < wait) {
		wait = limit.Sub(now)
	}
	return 0, wait, c.wake, nil
}

// Write sends b, and never waits: what is sent here fits into any socket.
func (c *memConn) Write(b []byte) (int, error) {
	return c.send(segment{bytes: append([]byte(nil), b...)})
}

func (c *memConn) send(s segment) (int, error) {
	delay := c.pair.network.delayOf(c.pair)
	p := c.pair
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	limit := c.deadline[1]
	switch {
	case c.closed && !s.end:
		return 0, net.ErrClosed
	case p.broken || c.peer.closed:
		return 0, syscall.EPIPE
	case !limit.IsZero() && !now.Before(limit) && !s.end:
		return 0, os.ErrDeadlineExceeded
	case p.lost:
		return len(s.bytes), nil
	}
	n := len(s.bytes)
	if p.breaks >= 0 {
		if p.breaks -= n; p.breaks < 0 {
			s.bytes = s.bytes[:max(n+p.breaks, 0)]
			p.broken = true
			p.ends[0].rouse()
			p.ends[1].rouse()
			return n, nil
		}
	}
	s.sent, s.at = now, now.Add(minDelay)
	if delay > 0 {
		s.at = s.at.Add(time.Duration(p.random.Int64N(int64(delay))))
	}
	if s.at.Before(c.peer.last) {
		s.at = c.peer.last
	}
	c.peer.last = s.at
	c.peer.inbox = append(c.peer.inbox, s)
	c.peer.rouse()
	return n, nil
}

func (n *network) delayOf(p *pair) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.weather[p.address].delay
}

// Close ends both directions. The other end reads what was sent before.
func (c *memConn) Close() error {
	c.pair.mu.Lock()
	if c.closed {
		c.pair.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	c.pair.closed++
	both := c.pair.closed == 2
	c.rouse()
	c.pair.mu.Unlock()
	_, _ = c.send(segment{end: true})
	if both {
		c.pair.forget()
	}
	return nil
}

func (c *memConn) LocalAddr() net.Addr  { return c.local }
func (c *memConn) RemoteAddr() net.Addr { return c.remote }

func (c *memConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *memConn) SetReadDeadline(t time.Time) error  { return c.limit(0, t) }
func (c *memConn) SetWriteDeadline(t time.Time) error { return c.limit(1, t) }

func (c *memConn) limit(which int, t time.Time) error {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.deadline[which] = t
	c.rouse()
	return nil
}

// begun is when the peer began what it asks here now: it sent that, or dialled for it.
func (c *memConn) begun(first bool) time.Time {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if first {
		return c.pair.begun
	}
	return c.heard
}
