package egress

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// What is taken of an answer. Nothing of it is ever used but its status and Retry-After; the rest is read only to keep
// the connection, which is worth neither more bytes nor more time than this.
const (
	maxResponseHeader = 64 << 10
	drainBytes        = 64 << 10
	drainTime         = 250 * time.Millisecond
	// readBuffer is the size of a connection's buffer: most answers are a few lines.
	readBuffer = 2 << 10
)

var errTooLong = errors.New("the answer is too long")

// conn is a connection to an endpoint, used by one attempt at a time. The attempt's own goroutine writes and reads it:
// the two further ones that http.Transport keeps for each connection, and the wake-ups between them, cost more than all
// else that an attempt does.
type conn struct {
	net.Conn
	key    string // of its endpoint
	reader *bufio.Reader
	// budget is how many bytes may still be read for this attempt; answered is set once there was one.
	budget   int
	answered bool
	reused   bool
	idleFrom time.Time
	// release ends what lets the end of an attempt's context cut the attempt off; it returns false if that has happened.
	release func() bool
}

func newConn(c net.Conn, key string) *conn {
	made := &conn{Conn: c, key: key}
	made.reader = bufio.NewReaderSize(made, readBuffer)
	return made
}

// cut makes whatever waits for the connection fail.
func (c *conn) cut() { _ = c.SetDeadline(time.Unix(1, 0)) }

// Read reads from the endpoint, within the budget.
func (c *conn) Read(b []byte) (int, error) {
	if c.budget <= 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(b[:min(len(b), c.budget)])
	c.budget -= n
	c.answered = c.answered || n > 0
	return n, err
}

// post is what http.ReadResponse has to know of the request.
var post = &http.Request{Method: http.MethodPost}

// roundTrip writes a request and reads the answer's headers. Informational answers are skipped; the budget bounds them,
// too.
func (c *conn) roundTrip(request []byte) (*http.Response, error) {
	c.budget, c.answered = maxResponseHeader, false
	_, failed := c.Write(request)
	// An endpoint that does not want the rest of a request answers and closes: the answer counts, if there is one.
	for {
		response, err := http.ReadResponse(c.reader, post)
		switch {
		case err != nil && failed != nil:
			return nil, failed
		case err != nil:
			return nil, err
		case response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols:
			response.Close = response.Close || failed != nil
			return response, nil
		}
	}
}

// drain reads the answer's body if that is cheap, and tells whether the connection can be used again. An endless body,
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
	return err == nil && c.reader.Buffered() == 0
}
