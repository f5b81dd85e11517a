package ingest

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// budget bounds the bytes that publishes hold in memory, all together.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take reserves n bytes, or none.
func (b *budget) take(n int) bool {
	if b.used.Add(int64(n)) > b.limit {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

func (b *budget) give(n int) { b.used.Add(-int64(n)) }

// bufferSizes are the sizes in which a body's buffer grows. A client that announces much and sends little holds the
// smallest.
var bufferSizes = [...]int{8 << 10, 128 << 10, 1 << 20, maxRequestBytes}

// bufferPools hold buffers that are not in use, one pool for each of bufferSizes.
var bufferPools [len(bufferSizes)]sync.Pool

// bodyBuffer is what a request's body is read into.
type bodyBuffer struct {
	budget *budget
	size   int // index into bufferSizes
	bytes  []byte
	box    *[]byte // what the pool holds, so that putting bytes back allocates nothing
	taken  int     // from budget
}

// grow moves what was read to the next size; it fails if the budget does not allow it.
func (b *bodyBuffer) grow() error {
	next := 0
	if b.box != nil {
		next = b.size + 1
	}
	if err := b.reserve(bufferSizes[next]); err != nil {
		return err
	}
	box, ok := bufferPools[next].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, 0, bufferSizes[next])
		box = &fresh
	}
	*box = append((*box)[:0], b.bytes...)
	if b.box != nil {
		bufferPools[b.size].Put(b.box)
		b.budget.give(bufferSizes[b.size])
		b.taken -= bufferSizes[b.size]
	}
	b.size, b.box, b.bytes = next, box, *box
	return nil
}

// reserve takes n bytes of the budget until release.
func (b *bodyBuffer) reserve(n int) error {
	if !b.budget.take(n) {
		return newProblem(overloaded, "more is being published at once than this dispatcher holds in memory; send the request again after the time in Retry-After").retry(time.Second)
	}
	b.taken += n
	return nil
}

// release gives back the buffer, and all that was reserved. The bytes must not be used any more.
func (b *bodyBuffer) release() {
	if b.box != nil {
		bufferPools[b.size].Put(b.box)
	}
	b.budget.give(b.taken)
	b.box, b.bytes, b.taken, b.size = nil, nil, 0, 0
}

// read reads r's body, of at most limit bytes.
func (b *bodyBuffer) read(r *http.Request, limit int) error {
	if r.ContentLength > int64(limit) {
		return bodyTooLarge(limit)
	}
	if err := b.grow(); err != nil {
		return err
	}
	r.Header.Del("Expect") // reading tells the client to send, and discard has to know
	for {
		if len(b.bytes) == cap(b.bytes) || len(b.bytes) >= limit {
			more, err := b.probe(r.Body, limit)
			if !more {
				return err
			}
		}
		n, err := r.Body.Read(b.bytes[len(b.bytes):min(cap(b.bytes), limit)])
		b.bytes = b.bytes[:len(b.bytes)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return readProblem(err)
		}
	}
}

// probe reads one byte of a body that has filled its buffer, and makes room for it and for more.
func (b *bodyBuffer) probe(body io.Reader, limit int) (more bool, err error) {
	var one [1]byte
	if _, err := io.ReadFull(body, one[:]); err != nil {
		if err == io.EOF {
			return false, nil
		}
		return false, readProblem(err)
	}
	if len(b.bytes) >= limit {
		return false, bodyTooLarge(limit)
	}
	if len(b.bytes) == cap(b.bytes) {
		if err := b.grow(); err != nil {
			return false, err
		}
	}
	b.bytes = append(b.bytes, one[0])
	return true, nil
}

func bodyTooLarge(limit int) *problem {
	return newProblem(tooLarge, "the request's body is larger than %d bytes; send fewer events in one request", limit)
}

// readProblem says why a body could not be read to its end.
func readProblem(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return newProblem(requestTimeout, "the request's body did not arrive in time; send it again").with("Connection", "close")
	}
	return newProblem(malformed, "the request's body ended before its announced length, or its chunks are malformed")
}

// discard reads on for a bounded while, so that a client that writes its whole request before it reads sees the answer
// instead of a broken connection. It tells whether it has seen the end.
func discard(r *http.Request) (done bool) {
	if r.Body == nil || r.Body == http.NoBody {
		return true
	}
	if r.Header.Get("Expect") != "" {
		return false // the client waits for a word before it sends, and gets the answer instead
	}
	n, err := io.CopyN(io.Discard, r.Body, maxRequestBytes+1)
	return errors.Is(err, io.EOF) && n <= maxRequestBytes
}
