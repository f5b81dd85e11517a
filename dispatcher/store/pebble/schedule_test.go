package pebble_test

import (
	"context"
	"errors"
	"flag"
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
	at := o.clock.Now().AddDate(0, 0, 300)
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
	if started, err := o.Start(t.Context(), delivery.PendingDelivery{ID: id}); err != nil || !started {
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

// TestStartDoesNotWait: attempts of planned deliveries start while outcomes are being written; if they waited, a burst would go
// out in steps.
func TestStartDoesNotWait(t *testing.T) {
	t.Parallel()
	s, err := pebble.Open("data", pebble.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	events := benchPlans(0, 1, 1, time.Now())
	if _, _, err := s.Append(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	answered := make(chan error, 1)
	pebble.WhileRecording(s, func() {
		go func() {
			started, err := s.Start(ctx, delivery.PendingDelivery{ID: event.DeliveryID{Event: events[0].Event.Key, Subscription: benchSub.Key}})
			if err == nil && !started {
				err = errors.New("it did not start")
			}
			answered <- err
		}()
		select {
		case err = <-answered:
		case <-ctx.Done():
			err = errors.New("it waits for outcomes to be written")
		}
	})
	if err = errors.Join(err, s.Close()); err != nil {
		t.Error(err)
	}
}

// TestStartsAreForgotten: nothing is kept in memory of what did not start, or of what has its outcome.
func TestStartsAreForgotten(t *testing.T) {
	t.Parallel()
	s, err := pebble.Open("data", pebble.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	events := benchPlans(0, 3, 1, time.Now())
	for _, of := range [][]store.NewEvent{events, benchPlans(2, 1, 2, time.Now())} { // the last one is replaced
		if _, _, err := s.Append(t.Context(), of); err != nil {
			t.Fatal(err)
		}
	}
	d := delivery.PendingDelivery{ID: event.DeliveryID{Event: events[0].Event.Key, Subscription: benchSub.Key}}
	cancelled := event.DeliveryID{Event: events[1].Event.Key, Subscription: benchSub.Key}
	if err := s.Cancel(t.Context(), "clinic-a", cancelled); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[event.DeliveryID]bool{d.ID: true, cancelled: false, {}: false} {
		if started, err := s.Start(t.Context(), delivery.PendingDelivery{ID: id}); err != nil || started != want {
			t.Errorf("Start gave %t, %v; want %t", started, err, want)
		}
	}
	if n := pebble.Started(s); n != 1 {
		t.Errorf("%d are being attempted, want one", n)
	}
	for n, state := range []delivery.State{delivery.Pending, delivery.Delivered} {
		if started, err := s.Start(t.Context(), d); err != nil || !started {
			t.Errorf("Start gave %t, %v", started, err)
		}
		outcome := delivery.Outcome{Delivery: d, State: state, Due: time.Now(), Attempt: &delivery.Attempt{Number: n + 1}}
		if err := s.Record(t.Context(), []delivery.Outcome{outcome}); err != nil {
			t.Fatal(err)
		}
		if n := pebble.Started(s); n != 0 {
			t.Errorf("%d are being attempted after %s, want none", n, state)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
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

// TestPlanBytes: what an Append of plans that replace others allocates stays below what callers charge for it. Tables and
// their buffers are allocated now and then, so the least of several calls counts.
func TestPlanBytes(t *testing.T) { //nolint:paralleltest // It measures what this process allocates.
	s, err := pebble.Open(t.TempDir(), pebble.Options{FreeReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	const n = 500
	const bound = store.PlanBytes + store.EventBytes + store.BodyCopies*16*64
	at := time.Now().Add(time.Hour)
	least := uint64(1 << 40)
	for minute := range int64(8) {
		events := benchPlans(0, n, minute, at)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, _, err := s.Append(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if minute > 0 {
			least = min(least, (after.TotalAlloc-before.TotalAlloc)/n)
		}
	}
	if least > bound {
		t.Errorf("an Append takes %d bytes for each plan and its event of 1 KiB, want at most %d", least, bound)
	}
	t.Logf("%d bytes of %d", least, bound)
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

var scheduled = flag.Int("scheduled", 5000, "deliveries to plan for next year")

// TestManyScheduled plans many deliveries, and opens the store again: it knows them all, and reads none to do so. It logs
// how long that takes, and what they cost while they wait.
func TestManyScheduled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() *pebble.Store {
		t.Helper()
		s, err := pebble.Open(dir, pebble.Options{FreeReserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	at := time.Now().AddDate(1, 0, 0)
	began := time.Now()
	for first := 0; first < *scheduled; first += 500 {
		if _, _, err := s.Append(t.Context(), benchPlans(first, min(500, *scheduled-first), 1, at)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("planned %d in %s", *scheduled, time.Since(began))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	s = open()
	opened := time.Since(began)
	count, next, err := s.Scheduled(t.Context(), benchSub.Key)
	if err != nil || count != int64(*scheduled) || !next.Equal(at) {
		t.Errorf("Scheduled gave %d, %s, %v", count, next, err)
	}
	asked := time.Since(began) - opened
	<-pebble.Counted(s)
	counted := time.Since(began)
	began = time.Now()
	if aged, err := s.Aged(t.Context(), benchSub.Key, time.Now(), 10, nil); err != nil || len(aged) != 0 {
		t.Errorf("Aged gave %d, %v", len(aged), err)
	}
	records, err := s.List(t.Context(), store.Query{Tenant: "clinic-a", Limit: 10})
	if err != nil || len(records) != 10 {
		t.Errorf("List gave %d, %v", len(records), err)
	}
	looked := time.Since(began)
	began = time.Now()
	if err := s.Expire(time.Now().Add(48 * time.Hour)); err != nil {
		t.Error(err)
	}
	swept := time.Since(began)
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	t.Logf("opened in %s, counted in %s, Scheduled %s, Aged and List %s, swept in %s; %d MiB of heap",
		opened, counted, asked, looked, swept, memory.HeapAlloc>>20)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
