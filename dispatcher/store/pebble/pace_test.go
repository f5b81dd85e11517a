package pebble_test

import (
	"context"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/go-logr/logr/funcr"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

// TestDescriptorsAreShort takes all descriptors for a while. What is acknowledged stays, background work tries seldom
// and says so in few lines, and everything goes on once there are descriptors.
func TestDescriptorsAreShort(t *testing.T) {
	t.Parallel()
	storetest.Unraced(t)
	for name, test := range map[string]struct {
		errno  syscall.Errno
		suffix string
	}{
		"of the process": {syscall.EMFILE, ".sst"}, "of the machine": {syscall.ENFILE, ".sst"}, "space for tables": {syscall.ENOSPC, ".sst"},
		"for logs": {syscall.EMFILE, ".log"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var short atomic.Bool
			var attempts, lines atomic.Int64
			fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				opens := op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpOpen || op.Kind == errorfs.OpReuseForWrite
				if !short.Load() || !opens || !strings.HasSuffix(op.Path, test.suffix) {
					return nil
				}
				attempts.Add(1)
				return test.errno
			}))
			logger := funcr.New(func(_, args string) {
				lines.Add(1)
				if strings.Contains(args, "goroutine") || strings.Contains(args, ".go:") {
					t.Errorf("a stack trace was logged: %s", args)
				}
			}, funcr.Options{})
			s, err := pebble.Open("data", pebble.Options{FS: fs, Logger: logger, FreeReserve: -1, MaxOpenFiles: 100, Fatal: func(err error) {
				t.Errorf("it ended the process: %v", err)
			}})
			if err != nil {
				t.Fatal(err)
			}
			var acked []delivery.PendingDelivery
			publish := func(n int) {
				for range n {
					_, fanouts, err := s.Append(t.Context(), benchEvents(100))
					if err != nil {
						t.Error(err)
						return
					}
					acked = append(acked, storetest.Deliveries(fanouts)...)
				}
			}
			short.Store(true)
			published := make(chan struct{})
			go func() {
				defer close(published)
				publish(250) // more than a memtable
			}()
			eventually(t, time.Minute, func() bool { return attempts.Load() > 0 })
			attempts.Store(0)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			<-ctx.Done()
			if n := attempts.Load(); n > 60 {
				t.Errorf("%d attempts in three seconds", n)
			}
			if n := lines.Load(); n > 10 {
				t.Errorf("%d lines were logged", n)
			}
			short.Store(false)
			<-published
			publish(500)
			if err := pebble.FlushNow(s); err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(acked); i += 501 {
				if _, err := s.Get(t.Context(), "clinic-a", acked[i].ID); err != nil {
					t.Error(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
