package pebble_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// TestRepetitionWaits holds up the disk while an event is appended. What was written can be read by then, but its
// repetition must not be answered before it is durable.
func TestRepetitionWaits(t *testing.T) {
	t.Parallel()
	var armed atomic.Bool
	syncing, release := make(chan struct{}), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			if strings.HasSuffix(op.Path, ".log") && armed.CompareAndSwap(true, false) {
				close(syncing)
				<-release
			}
		default: // the rest goes on
		}
		return nil
	}))
	s, err := pebble.Open("data", pebble.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	events := benchEvents(1)
	answers := make(chan store.Accepted, 2)
	appendOnce := func() {
		e := events[0]
		copied := *e.Event
		e.Event = &copied
		got, _, err := s.Append(t.Context(), []store.NewEvent{e})
		if err != nil {
			t.Error(err)
			got = []store.Accepted{{}}
		}
		answers <- got[0]
	}
	armed.Store(true)
	go appendOnce()
	<-syncing
	go appendOnce()
	select {
	case got := <-answers:
		t.Errorf("answered %+v before anything is durable", got)
		close(release)
		<-answers
	case <-time.After(100 * time.Millisecond):
		close(release)
		if first, second := <-answers, <-answers; first.Repeated == second.Repeated {
			t.Errorf("answered %+v and %+v", first, second)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
