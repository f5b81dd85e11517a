package pebble_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// benchPlans are events that plan a delivery each, of keys from first on.
func benchPlans(first, n int, minute int64, at time.Time) []store.NewEvent {
	events := benchEvents(n)
	for i := range events {
		key, err := plan.NewKey(fmt.Sprint("key-", first+i))
		if err != nil {
			panic(err)
		}
		events[i].Subscriptions = nil
		events[i].Plans = []store.Plan{{
			Subscription: &benchSub, Key: key, Timestamp: time.Unix(minute*60, 0), Decision: plan.Decision{At: at},
		}}
	}
	return events
}

// TestScheduleInAnOldStore: a store of format 1, which knew no schedules, takes plans, and its own deliveries live on.
func TestScheduleInAnOldStore(t *testing.T) {
	t.Parallel()
	o := newOldStore(t)
	at := o.now.AddDate(0, 0, 300)
	events := benchPlans(0, 1, 1, at)
	if _, _, err := o.Append(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	id := event.DeliveryID{Event: events[0].Event.Key, Subscription: benchSub.Key}
	o.close()
	o.open()
	for range 300 {
		o.pass(24 * time.Hour)
	}
	o.stands("pending-moved", delivery.Pending)
	if started, err := o.Start(t.Context(), id); err != nil || !started {
		t.Errorf("Start gave %t, %v", started, err)
	}
	if _, err := o.Event(t.Context(), id.Event); err != nil {
		t.Errorf("Event: %v", err)
	}
	if pending, err := o.Replay(t.Context(), "clinic-a", id); !errors.Is(err, store.ErrStillPending) {
		t.Errorf("Replay gave %v, %v", pending, err)
	}
	o.close()
}

// TestScheduleAccount: the account of the volume counts what is planned, across a restart, and nothing of what has ended.
func TestScheduleAccount(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	open := func() *pebble.Store {
		t.Helper()
		s, err := pebble.Open("data", pebble.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	check := func(pending, keyed int64) {
		t.Helper()
		if p, k := pebble.Pending(s), pebble.Keyed(s); p != pending || k != keyed {
			t.Errorf("%d pending and %d with a key are counted, want %d and %d", p, k, pending, keyed)
		}
	}
	at := time.Now().Add(time.Hour)
	events := benchPlans(0, 10, 1, at)
	events[9].Plans[0].Key = plan.Key{}
	for _, of := range [][]store.NewEvent{events, benchPlans(0, 5, 2, at), benchEvents(1)} {
		if _, _, err := s.Append(t.Context(), of); err != nil {
			t.Fatal(err)
		}
	}
	check(11, 9) // five were replaced
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	check(11, 9)
	records, err := s.List(t.Context(), store.Query{Tenant: "clinic-a", Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		switch r.State {
		case delivery.Pending:
			err = s.Cancel(t.Context(), "clinic-a", r.ID)
		default:
			_, err = s.Replay(t.Context(), "clinic-a", r.ID)
		}
		if err != nil {
			t.Errorf("%s: %v", r.State, err)
		}
	}
	check(5, 5) // the replaced ones, which were replayed
	for _, r := range records {
		if err := s.Cancel(t.Context(), "clinic-a", r.ID); err != nil && !errors.Is(err, store.ErrNotPending) {
			t.Errorf("Cancel: %v", err)
		}
	}
	check(0, 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPlanBytes: what an Append of plans that replace others allocates stays below what callers charge for it.
func TestPlanBytes(t *testing.T) { //nolint:paralleltest // It measures what this process allocates.
	fs := vfs.NewMem()
	s, err := pebble.Open("data", pebble.Options{FS: fs, FreeReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	const n = 2000
	at := time.Now().Add(time.Hour)
	for minute := range int64(3) {
		events := benchPlans(0, n, minute, at)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, _, err := s.Append(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		each := int64(after.TotalAlloc-before.TotalAlloc)/n - int64(store.BodyCopies*len(benchBody))
		t.Logf("%d bytes for each plan and its event", each)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkReplace replaces planned deliveries by key, from many clients.
func BenchmarkReplace(b *testing.B) {
	for _, size := range []int{1, 100} {
		b.Run(fmt.Sprintf("events=%d", size), func(b *testing.B) {
			s := benchStore(b)
			const keys = 100_000
			at := time.Now().Add(time.Hour)
			for first := 0; first < keys; first += 1000 {
				if _, _, err := s.Append(b.Context(), benchPlans(first, 1000, 1, at)); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			b.SetParallelism(32)
			next := make(chan int, 1)
			next <- 0
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					first := <-next
					next <- first + size
					if _, _, err := s.Append(b.Context(), benchPlans(first%keys, size, 2+int64(first/keys), at)); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "replacements/s")
		})
	}
}
