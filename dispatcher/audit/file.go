package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// file appends to a file, and takes back what a failed write left.
type file struct {
	*os.File
	size int64 // of whole lines
}

// openFile opens a trail to append to it, and returns its last record. A line that a crash cut off is taken out.
func openFile(name string) (opened *file, last line, hash digest, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, last, hash, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, last, hash, err
	}
	begin := max(0, info.Size()-2*maxLine)
	tail := make([]byte, info.Size()-begin)
	if _, err := f.ReadAt(tail, begin); err != nil && !errors.Is(err, io.EOF) {
		return nil, last, hash, err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	opened = &file{File: f, size: begin + int64(whole)}
	if len(tail) > 0 && whole == 0 {
		return nil, last, hash, fmt.Errorf("%s is no audit trail", name)
	}
	if whole > 0 {
		from := bytes.LastIndexByte(tail[:whole-1], '\n') + 1
		if last, _, hash, err = parse(tail[from : whole-1]); err != nil {
			return nil, last, hash, fmt.Errorf("the end of %s: %w", name, err)
		}
	}
	_, err = opened.Restore(0)
	return opened, last, hash, err
}

// Write appends lines.
func (f *file) Write(text []byte) (int, error) {
	n, err := f.WriteAt(text, f.size)
	if err == nil {
		f.size += int64(n)
	}
	return n, err
}

// Restore takes back what is behind the whole lines.
func (f *file) Restore(int) (int, error) { return 0, f.Truncate(f.size) }

// stream is an output that takes nothing back: the next write goes on where the last one failed.
type stream struct{ io.Writer }

// Restore takes nothing back.
func (*stream) Restore(written int) (int, error) { return written, nil }

// Sync does nothing: the reader keeps the lines.
func (*stream) Sync() error { return nil }

// Close does nothing: standard output is not this package's.
func (*stream) Close() error { return nil }
