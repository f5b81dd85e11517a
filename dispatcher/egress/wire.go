package egress

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// wire is a TCP connection as an attempt uses it, below TLS or right below HTTP. It does three things that a net.Conn
// does not:
//   - It waits for the endpoint without holding memory for what may come.
//   - It writes a small request without waiting, so that the answer can be read although the endpoint takes nothing.
//   - It follows TLS records (RFC 8446, section 5.1), so that a connection with a part of one is never used again.
type wire struct {
	net.Conn
	raw syscall.RawConn // nil where the connection is not a socket: reads then hold their memory

	// early came when nothing but its arrival was waited for; it is read first. memory is what it lies in.
	early  []byte
	memory *[readBuffer]byte
	take   func(fd uintptr) bool // for raw.Read
	failed error                 // of take
	// probing makes reads fail with errNothingYet where they would have to wait.
	probing bool
	records *records // nil below HTTP

	// patient is whether writes wait for the endpoint. An impatient one keeps what the socket does not take in pending.
	patient bool
	mu      sync.Mutex // of what is written: TLS may answer a key update while pending is flushed
	pending []byte
	give    func(fd uintptr) bool // for raw.Write
	given   []byte                // to give
	refused error                 // of give
}

// nothingYet is what a probe finds on a quiet connection. Package tls takes a temporary error for no damage.
type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing was received yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

// memories are of *[readBuffer]byte.
var memories = sync.Pool{New: func() any { return new([readBuffer]byte) }}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c, patient: true}
	if socket, ok := c.(syscall.Conn); ok && canPoll {
		if raw, err := socket.SyscallConn(); err == nil {
			w.raw, w.take, w.give = raw, w.takeNow, w.giveNow
		}
	}
	return w
}

// await returns as soon as there is something to read.
func (w *wire) await() error {
	switch {
	case len(w.early) > 0:
		return nil
	case w.raw != nil:
		w.failed = nil
		if err := w.raw.Read(w.take); err != nil {
			return err
		}
		return w.failed
	}
	memory := memories.Get().(*[readBuffer]byte)
	n, err := w.Conn.Read(memory[:])
	return w.keep(memory, n, err)
}

// takeNow reads what the socket has. It returns false if that is nothing, to be called again when it has something.
func (w *wire) takeNow(fd uintptr) bool {
	memory := memories.Get().(*[readBuffer]byte)
	n, err := readNow(fd, memory[:])
	if isEmpty(err) {
		memories.Put(memory)
		return false
	}
	w.failed = w.keep(memory, n, err)
	return true
}

// keep makes what was read into memory the next to be read.
func (w *wire) keep(memory *[readBuffer]byte, n int, err error) error {
	if n <= 0 {
		memories.Put(memory)
		if err == nil {
			err = io.EOF
		}
		return err
	}
	w.memory, w.early = memory, memory[:n]
	return nil
}

// Read reads what came early, or else from the socket.
func (w *wire) Read(b []byte) (n int, err error) {
	switch {
	case len(w.early) > 0:
		n = copy(b, w.early)
		if w.early = w.early[n:]; len(w.early) == 0 {
			memories.Put(w.memory)
			w.memory, w.early = nil, nil
		}
	case w.probing:
		err = nothingYet{}
	default:
		n, err = w.Conn.Read(b)
	}
	if w.records != nil {
		w.records.pass(b[:max(n, 0)])
	}
	return n, err
}

// Write writes b. An impatient write takes no time, and keeps what is left for flush.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.patient {
		return w.Conn.Write(b)
	}
	rest := b
	if len(w.pending) == 0 && w.raw != nil {
		w.given, w.refused = b, nil
		err := w.raw.Write(w.give)
		rest = w.given
		w.given = nil
		if err == nil {
			err = w.refused
		}
		if err != nil {
			return len(b) - len(rest), err
		}
	}
	w.pending = append(w.pending, rest...)
	return len(b), nil
}

// giveNow writes what the socket takes of given.
func (w *wire) giveNow(fd uintptr) bool {
	for len(w.given) > 0 {
		n, err := writeNow(fd, w.given)
		if n > 0 {
			w.given = w.given[n:]
		}
		if err != nil {
			if !isEmpty(err) {
				w.refused = err
			}
			break
		}
	}
	return true // what is left is flush's
}

// flush writes what impatient writes have left, and waits for it.
func (w *wire) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.Conn.Write(w.pending)
	w.pending = nil
	return err
}

// quiet reports whether the connection is open, and its endpoint has sent nothing that nobody asked for.
func (w *wire) quiet() bool {
	if len(w.early) > 0 {
		return false
	}
	return w.raw == nil || quietSocket(w.raw)
}

// records follows the boundaries of TLS records in what is read.
type records struct {
	header [recordHeader]byte
	have   int // bytes of header
	left   int // bytes of the record that are still to come
}

// recordHeader is the length of a record's header; its last two bytes are the length of what follows.
const recordHeader = 5

func (r *records) pass(b []byte) {
	for len(b) > 0 {
		if r.left > 0 {
			n := min(r.left, len(b))
			r.left, b = r.left-n, b[n:]
			continue
		}
		n := copy(r.header[r.have:], b)
		r.have, b = r.have+n, b[n:]
		if r.have == recordHeader {
			r.have, r.left = 0, int(r.header[3])<<8|int(r.header[4])
		}
	}
}

// whole reports whether the last record was read to its end.
func (r *records) whole() bool { return r.have == 0 && r.left == 0 }
