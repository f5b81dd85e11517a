package ingest

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// stuckDisk is a disk on which the next write to a log waits once it is stuck.
type stuckDisk struct {
	stuck   atomic.Bool
	waiting chan struct{}
	freed   chan struct{}
}

func (d *stuckDisk) MaybeError(op errorfs.Op) error {
	if op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log") && d.stuck.CompareAndSwap(true, false) {
		d.waiting <- struct{}{}
		<-d.freed
	}
	return nil
}

func (*stuckDisk) String() string { return "stuck disk" }

// TestChargedIsWhatIsHeld compares what a publish is charged with what the process holds of it, while the store waits
// for its disk: the most it ever does.
func TestChargedIsWhatIsHeld(t *testing.T) {
	small := `{"type":"patient.created","data":{"resourceId":"1"}}`
	large := `{"type":"patient.created","data":{"note":"` + strings.Repeat("x", 1_040_000) + `"}}`
	for name, tc := range map[string]struct {
		subscriptions int
		ordered       bool
		event         string
		events        int
	}{
		"fan-out":            {2000, false, small, 100},
		"ordered fan-out":    {2000, true, small, 100},
		"small fan-out":      {100, false, small, 200},
		"small events":       {1, false, small, 1000},
		"events without any": {0, false, small, 1000},
		"large events":       {1, false, large, 8},
		"large, to many":     {500, false, large, 8},
	} {
		t.Run(name, func(t *testing.T) {
			h, disk := stuckHandler(t, tc.subscriptions, tc.ordered)
			body := "[" + strings.TrimSuffix(strings.Repeat(tc.event+",", tc.events), ",") + "]"
			publish := func() {
				r, err := http.NewRequest(http.MethodPost, "/v1/namespaces/clinic-a/events", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				w := &countingAnswer{header: http.Header{"Content-Type": {jsonType}}}
				r.Header.Set("Content-Type", jsonType)
				if h.ServeHTTP(w, r); w.status != http.StatusAccepted {
					t.Errorf("got %d", w.status)
				}
			}
			publish() // what comes but once: the names of subscriptions, the table in memory
			before := heap()
			disk.stuck.Store(true)
			done := make(chan struct{})
			go func() { publish(); close(done) }()
			<-disk.waiting
			held, charged := settledHeap()-before, h.memory.budget.Used()
			close(disk.freed)
			<-done
			t.Logf("%d bytes held, %d charged", held, charged)
			if held > charged*12/10 {
				t.Errorf("the publish holds %d bytes and is charged %d", held, charged)
			}
			if used := h.memory.budget.Used(); used != 0 {
				t.Errorf("%d bytes stay charged", used)
			}
		})
	}
}

func stuckHandler(t *testing.T, subscriptions int, ordered bool) (*Handler, *stuckDisk) {
	t.Helper()
	disk := &stuckDisk{waiting: make(chan struct{}), freed: make(chan struct{})}
	s, err := pebble.Open(t.TempDir(), pebble.Options{FS: errorfs.Wrap(vfs.Default, disk), FreeReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	texts := []string{"clinic-b/other=*"}
	for i := range subscriptions {
		texts = append(texts, fmt.Sprintf("clinic-a/sub-%d=*", i))
	}
	table := newTable(t, texts...)
	for route := range table.All() {
		route.Subscription.Ordered = ordered
	}
	f := newFixture(t, func(o *Options) {
		o.Store, o.MaxInFlightBytes = s, 1<<30
		o.Routes = func() *routing.Table { return table }
		o.Accept = func([]delivery.Fanout) {}
	})
	return f.Handler, disk
}

// settledHeap is heap, once it does not grow any more.
func settledHeap() int64 {
	most := heap()
	for calm := 0; calm < 5; calm++ {
		if now := heap(); now > most+most/1000 {
			most, calm = now, 0
		}
	}
	return most
}

// heap is what is in use once everything that is not was collected, also what pools keep.
func heap() int64 {
	var stats runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
