package ingest

import (
	"errors"
	"io"
	"math/bits"
	"net/http"
	"os"
	"time"
)

// A body is received into chunks, each as large as all before it and a little more, so that what is held is at most
// twice what came and an accountStep: a client that announces much and sends little holds little. Then the chunks are
// joined.
const (
	firstChunk   = 4 << 10
	leastChunk   = 8 << 10
	largestChunk = 256 << 10
	// largestKept is the size of the largest joined buffers that are used again.
	largestKept = 1 << 20
	// keptOfASize bounds the memory of the buffers of each size that wait to be used again.
	keptOfASize = 1 << 20
	keptSizes   = 8 // leastChunk, doubled again and again, up to largestKept
)

// kept hold the buffers that wait to be used again, by size.
var kept = func() (all [keptSizes]chan []byte) {
	for i := range all {
		all[i] = make(chan []byte, keptOfASize/(leastChunk<<i))
	}
	return all
}()

// sizeClass is the index into kept of buffers of at least the given size.
func sizeClass(size int) int { return max(0, bits.Len(uint(size-1))-bits.Len(uint(leastChunk-1))) }

// getBuffer returns an empty buffer of the given size, which is one of kept or above largestKept.
func getBuffer(size int) []byte {
	if size <= largestKept {
		select {
		case b := <-kept[sizeClass(size)]:
			return b[:0]
		default:
		}
	}
	return make([]byte, 0, size)
}

func putBuffer(b []byte) {
	if cap(b) > largestKept {
		return
	}
	select {
	case kept[sizeClass(cap(b))] <- b:
	default:
	}
}

// bodyBuffer is what a request's body is read into. What it holds is charged to the account.
type bodyBuffer struct {
	account account
	// bytes are the whole body, once it was read.
	bytes []byte

	first  []byte   // the first chunk, which stays with the bodyBuffer
	chunks [][]byte // the others, all but the last full
	joined []byte
	size   int // of what was received
}

// read reads r's body, of at most limit bytes.
func (b *bodyBuffer) read(r *http.Request, limit int) error {
	if r.ContentLength > int64(limit) {
		return bodyTooLarge(limit)
	}
	if err := b.account.hold(firstChunk); err != nil {
		return err
	}
	if b.first == nil {
		b.first = make([]byte, 0, firstChunk)
	}
	r.Header.Del("Expect") // reading tells the client to send, and discard has to know
	for {
		last := b.last()
		if len(*last) == cap(*last) || b.size >= limit {
			more, err := b.probe(r.Body, limit)
			if err != nil {
				return err
			}
			if !more {
				return b.join()
			}
			continue
		}
		n, err := r.Body.Read((*last)[len(*last):min(cap(*last), len(*last)+limit-b.size)])
		*last = (*last)[:len(*last)+n]
		b.size += n
		if err == io.EOF {
			return b.join()
		}
		if err != nil {
			return readProblem(err)
		}
	}
}

// last is the chunk that is being filled.
func (b *bodyBuffer) last() *[]byte {
	if len(b.chunks) == 0 {
		return &b.first
	}
	return &b.chunks[len(b.chunks)-1]
}

// probe reads one byte of a body that has filled its chunks, and makes room for it and for more.
func (b *bodyBuffer) probe(body io.Reader, limit int) (more bool, err error) {
	var one [1]byte
	if _, err := io.ReadFull(body, one[:]); err != nil {
		if err == io.EOF {
			return false, nil
		}
		return false, readProblem(err)
	}
	if b.size >= limit {
		return false, bodyTooLarge(limit)
	}
	size := leastChunk << min(len(b.chunks), bits.Len(largestChunk/leastChunk)-1)
	if err := b.account.hold(int64(size)); err != nil {
		return false, err
	}
	b.chunks = append(b.chunks, append(getBuffer(size), one[0]))
	b.size++
	return true, nil
}

// join makes one piece of the chunks.
func (b *bodyBuffer) join() error {
	if len(b.chunks) == 0 {
		b.bytes = b.first
		return nil
	}
	size := b.size
	if size <= largestKept {
		size = leastChunk << sizeClass(size)
	}
	if err := b.account.hold(int64(size)); err != nil {
		return err
	}
	b.joined = append(getBuffer(size), b.first...)
	for _, chunk := range b.chunks {
		b.joined = append(b.joined, chunk...)
	}
	b.bytes = b.joined
	b.releaseChunks()
	return nil
}

func (b *bodyBuffer) releaseChunks() {
	for i, chunk := range b.chunks {
		b.account.drop(int64(cap(chunk)))
		putBuffer(chunk)
		b.chunks[i] = nil
	}
	b.chunks = b.chunks[:0]
}

// release gives the body back. Its bytes must not be used any more.
func (b *bodyBuffer) release() {
	b.releaseChunks()
	if b.joined != nil {
		b.account.drop(int64(cap(b.joined)))
		putBuffer(b.joined)
	}
	b.first, b.joined, b.bytes, b.size = b.first[:0], nil, nil, 0
}

// close gives back the body, and all else that was charged.
func (b *bodyBuffer) close() {
	b.release()
	b.account.close()
}

func bodyTooLarge(limit int) *problem {
	return newProblem(tooLarge, "the request's body is larger than %d bytes; send fewer events in one request", limit)
}

// readProblem says why a body could not be read to its end.
func readProblem(err error) error {
	if errors.Is(err, errLetGo) {
		return newProblem(overloaded, "memory is scarce, and the request's body came more slowly than others; send it again after the time in Retry-After").
			with("Connection", "close").retry(time.Second)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return newProblem(requestTimeout, "the request's body did not arrive in time; send it again").with("Connection", "close")
	}
	return newProblem(malformed, "the request's body ended before its announced length, or its chunks are malformed")
}
