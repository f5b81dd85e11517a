package listener

import (
	"net"
	"time"
)

// The pace of an address whose requests are not authorized. Each of its connections is answered at once, and then read
// again when its turn comes: what waits is a socket, and a flood gets no more of the processor than this pace.
const (
	// refusalBurst refusals come without a pause, so that a producer whose token has expired learns of it at once.
	refusalBurst = 40
	// refusalInterval is the time between those that follow.
	refusalInterval = 50 * time.Millisecond
	// maxPause bounds the wait of one connection, well within the time that a server gives an idle one.
	maxPause = 10 * time.Second
	// newPause bounds the wait of a new connection, well within the time that a server gives a header.
	newPause = time.Second
)

// bill counts a refusal, and returns how long the connection that asked for it has to wait.
func (h *holder) bill(now time.Time) time.Duration {
	h.paid = later(h.paid, now.Add(-refusalBurst*refusalInterval)).Add(refusalInterval)
	if most := now.Add(maxPause); h.paid.After(most) {
		h.paid = most
	}
	return h.paid.Sub(now)
}

// owes is how far the address is ahead of its pace; not at all if a client there has proved itself, because a producer
// may have the same address as a flood.
func (h *holder) owes(now time.Time) time.Duration {
	if h.proven() {
		return 0
	}
	return max(0, h.paid.Sub(now))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// pauseFor makes the next Read wait.
func (c *conn) pauseFor(d time.Duration) {
	if d > 0 {
		c.listener.metrics.paused.Inc()
		c.pause.Store(int64(d))
	}
}

// Read reads what the client sends, after the pause that is due.
func (c *conn) Read(b []byte) (int, error) {
	if d := time.Duration(c.pause.Swap(0)); d > 0 {
		wait := time.NewTimer(d)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-c.gone:
			return 0, net.ErrClosed
		}
	}
	n, err := c.Conn.Read(b)
	if n > 0 && !c.heard.Load() {
		c.heard.Store(true)
	}
	return n, err
}
