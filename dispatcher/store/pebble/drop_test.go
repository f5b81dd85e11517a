package pebble_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// stalledFS is a file system on which a sync of the log takes until it is let go, once stall was called.
type stalledFS struct {
	vfs.FS
	mu      sync.Mutex
	stalled chan struct{} // closed by the sync that is held up first; nil while none is to be
	goOn    chan struct{}
}

func (fs *stalledFS) stall() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.stalled = make(chan struct{})
}

func (fs *stalledFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, category)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return stalledFile{f, fs}, nil
}

type stalledFile struct {
	vfs.File
	fs *stalledFS
}

func (f stalledFile) SyncData() error {
	f.fs.mu.Lock()
	first := f.fs.stalled
	f.fs.stalled = nil
	f.fs.mu.Unlock()
	if first != nil {
		close(first)
		<-f.fs.goOn
	}
	return f.File.SyncData()
}

func (f stalledFile) Sync() error { return f.SyncData() }

// TestReadersDoNotWaitForDrops: while what is too old is dropped, and the disk takes its time, deliveries are read.
func TestReadersDoNotWaitForDrops(t *testing.T) {
	t.Parallel()
	fs := &stalledFS{FS: vfs.NewMem(), goOn: make(chan struct{})}
	began := time.Now()
	s, err := pebble.Open("data", pebble.Options{FS: fs, FreeReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	_, fanouts, err := s.Append(t.Context(), []store.NewEvent{{Fanout: delivery.Fanout{
		Event:         &delivery.Event{Tenant: "clinic-a", ID: "evt", Type: "patient.created", Body: benchBody},
		Subscriptions: []*delivery.Subscription{&benchSub},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	d := fanouts[0].Delivery(&benchSub)
	if err := s.Record(t.Context(), []delivery.Outcome{{Delivery: d, State: delivery.Delivered, Attempt: benchAttempt(&d, 200, "")}}); err != nil {
		t.Fatal(err)
	}

	fs.stall()
	stalled := fs.stalled
	expired := make(chan error, 1)
	go func() { expired <- s.Expire(began.Add(48 * time.Hour)) }()
	within(t, stalled, "nothing was dropped")
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = s.List(t.Context(), store.Query{Tenant: "clinic-a", Limit: 10})
	}()
	within(t, read, "a list waits for the disk")
	close(fs.goOn)
	if err := <-expired; err != nil {
		t.Error(err)
	}
}

func within(t *testing.T, done <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error(otherwise)
	}
}
