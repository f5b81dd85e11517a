package egress

import (
	"bufio"
	"container/list"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// What is taken of an answer. Nothing of it is ever used but its status and Retry-After; the rest is read only to keep
// the connection, which is worth neither more bytes nor more time than this.
const (
	maxResponseHeader = 64 << 10
	drainBytes        = 64 << 10
	drainTime         = 250 * time.Millisecond
	// readBuffer is the size of the buffers of answers: most are a few lines.
	readBuffer = 2 << 10
)

var errTooLong = errors.New("the answer is too long")

// conn is a connection to an endpoint, used by one attempt at a time. The attempt's own goroutine reads it, and writes
// what is small: the two further ones that http.Transport keeps for each connection, and the wake-ups between them,
// cost more than all else that an attempt does.
type conn struct {
	net.Conn       // wire, or TLS above it
	wire     *wire // what carries it
	key      poolKey
	place    *list.Element // in the pool, while it is idle
	// reader holds the answer, while there is one; a connection that waits has none.
	reader *bufio.Reader
	// first is the answer's first byte, if TLS gave it before there was a reader.
	first     [1]byte
	firstRead bool
	// budget is how many bytes may still be read for this attempt; answered is set once there was one.
	budget   int
	answered bool
	reused   bool
	born     time.Time
	idleFrom time.Time
	host     *host // that it was dialled by; nil for an address
	// rules and plaintext are its target's, and judged the guard that allowed it last.
	rules     []Rule
	plaintext bool
	version   uint16 // of TLS; 0 without
	judged    *guard
	// release ends what lets the end of an attempt's context cut the attempt off; it returns false if that has happened.
	release func() bool
}

// newConn returns a connection over w; secured is w, or TLS above it.
func newConn(secured net.Conn, w *wire, key poolKey) *conn {
	return &conn{Conn: secured, wire: w, key: key, born: time.Now()}
}

func (c *conn) secured() (*tls.Conn, bool) {
	secured, ok := c.Conn.(*tls.Conn)
	return secured, ok
}

// remote is the address at the other end; the zero one if it has none.
func (c *conn) remote() netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

// cut makes whatever waits for the connection fail.
func (c *conn) cut() { _ = c.SetDeadline(time.Unix(1, 0)) }

// Close closes the connection and waits for nothing: TLS says goodbye only if the socket takes it.
func (c *conn) Close() error {
	c.wire.patient = false
	c.host.forget()
	c.host = nil
	return c.Conn.Close()
}

// readers are of *bufio.Reader.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}

// Read reads from the endpoint, within the budget.
func (c *conn) Read(b []byte) (int, error) {
	if c.budget <= 0 {
		return 0, errTooLong
	}
	b = b[:min(len(b), c.budget)]
	if c.firstRead && len(b) > 0 {
		c.firstRead = false
		b[0] = c.first[0]
		c.budget--
		return 1, nil
	}
	n, err := c.Conn.Read(b)
	c.budget -= n
	return n, err
}

// begin waits for the answer's first byte. While it waits, the attempt holds no memory for the answer, and its stack is
// as shallow as can be.
func (c *conn) begin() error {
	secured, isTLS := c.secured()
	for !c.answered {
		if err := c.wire.await(); err != nil {
			return err
		}
		if !isTLS {
			c.answered = true
			break
		}
		// What came may be a session ticket, or a part of a record: then it is taken, and the waiting goes on.
		n, err := c.probe(secured)
		c.answered, c.firstRead = n > 0, n > 0
		if n == 0 && !errors.Is(err, nothingYet{}) {
			return err
		}
	}
	return nil
}

// probe reads a byte, if TLS has one or can decrypt one out of what came.
func (c *conn) probe(secured *tls.Conn) (int, error) {
	c.wire.probing = true
	defer func() { c.wire.probing = false }()
	return secured.Read(c.first[:])
}

// post is what http.ReadResponse has to know of the request.
var post = &http.Request{Method: http.MethodPost}

// response reads the answer's headers. Informational answers are skipped; the budget bounds them, too.
func (c *conn) response() (*http.Response, error) {
	c.budget = maxResponseHeader
	c.reader = readers.Get().(*bufio.Reader)
	c.reader.Reset(c)
	for {
		response, err := http.ReadResponse(c.reader, post)
		switch {
		case err != nil:
			return nil, err
		case response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols:
			return response, nil
		}
	}
}

// capture reads what an outcome reads of an answer. A body that is too long is not an error, and left out.
func (c *conn) capture(response *http.Response, into *Answer) error {
	into.Header = response.Header
	if !into.WantBody || response.Body == http.NoBody || response.ContentLength > MaxAnswer {
		return nil
	}
	c.budget = 2*MaxAnswer + maxResponseHeader // chunks and trailers count, too
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxAnswer+1))
	c.budget = 0
	switch {
	case errors.Is(err, errTooLong) || len(body) > MaxAnswer:
		return nil
	case err != nil:
		return fmt.Errorf("read the answer: %w", err)
	}
	into.Body = body
	return nil
}

// drain reads the answer's body if that is cheap, and reports whether the connection can be used again. An endless body,
// or one that comes byte by byte, holds the attempt no longer than drainTime.
func (c *conn) drain(response *http.Response) bool {
	defer func() { _ = response.Body.Close() }() // reads nothing more: the budget is spent
	if response.Close || response.StatusCode == http.StatusSwitchingProtocols || response.ContentLength > drainBytes {
		c.budget = 0
		return false
	}
	if response.Body != http.NoBody && int64(c.reader.Buffered()) < max(response.ContentLength, 1) {
		_ = c.SetDeadline(time.Now().Add(drainTime)) // if it fails, so does the read
	}
	c.budget = drainBytes
	_, err := io.Copy(io.Discard, response.Body)
	c.budget = 0
	return err == nil && c.clean()
}

// clean reports whether everything that came was read as a part of the answer. What is left would be taken for the
// answer to the next request: bytes that HTTP has not read, that TLS has not given, that TLS has not decrypted, or that
// are a part of a record. The socket is asked when the connection is taken again.
func (c *conn) clean() bool {
	if c.reader.Buffered() > 0 || c.firstRead {
		return false
	}
	if secured, ok := c.secured(); ok {
		if n, err := c.probe(secured); n > 0 || !errors.Is(err, nothingYet{}) || !c.wire.records.whole() {
			return false
		}
	}
	return len(c.wire.early) == 0 && len(c.wire.pending) == 0
}

// letGo returns the answer's buffer. Nothing of the answer may be used any more.
func (c *conn) letGo() {
	if c.reader != nil {
		c.reader.Reset(nil)
		readers.Put(c.reader)
		c.reader = nil
	}
	c.budget, c.answered = 0, false
}
