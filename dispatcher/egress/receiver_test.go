package egress

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// receiver is an endpoint that behaves as no HTTP server would: it hands each connection to a function.
type receiver struct {
	url      string
	accepted atomic.Int64
	listener net.Listener
	mu       sync.Mutex
	open     map[net.Conn]bool
}

// newReceiver starts a receiver. When the test ends, it closes every connection and waits for serve to return.
func newReceiver(t testing.TB, serve func(net.Conn)) *receiver {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newReceiverAt(t, listener, serve)
}

// newReceiverAt is newReceiver with a listener of one's own.
func newReceiverAt(t testing.TB, listener net.Listener, serve func(net.Conn)) *receiver {
	t.Helper()
	r := &receiver{url: "http://" + listener.Addr().String(), listener: listener, open: map[net.Conn]bool{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.accepted.Add(1)
			r.track(conn, true)
			serving.Go(func() {
				defer r.track(conn, false)
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		r.mu.Lock()
		for conn := range r.open {
			conn.Close()
		}
		r.mu.Unlock()
		serving.Wait()
	})
	return r
}

func (r *receiver) track(conn net.Conn, open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if open {
		r.open[conn] = true
	} else {
		delete(r.open, conn)
	}
}

// connections are how many are open now.
func (r *receiver) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

// readRequest reads one request off conn and reports whether there was one.
func readRequest(b *bufio.Reader) bool {
	request, err := http.ReadRequest(b)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, request.Body)
	return err == nil
}

// answer serves conn: it writes the same answer to each request.
func answer(text string) func(net.Conn) {
	return func(conn net.Conn) {
		for b := bufio.NewReader(conn); readRequest(b); {
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
		}
	}
}

// stalled serves conn: it sends text, then nothing until the client hangs up.
func stalled(text string) func(net.Conn) {
	return func(conn net.Conn) {
		if !readRequest(bufio.NewReader(conn)) {
			return
		}
		_, _ = io.WriteString(conn, text)
		_, _ = io.Copy(io.Discard, conn)
	}
}

// endless serves conn: it sends text, then chunk again and again until the client hangs up.
func endless(text, chunk string) func(net.Conn) {
	return func(conn net.Conn) {
		if !readRequest(bufio.NewReader(conn)) {
			return
		}
		_, err := io.WriteString(conn, text)
		for err == nil {
			_, err = io.WriteString(conn, chunk)
		}
	}
}

// dripping serves conn: it sends text, then one byte at a time.
func dripping(text string, tick func()) func(net.Conn) {
	return func(conn net.Conn) {
		if !readRequest(bufio.NewReader(conn)) {
			return
		}
		_, err := io.WriteString(conn, text)
		for err == nil {
			tick()
			_, err = io.WriteString(conn, "x")
		}
	}
}

// reset serves conn: it reads a request and resets the connection.
func reset(conn net.Conn) {
	readRequest(bufio.NewReader(conn))
	_ = conn.(*net.TCPConn).SetLinger(0) // closing sends RST
}

const noContent = "HTTP/1.1 204 No Content\r\n\r\n"
