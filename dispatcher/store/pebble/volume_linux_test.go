package pebble_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr/funcr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

var cancelled = flag.Int("cancelled", 100_000, "deliveries to cancel on a full volume")

const fanout = 10

// volume is a small file system of its own, with a store in it.
type volume struct {
	testing.TB
	*pebble.Store
	root, dir string

	mu     sync.Mutex
	clock  *storetest.Clock
	fatal  error
	events int
	least  int64 // that was free while deliveries were finished
	subs   []*delivery.Subscription
	random *rand.ChaCha8
}

// newVolume mounts a tmpfs of the given size.
func newVolume(t testing.TB, size int) *volume {
	t.Helper()
	storetest.Unraced(t)
	if os.Geteuid() != 0 {
		t.Skip("mounting a small volume takes root")
	}
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skip("no small volume can be mounted here:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	v := &volume{
		TB: t, root: root, dir: filepath.Join(root, "store"), clock: storetest.NewClock(time.Date(2026, 3, 4, 10, 30, 0, 0, time.UTC)),
		random: rand.NewChaCha8([32]byte{1}),
	}
	for i := range fanout {
		name := fmt.Sprint("sub-", i)
		v.subs = append(v.subs, &delivery.Subscription{Key: event.NewSubscriptionKey(name), Tenant: "clinic-a", Name: name})
	}
	return v
}

// tryOpen opens the store; its end is a failure of the test.
func (v *volume) tryOpen() error {
	logger := funcr.New(func(_, line string) {
		if v.Context().Err() == nil {
			v.Log(line)
		}
	}, funcr.Options{LogTimestamp: true, Verbosity: 1})
	s, err := pebble.Open(v.dir, pebble.Options{Now: v.clock.Now, LockWait: time.Second, Logger: logger, Fatal: func(err error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.fatal = err
		v.Errorf("the store ended the process: %v", err)
	}})
	if err == nil {
		v.Store = s
	}
	return err
}

func (v *volume) open() {
	v.Helper()
	if err := v.tryOpen(); err != nil {
		v.Fatal(err)
	}
}

func (v *volume) close() {
	v.Helper()
	if err := v.Close(); err != nil {
		v.Error(err)
	}
}

// free is how many bytes are free.
func (v *volume) free() int64 {
	v.Helper()
	usage, err := vfs.Default.GetDiskUsage(v.root)
	if err != nil {
		v.Fatal(err)
	}
	return int64(usage.AvailBytes)
}

// fill lets another program take all of the volume but so much. It can be called again, for what came free.
func (v *volume) fill(leave int64) {
	v.Helper()
	f, err := os.OpenFile(filepath.Join(v.root, "stranger"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		v.Fatal(err)
	}
	chunk := make([]byte, 64<<10)
	for free := v.free(); free > leave; free = v.free() {
		if _, err := f.Write(chunk[:min(int64(len(chunk)), free-leave)]); err != nil {
			break
		}
	}
	if err := f.Close(); err != nil {
		v.Fatal(err)
	}
}

func (v *volume) unfill() {
	v.Helper()
	if err := os.Remove(filepath.Join(v.root, "stranger")); err != nil {
		v.Fatal(err)
	}
}

// publish appends events with bodies that cannot be compressed, each with deliveries to all of the subscriptions.
func (v *volume) publish(events, size int) ([]delivery.PendingDelivery, error) {
	all := make([]store.NewEvent, events)
	for i := range all {
		body := make([]byte, size)
		_, _ = v.random.Read(body)
		v.events++
		all[i] = store.NewEvent{Fanout: delivery.Fanout{
			Event:         &delivery.Event{Tenant: "clinic-a", ID: fmt.Sprint("evt-", v.events), Type: "patient.created", Body: body},
			Subscriptions: v.subs,
		}}
	}
	_, fanouts, err := v.Append(v.Context(), all)
	return storetest.Deliveries(fanouts), err
}

// publishUntilFull returns the deliveries that were accepted.
func (v *volume) publishUntilFull(limit, size int) []delivery.PendingDelivery {
	v.Helper()
	var all []delivery.PendingDelivery
	for len(all) < limit {
		deliveries, err := v.publish(20, size)
		if errors.Is(err, store.ErrFull) {
			return all
		}
		if err != nil {
			v.Fatal(err)
		}
		all = append(all, deliveries...)
	}
	return all
}

// finish records the deliveries as finished, page by page as the engine does.
func (v *volume) finish(deliveries []delivery.PendingDelivery, state delivery.State) {
	v.Helper()
	for len(deliveries) > 0 {
		page := deliveries[:min(1000, len(deliveries))]
		deliveries = deliveries[len(page):]
		outcomes := make([]delivery.Outcome, len(page))
		for i := range page {
			outcomes[i] = delivery.Outcome{Delivery: page[i], State: state}
			if state != delivery.Cancelled {
				outcomes[i].Attempt = benchAttempt(&page[i], 200, "")
			}
		}
		if err := v.Record(v.Context(), outcomes); err != nil {
			v.Fatal(err)
		}
		if free := v.free(); v.least == 0 || free < v.least {
			v.least = free
		}
	}
}

func (v *volume) eventually(what string, bound time.Duration, holds func() bool) {
	v.Helper()
	defer func() {
		if v.Failed() {
			v.Logf("not in time: %s; %d bytes are free", what, v.free())
		}
	}()
	eventually(v, bound, holds)
}

// stands expects all of the deliveries in the state, with their events.
func (v *volume) stands(deliveries []delivery.PendingDelivery, want delivery.State) {
	v.Helper()
	for _, d := range deliveries {
		r, err := v.Get(v.Context(), "clinic-a", d.ID)
		if err != nil || r.State != want {
			v.Fatalf("%s is %s, %v; want %s", d.ID, r.State, err, want)
		}
	}
}

// sample is every n-th of the deliveries.
func sample(deliveries []delivery.PendingDelivery, n int) []delivery.PendingDelivery {
	var some []delivery.PendingDelivery
	for i := 0; i < len(deliveries); i += n {
		some = append(some, deliveries[i])
	}
	return some
}

// TestFullVolumeCancels fills a volume, cancels all that is pending, lets it expire, and expects the space back.
func TestFullVolumeCancels(t *testing.T) {
	t.Parallel()
	n := *cancelled
	v := newVolume(t, 128<<20+n*512)
	v.open()
	failed, err := v.publish(1, 256)
	if err != nil {
		t.Fatal(err)
	}
	v.finish(failed, delivery.Failed)
	pending := v.publishUntilFull(n, 256)
	for _, size := range []int{64 << 10, 4 << 10, 100} { // to the last byte
		pending = append(pending, v.publishUntilFull(1<<30, size)...)
	}
	if len(pending) < n {
		t.Fatalf("only %d deliveries fit", len(pending))
	}
	if _, err := v.Replay(t.Context(), "clinic-a", failed[0].ID); !errors.Is(err, store.ErrFull) {
		t.Errorf("Replay on a full volume gave %v", err)
	}
	before := v.free()
	v.least = before
	v.finish(pending, delivery.Cancelled)
	t.Logf("%d deliveries were cancelled: %d bytes were free before, %d at the least, %d after", len(pending), before, v.least, v.free())
	if need := pebble.StartNeeds(v.Store); v.least < need {
		t.Errorf("cancelling left %d bytes, and starting needs %d", v.least, need)
	}
	owed := int64(len(pending)) * 256
	v.eventually("cancelling costs what was set aside", time.Minute, func() bool { return v.free() >= before-owed })
	v.stands(sample(pending, 97), delivery.Cancelled)
	v.close()
	v.open()
	v.stands(sample(pending, 97), delivery.Cancelled)
	v.clock.Advance(32 * 24 * time.Hour)
	if err := v.Expire(v.clock.Now()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	v.eventually("events are accepted again", time.Minute, func() bool { return v.Ready() == nil })
	t.Logf("events were accepted again after %s", time.Since(start))
	v.eventually("most of the volume is free again", time.Minute, func() bool { return v.free() > 96<<20 })
	fresh, err := v.publish(1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	v.stands(fresh, delivery.Pending)
	v.close()
}

// TestHistoryGoesFirst delivers more than the volume holds. What is owed and what failed stays; of what was delivered,
// the oldest goes first.
func TestHistoryGoesFirst(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]time.Duration{"in hours": 144 * time.Second, "within an hour": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t, 128<<20)
			v.open()
			owed, err := v.publish(5, 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			failed, err := v.publish(5, 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			v.finish(failed, delivery.Failed)
			first, last := v.deliver(300, step)
			v.historyWent(owed, failed, first)
			if step*300 > time.Hour {
				v.stands(last, delivery.Delivered)
			}
			v.close()
			v.open()
			v.historyWent(owed, failed, first)
			v.close()
		})
	}
}

// deliver publishes and delivers 300 times 1.3 MB, and returns the first and the last deliveries.
func (v *volume) deliver(times int, step time.Duration) (first, last []delivery.PendingDelivery) {
	v.Helper()
	for range times {
		v.eventually("events are accepted", time.Minute, func() bool {
			var err error
			if last, err = v.publish(20, 64<<10); err != nil && !errors.Is(err, store.ErrFull) {
				v.Fatal(err)
			}
			return err == nil
		})
		v.finish(last, delivery.Delivered)
		if first == nil {
			first = last
		}
		v.clock.Advance(step)
	}
	return first, last
}

func (v *volume) historyWent(owed, failed, delivered []delivery.PendingDelivery) {
	v.Helper()
	v.stands(owed, delivery.Pending)
	v.stands(failed, delivery.Failed)
	for _, d := range delivered {
		if _, err := v.Get(v.Context(), "clinic-a", d.ID); !errors.Is(err, store.ErrNotFound) {
			v.Errorf("the oldest history is there: %v", err)
		}
	}
	for _, d := range owed {
		if _, err := v.Event(v.Context(), d.ID.Event); err != nil {
			v.Error(err)
		}
	}
}

// TestRestartsOnAFullVolume starts again and again while another program takes every byte that comes free.
func TestRestartsOnAFullVolume(t *testing.T) {
	t.Parallel()
	v := newVolume(t, 96<<20)
	v.open()
	pending := v.publishUntilFull(1<<30, 8<<10)
	some := sample(pending, 31)
	v.eventually("there is a ballast", 10*time.Second, func() bool {
		_, err := os.Stat(filepath.Join(v.dir, "BALLAST"))
		return err == nil
	})
	v.close()
	started, waited, most := 0, 0, 0
	for range 20 {
		v.fill(0)
		switch err := v.tryOpen(); {
		case err == nil:
			started++
			if _, err := v.publish(1, 100); !errors.Is(err, store.ErrFull) {
				t.Errorf("Append on a full volume gave %v", err)
			}
			v.stands(some[:20], delivery.Pending)
			v.close()
		case errors.Is(err, store.ErrFull):
			waited++
		default:
			t.Fatal(err)
		}
		files, err := os.ReadDir(v.dir)
		if err != nil {
			t.Fatal(err)
		}
		if most = max(most, len(files)); len(files) > most+10 {
			t.Fatalf("%d files, after %d", len(files), most)
		}
	}
	t.Logf("it started %d times and waited %d times", started, waited)
	if started == 0 {
		t.Error("it never started on a full volume")
	}
	v.unfill()
	v.open()
	v.stands(some, delivery.Pending)
	v.finish(pending, delivery.Delivered)
	v.clock.Advance(30 * time.Hour)
	if err := v.Expire(v.clock.Now()); err != nil {
		t.Fatal(err)
	}
	v.eventually("events are accepted again", time.Minute, func() bool { return v.Ready() == nil })
	v.eventually("there is a ballast again", time.Minute, func() bool {
		_, err := os.Stat(filepath.Join(v.dir, "BALLAST"))
		return err == nil
	})
	v.close()
}
