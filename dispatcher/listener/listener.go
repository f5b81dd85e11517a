package listener

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/dispatcher/budget"
)

// DefaultConnections is how many connections a listener holds if its options do not say.
const DefaultConnections = 4096

// Options are the settings of a Listener.
type Options struct {
	// Name is the listener's label in the metrics.
	Name string
	// Connections bounds the connections of all clients; 0 means DefaultConnections.
	Connections int
	// SpareDescriptors are held back for this listener, for when the process has no other left.
	SpareDescriptors int
	// Judged is set if the handler calls Trust for each request. A connection that sent something and ends without a request
	// then counts as a refusal: such as one whose header is too long, which net/http answers by itself.
	Judged bool
	// Registerer gets the metrics; it may be nil.
	Registerer prometheus.Registerer
}

// Listener is a net.Listener with bounds. It is safe for concurrent use.
type Listener struct {
	net.Listener
	judged  bool
	limit   int64
	metrics *metrics
	spare   spare

	mu      sync.Mutex
	total   int64
	placed  uint64
	holders map[string]*holder // by Source; none that holds nothing
}

// holder is the connections of one address.
type holder struct {
	count int64
	// strangers carried no authorized request yet, or none the last time; idle ones wait for the next. The oldest is first.
	strangers, idle list.List
	// paid is when the refusals so far would have been answered at the pace of refusalInterval.
	paid time.Time
}

// conn is a connection that is counted.
type conn struct {
	net.Conn
	listener *Listener
	source   string
	pause    atomic.Int64  // a time.Duration that the next Read waits
	gone     chan struct{} // closed with the connection
	heard    atomic.Bool   // something was read

	// All of this is guarded by the listener's mu.
	trusted, active, closed bool
	judged                  bool       // a request came that was authorized or not
	refused                 bool       // the last request was not authorized
	in                      *list.List // of its holder; nil for one that must not be closed for another
	element                 *list.Element
	since                   uint64 // what is less is longer in its class
}

// New returns a Listener that accepts from inner. It fails if the metrics are registered already.
func New(inner net.Listener, options Options) (*Listener, error) {
	if options.Connections <= 0 {
		options.Connections = DefaultConnections
	}
	l := &Listener{Listener: inner, judged: options.Judged, limit: int64(options.Connections), holders: make(map[string]*holder)}
	l.spare.fill(options.SpareDescriptors)
	var err error
	l.metrics, err = newMetrics(options, l.open)
	return l, err
}

// Bind lets the server tell the listener what becomes of its connections. It sets ConnState and ConnContext.
func (l *Listener) Bind(server *http.Server) {
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if own := unwrap(c); own != nil {
			l.changed(own, state)
		}
	}
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if own := unwrap(c); own != nil {
			return context.WithValue(ctx, connKey{}, own)
		}
		return ctx
	}
}

type connKey struct{}

// unwrap returns the connection as Accept returned it, below TLS.
func unwrap(c net.Conn) *conn {
	if secured, ok := c.(*tls.Conn); ok {
		c = secured.NetConn()
	}
	own, _ := c.(*conn)
	return own
}

// Trust says of the connection that a request came on whether the request was authorized. ctx is the request's.
func Trust(ctx context.Context, trusted bool) {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return
	}
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	c.judged, c.refused = true, !trusted
	if c.trusted != trusted {
		c.trusted = trusted
		c.listener.place(c)
	}
}

// Accept returns the next connection that there is a place for.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
				return nil, err
			}
			l.metrics.starved.Inc()
			if l.spare.take() {
				continue
			}
			return nil, err // the server waits a moment: the error is a temporary one
		}
		c, victim := l.admit(inner)
		if victim != nil {
			_ = victim.Conn.Close()
		}
		if c != nil {
			return c, nil
		}
		l.metrics.refused.Inc()
		_ = inner.Close()
	}
}

// admit counts a connection, and returns the one that it takes the place of, if there has to be one. It returns neither
// if there is no place.
func (l *Listener) admit(inner net.Conn) (c, victim *conn) {
	source := ""
	if address := inner.RemoteAddr(); address != nil {
		source = Source(address.String())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	held := int64(0)
	if h := l.holders[source]; h != nil {
		held = h.count
	}
	if !budget.Fits(held, l.total, 1, l.limit) {
		if victim = l.victim(source, held); victim == nil {
			return nil, nil
		}
		l.forget(victim)
	}
	h := l.holders[source]
	if h == nil {
		h = &holder{}
		l.holders[source] = h
	}
	c = &conn{Conn: inner, listener: l, source: source, gone: make(chan struct{})}
	c.pauseFor(min(h.owes(time.Now()), newPause))
	h.count++
	l.total++
	l.place(c)
	return c, victim
}

// victim returns the connection that has to go for a new one of the source, which holds some already; nil if none does.
func (l *Listener) victim(source string, held int64) *conn {
	own := l.holders[source]
	if own.proven() && held < l.limit/provenPart {
		if c := l.foreignStranger(own); c != nil {
			l.metrics.strangers.Inc()
			return c
		}
	}
	strangers := func(h *holder) *list.List { return &h.strangers }
	if c := l.oldest(strangers, own, held); c != nil {
		l.metrics.strangers.Inc()
		return c
	}
	idle := func(h *holder) *list.List { return &h.idle }
	if c := l.oldest(idle, own, held+1); c != nil { // an address with hardly more is left alone
		l.metrics.idle.Inc()
		return c
	}
	return nil
}

// provenPart is the part of all connections up to which an address takes strangers' places once a client there has
// proved itself: however many addresses strangers come from, a producer keeps that many.
const provenPart = 16

// proven reports whether the address has a connection whose last request was authorized.
func (h *holder) proven() bool { return h != nil && h.count > int64(h.strangers.Len()) }

// weight is how many connections count when the address with most has to give one up. Those that proved themselves, up
// to their part, do not: a new connection there would otherwise be closed before its first request is read.
func (l *Listener) weight(h *holder) int64 {
	if h.proven() && h.count <= l.limit/provenPart {
		return int64(h.strangers.Len())
	}
	return h.count
}

// foreignStranger returns the oldest stranger of the address that has most of them, if own has fewer; otherwise nil.
func (l *Listener) foreignStranger(own *holder) *conn {
	var found *conn
	most := own.strangers.Len()
	for _, h := range l.holders {
		c, n := front(&h.strangers), h.strangers.Len()
		if n > most || (found != nil && n == most && c.since < found.since) {
			found, most = c, n
		}
	}
	return found
}

// oldest returns the oldest connection of a class, of the address that has most and more than held, or of own.
func (l *Listener) oldest(class func(*holder) *list.List, own *holder, held int64) *conn {
	var found *conn
	if own != nil {
		found = front(class(own))
	}
	most := held
	for _, h := range l.holders {
		c := front(class(h))
		if c == nil {
			continue
		}
		count := l.weight(h)
		if count <= held {
			continue
		}
		if count > most || (count == most && c.since < found.since) {
			found, most = c, count
		}
	}
	return found
}

func front(conns *list.List) *conn {
	if first := conns.Front(); first != nil {
		return first.Value.(*conn)
	}
	return nil
}

// changed notes what a connection does now.
func (l *Listener) changed(c *conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state {
	case http.StateActive:
		c.active = true
	case http.StateNew:
		c.active = false
	case http.StateIdle:
		c.active = false
		if c.refused && !c.closed { // it has its answer
			c.refused = false
			c.pauseFor(l.holders[c.source].bill(time.Now()))
		}
	case http.StateHijacked, http.StateClosed:
		return
	}
	l.place(c)
}

// place puts a connection last among those of its class.
func (l *Listener) place(c *conn) {
	if c.closed {
		return
	}
	h := l.holders[c.source]
	if c.in != nil {
		c.in.Remove(c.element)
	}
	switch {
	case !c.trusted:
		c.in = &h.strangers
	case !c.active:
		c.in = &h.idle
	default:
		c.in, c.element = nil, nil
		return
	}
	l.placed++
	c.element, c.since = c.in.PushBack(c), l.placed
}

// forget takes a connection out of the account.
func (l *Listener) forget(c *conn) {
	if c.closed {
		return
	}
	c.closed = true
	close(c.gone)
	h := l.holders[c.source]
	if c.refused || l.judged && !c.judged && c.heard.Load() {
		h.bill(time.Now())
	}
	if c.in != nil {
		c.in.Remove(c.element)
		c.in, c.element = nil, nil
	}
	l.total--
	if h.count--; h.count == 0 {
		delete(l.holders, c.source)
	}
}

// Close closes the connection and gives its place back.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.listener.mu.Lock()
	c.listener.forget(c)
	c.listener.mu.Unlock()
	c.listener.spare.refill()
	return err
}

// Close stops to accept, and lets the spare descriptors go.
func (l *Listener) Close() error {
	l.spare.close()
	return l.Listener.Close()
}

// open is how many connections there are.
func (l *Listener) open() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return float64(l.total)
}
