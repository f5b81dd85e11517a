package folder

import (
	"io/fs"
	"os"

	"github.com/fsnotify/fsnotify"
)

// notices tells that something changed in a folder, where the system does. A nil *notices never does.
type notices struct {
	dir     string
	watcher *fsnotify.Watcher
	watched fs.FileInfo // the folder as it was when it was added; nil if it is not watched
	changed chan struct{}
	done    chan struct{}
}

// newNotices returns notices of a folder, or nil where there are none to be had: then polling finds the changes.
func newNotices(dir string) *notices {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil
	}
	n := &notices{dir: dir, watcher: watcher, changed: make(chan struct{}, 1), done: make(chan struct{})}
	go n.forward()
	return n
}

// forward turns events and errors alike into notices: after an overflow, too, it is time to look.
func (n *notices) forward() {
	defer close(n.done)
	events, errs := n.watcher.Events, n.watcher.Errors
	for events != nil || errs != nil {
		select {
		case _, ok := <-events:
			if !ok {
				events = nil
				continue
			}
		case _, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
		}
		select {
		case n.changed <- struct{}{}:
		default:
		}
	}
}

// changes receives after something changed.
func (n *notices) changes() <-chan struct{} {
	if n == nil {
		return nil
	}
	return n.changed
}

// active reports whether the folder is watched.
func (n *notices) active() bool { return n != nil && n.watched != nil }

// follow watches the folder that now has the name: it may have been replaced by another.
func (n *notices) follow() {
	if n == nil {
		return
	}
	info, err := os.Stat(n.dir)
	if err == nil && n.watched != nil && os.SameFile(info, n.watched) {
		return
	}
	if n.watched != nil {
		_ = n.watcher.Remove(n.dir) // it is gone by itself if the folder is
		n.watched = nil
	}
	if err == nil && n.watcher.Add(n.dir) == nil {
		n.watched = info
	}
}

func (n *notices) close() {
	if n == nil {
		return
	}
	_ = n.watcher.Close()
	<-n.done
}
