package pebble

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFS ends the process in good order when the engine cannot end a log or begin another: Pebble panics then, and the
// panic, unlocking what is not locked, ends the process with a page of stack traces.
type logFS struct {
	vfs.FS
	store *Store
}

// Unwrap returns the file system below.
func (fs logFS) Unwrap() vfs.FS { return fs.FS }

// Open opens a file for reading, and notes which, so that what is wrong with it can be said.
func (fs logFS) Open(name string, options ...vfs.OpenOption) (vfs.File, error) {
	if !fs.store.opened.Load() {
		fs.store.reading.Store(&name)
	}
	return fs.FS.Open(name, options...)
}

// Create creates a file.
func (fs logFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	return fs.watch(f, name, err)
}

// ReuseForWrite makes an old file a new one.
func (fs logFS) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(oldName, newName, category)
	return fs.watch(f, newName, err)
}

// watch returns the file that was created, or a log that stops the store when it fails.
func (fs logFS) watch(f vfs.File, name string, err error) (vfs.File, error) {
	if !strings.HasSuffix(name, ".log") {
		return f, err
	}
	if err != nil {
		return nil, fs.stop("create", name, err)
	}
	return watched{File: f, fs: fs, name: name}, nil
}

// stop ends the process because of an error, unless the store is being opened: Open returns the error then.
func (fs logFS) stop(what, name string, err error) error {
	if err != nil && fs.store.opened.Load() {
		fs.store.fail(fmt.Errorf("%s %s: %w", what, name, err))
	}
	return err
}

// OpenDir opens a directory, whose sync makes a new log durable.
func (fs logFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return watched{File: f, fs: fs, name: name}, nil
}

// watched is a log, or the directory.
type watched struct {
	vfs.File
	fs   logFS
	name string
}

// Write appends to the log.
func (w watched) Write(b []byte) (int, error) {
	n, err := w.File.Write(b)
	return n, w.fs.stop("write", w.name, err)
}

// Sync makes a log, or the directory's entries, durable.
func (w watched) Sync() error { return w.fs.stop("sync", w.name, w.File.Sync()) }

// SyncData makes a log's content durable.
func (w watched) SyncData() error { return w.fs.stop("sync", w.name, w.File.SyncData()) }

// SyncTo makes the beginning of a log durable.
func (w watched) SyncTo(length int64) (bool, error) {
	full, err := w.File.SyncTo(length)
	return full, w.fs.stop("sync", w.name, err)
}

// Close closes the log.
func (w watched) Close() error { return w.fs.stop("close", w.name, w.File.Close()) }
