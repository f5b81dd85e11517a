package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
)

// The generator and the receiver speak just enough of HTTP/1.1 by themselves: net/http at their ends would cost more than
// what is measured.

// message is a request's or an answer's first line and what of its headers matters. Its slices are valid until the next
// read.
type message struct {
	start      []byte
	length     int // -1 if it is not told
	chunked    bool
	retryAfter int
}

// readMessage reads a message's head.
func readMessage(r *bufio.Reader, m *message) error {
	*m = message{start: m.start[:0], length: -1}
	line, err := readLine(r)
	if err != nil {
		return err
	}
	m.start = append(m.start, line...)
	for {
		line, err = readLine(r)
		if err != nil {
			return fmt.Errorf("read a header: %w", err)
		}
		if len(line) == 0 {
			return nil
		}
		switch {
		case hasName(line, "transfer-encoding:"):
			m.chunked = bytes.HasSuffix(line, []byte("chunked"))
		case hasName(line, "content-length:"):
			m.length, err = strconv.Atoi(string(bytes.TrimSpace(line[len("content-length:"):])))
		case hasName(line, "retry-after:"):
			m.retryAfter, err = strconv.Atoi(string(bytes.TrimSpace(line[len("retry-after:"):])))
		}
		if err != nil {
			return fmt.Errorf("read a header: %w", err)
		}
	}
}

func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), err
}

// hasName reports whether a header line begins with name, which is in lower case.
func hasName(line []byte, name string) bool {
	return len(line) > len(name) && line[0]|0x20 == name[0] && bytes.EqualFold(line[:len(name)], []byte(name))
}

var errNoLength = errors.New("a message has no Content-Length")

// readBody reads a message's body into b.
func readBody(r *bufio.Reader, m *message, b []byte) ([]byte, error) {
	switch {
	case m.chunked:
		return readChunks(r, b[:0])
	case m.length < 0:
		return b, errNoLength
	default:
		return appendBytes(r, b[:0], m.length)
	}
}

func readChunks(r *bufio.Reader, b []byte) ([]byte, error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return b, fmt.Errorf("read a chunk: %w", err)
		}
		size, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return b, fmt.Errorf("read a chunk's size: %w", err)
		}
		if b, err = appendBytes(r, b, int(size)); err != nil {
			return b, err
		}
		if _, err := readLine(r); err != nil { // the line break behind the chunk, or the end of no trailers
			return b, fmt.Errorf("read a chunk: %w", err)
		}
		if size == 0 {
			return b, nil
		}
	}
}

// appendBytes appends the next n bytes.
func appendBytes(r *bufio.Reader, b []byte, n int) ([]byte, error) {
	from := len(b)
	b = slices.Grow(b, n)[:from+n]
	if _, err := io.ReadFull(r, b[from:]); err != nil {
		return b, fmt.Errorf("read a body: %w", err)
	}
	return b, nil
}

// status returns the code of an answer's first line.
func (m *message) status() (int, error) {
	if len(m.start) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("answer %q is not HTTP", m.start)
	}
	code, err := strconv.Atoi(string(m.start[9:12]))
	if err != nil {
		return 0, fmt.Errorf("answer %q is not HTTP", m.start)
	}
	return code, nil
}

// path returns the path of a request's first line.
func (m *message) path() []byte {
	_, rest, _ := bytes.Cut(m.start, []byte(" "))
	path, _, _ := bytes.Cut(rest, []byte(" "))
	return path
}
