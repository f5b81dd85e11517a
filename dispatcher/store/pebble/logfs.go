package pebble

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFS ends the process in good order when the engine cannot begin a new log: Pebble panics then, and the panic, holding
// a lock that it released, ends the process with a page of stack traces.
type logFS struct {
	vfs.FS
	store *Store
}

// Unwrap returns the file system below.
func (fs logFS) Unwrap() vfs.FS { return fs.FS }

// Create creates a file.
func (fs logFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	return f, fs.check(name, err)
}

// ReuseForWrite makes an old file a new one.
func (fs logFS) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(oldName, newName, category)
	return f, fs.check(newName, err)
}

// check stops the store if a log could not be made, unless it is being opened: Open returns the error then.
func (fs logFS) check(name string, err error) error {
	if err != nil && strings.HasSuffix(name, ".log") {
		fs.stop(fmt.Errorf("create %s: %w", name, err))
	}
	return err
}

func (fs logFS) stop(err error) {
	if fs.store.opened.Load() {
		fs.store.fail(err)
	}
}

// OpenDir opens a directory, whose sync makes a new log durable.
func (fs logFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return directory{File: f, fs: fs, name: name}, nil
}

type directory struct {
	vfs.File
	fs   logFS
	name string
}

// Sync makes the directory's entries durable.
func (d directory) Sync() error {
	err := d.File.Sync()
	if err != nil {
		d.fs.stop(fmt.Errorf("sync %s: %w", d.name, err))
	}
	return err
}
