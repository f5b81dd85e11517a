package simulation

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the volume of a dispatcher: it loses what was not synced, and can be full or broken for a while. How slow it is
// worldStore shows.
type disk struct {
	vfs.FS
	mem *vfs.MemFS

	mu     sync.Mutex
	free   uint64
	broken int    // writes after which one fails; negative for never
	crash  int    // writes after which the power fails; negative for never
	power  func() // what fails with it
	fatal  func() // ends the process, which could not write its log
	dead   bool   // nobody sees any more what is written
	lying  bool   // planted: a sync of the log comes too late
}

const (
	// volume is the size of a disk: small, so that memory tables and the ballast are.
	volume = 96 << 20
	// plenty is free while the disk is not full.
	plenty = 80 << 20
	// lag is by how much.
	lag = 10 * time.Second
	// yields is how often a sync of the log lets others run before. It takes no time: others may wait for a lock that is held
	// meanwhile, and a bubble's time stands still while anyone does.
	yields = 20
)

func newDisk(mem *vfs.MemFS) *disk {
	return &disk{FS: mem, mem: mem, free: plenty, broken: -1, crash: -1}
}

// change changes the disk under its lock.
func (d *disk) change(f func(*disk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

// write is called before each write to a file, and fails if the disk is broken or has no space. Only tables and logs fail. A
// process that cannot write its log ends at once; package pebble's tests see to that. Here it is ended instead of told, since
// what a real exit leaves locked would stop the bubble's time.
func (d *disk) write(name string, created bool) error {
	d.mu.Lock()
	var ends func()
	if d.crash >= 0 {
		if d.crash--; d.crash < 0 {
			ends = d.power
		}
	}
	var err error
	log := strings.HasSuffix(name, ".log")
	if !d.dead && (strings.HasSuffix(name, ".sst") || log && !created) {
		err = d.failure()
	}
	if log && err != nil && (errors.Is(err, syscall.EIO) || !d.hasBallast(name)) {
		err, ends = nil, d.fatal
	}
	if ends != nil {
		d.dead = true
	}
	d.mu.Unlock()
	if ends != nil {
		ends()
	}
	return err
}

// hasBallast reports whether there is something to give up beside a log.
func (d *disk) hasBallast(log string) bool {
	_, err := d.FS.Stat(d.PathJoin(d.PathDir(log), "BALLAST"))
	return err == nil
}

func (d *disk) failure() error {
	if d.free == 0 {
		return syscall.ENOSPC
	}
	if d.broken < 0 {
		return nil
	}
	if d.broken--; d.broken < 0 {
		return syscall.EIO
	}
	return nil
}

// GetDiskUsage is what is left of the volume.
func (d *disk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return vfs.DiskUsage{AvailBytes: d.free, TotalBytes: volume, UsedBytes: volume - d.free}, nil
}

// Create makes a file on the disk.
func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.write(name, true); err != nil {
		return nil, err
	}
	return d.wrap(name)(d.FS.Create(name, category))
}

// OpenReadWrite opens a file of the disk.
func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	return d.wrap(name)(d.FS.OpenReadWrite(name, category, options...))
}

// ReuseForWrite opens a file that was another.
func (d *disk) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.write(to, true); err != nil {
		return nil, err
	}
	return d.wrap(to)(d.FS.ReuseForWrite(from, to, category))
}

// Remove removes a file. What the ballast took is free then.
func (d *disk) Remove(name string) error {
	info, err := d.Stat(name)
	if err == nil && strings.HasSuffix(name, "BALLAST") {
		d.change(func(d *disk) { d.free = max(d.free, uint64(info.Size())) })
	}
	return d.FS.Remove(name)
}

// Unwrap hides the file system below, past which nothing may go.
func (d *disk) Unwrap() vfs.FS { return nil }

func (d *disk) wrap(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		return &diskFile{File: f, disk: d, name: name}, nil
	}
}

// diskFile is a file on a disk.
type diskFile struct {
	vfs.File
	disk *disk
	name string

	closing sync.Mutex
	closed  bool
}

func (f *diskFile) Write(b []byte) (int, error) {
	if err := f.disk.write(f.name, false); err != nil {
		return 0, err
	}
	return f.File.Write(b)
}

func (f *diskFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.disk.write(f.name, false); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, at)
}

func (f *diskFile) Sync() error { return f.sync(f.File.Sync) }

func (f *diskFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *diskFile) sync(how func() error) error {
	if err := f.disk.write(f.name, false); err != nil {
		return err
	}
	if !strings.HasSuffix(f.name, ".log") {
		return how()
	}
	for range yields {
		runtime.Gosched()
	}
	f.disk.mu.Lock()
	lying := f.disk.lying
	f.disk.mu.Unlock()
	if lying {
		go func() {
			<-time.After(lag)
			f.closing.Lock()
			defer f.closing.Unlock()
			if !f.closed {
				_ = how()
			}
		}()
		return nil
	}
	return how()
}

// Close closes the file.
func (f *diskFile) Close() error {
	f.disk.mu.Lock()
	lying := f.disk.lying
	f.disk.mu.Unlock()
	f.closing.Lock()
	defer f.closing.Unlock()
	if lying {
		_ = f.File.Sync()
	}
	f.closed = true
	return f.File.Close()
}
