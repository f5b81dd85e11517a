package egress

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// inlineWrite bounds a request that is written without a goroutine. What the socket does not take of it is copied.
	inlineWrite = 8 << 10
	// writeChunk is how much of a body is written at once: progress is told by it.
	writeChunk = 16 << 10
	// maxKeptRequest bounds the memory that is kept to write the next request into.
	maxKeptRequest = 64 << 10
)

// outgoing is a request to be written. Its memory is given back, and its body let go, as soon as it was written.
type outgoing struct {
	buffer *[]byte // holds all of a small request, or what comes before the rest of its body
	rest   []byte
	home   *sync.Pool // of buffer
	// written is called once the request was written; nil for nobody.
	written func()
}

// giveBack returns the buffer, unless it has grown too large.
func (o *outgoing) giveBack() {
	if cap(*o.buffer) > maxKeptRequest {
		*o.buffer = nil
	}
	o.home.Put(o.buffer)
	o.buffer, o.rest = nil, nil
}

func (o *outgoing) report() {
	if o.written != nil {
		o.written()
	}
}

// writing is a request that a goroutine writes, because the socket did not take it at once.
type writing struct {
	progress atomic.Int64  // chunks written
	done     chan struct{} // closed when nothing is read of the request any more
	err      error         // once done
}

// write writes o, or starts to: it returns what is still being written, nil if nothing is.
func (c *conn) write(o outgoing) (*writing, error) {
	if len(o.rest) > 0 || len(*o.buffer) > inlineWrite {
		return c.start(o, (*conn).writeAll), nil
	}
	c.wire.patient = false
	_, err := c.Conn.Write(*o.buffer)
	c.wire.patient = true
	o.giveBack()
	switch {
	case err != nil:
		return nil, err
	case len(c.wire.pending) > 0:
		return c.start(o, (*conn).flush), nil
	}
	o.report()
	return nil, nil
}

func (c *conn) start(o outgoing, by func(*conn, *outgoing, *writing) error) *writing {
	w := &writing{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		if w.err = by(c, &o, w); w.err == nil {
			o.report()
		}
	}()
	return w
}

func (c *conn) flush(*outgoing, *writing) error { return c.wire.flush() }

func (c *conn) writeAll(o *outgoing, w *writing) error {
	defer o.giveBack()
	_, err := c.Conn.Write(*o.buffer)
	for rest := o.rest; err == nil && len(rest) > 0; {
		n := min(len(rest), writeChunk)
		w.progress.Add(1)
		_, err = c.Conn.Write(rest[:n])
		rest = rest[n:]
	}
	return err
}

// under reports whether the request is still being written.
func (w *writing) under() bool {
	if w == nil {
		return false
	}
	select {
	case <-w.done:
		return false
	default:
		return true
	}
}

// end ends the writing, and returns when nothing of the request is read any more.
func (w *writing) end(c *conn) error {
	if w == nil {
		return nil
	}
	if w.under() {
		c.cut()
	}
	<-w.done
	return w.err
}

// finish lets the endpoint take the rest of the request, for as long as it takes some within drainTime.
func (w *writing) finish() {
	tick := time.NewTicker(drainTime)
	defer tick.Stop()
	for last := w.progress.Load(); ; {
		select {
		case <-w.done:
			return
		case <-tick.C:
			now := w.progress.Load()
			if now == last {
				return
			}
			last = now
		}
	}
}
