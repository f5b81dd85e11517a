package pebble_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

// sweeper is a store whose sweeps keep few keys in memory, on a clock that the test sets.
type sweeper struct {
	*testing.T
	*pebble.Store
	fs    *vfs.MemFS
	clock *storetest.Clock
	n     int
}

func newSweeper(t *testing.T) *sweeper {
	t.Helper()
	s := &sweeper{T: t, fs: vfs.NewMem(), clock: storetest.NewClock(time.Date(2026, 3, 4, 10, 30, 0, 0, time.UTC))}
	s.fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 40})
	s.open()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *sweeper) open() {
	s.Helper()
	opened, err := pebble.Open("data", pebble.Options{FS: s.fs, Now: s.clock.Now, FreeReserve: -1})
	if err != nil {
		s.Fatal(err)
	}
	pebble.SetSweepKeys(opened, 8)
	s.Store = opened
}

func (s *sweeper) reopen() {
	s.Helper()
	if err := s.Close(); err != nil {
		s.Fatal(err)
	}
	s.open()
}

// publish appends events that match the subscriptions.
func (s *sweeper) publish(subs ...*delivery.Subscription) []delivery.PendingDelivery {
	s.Helper()
	s.n++
	s.clock.Advance(time.Millisecond)
	e := &delivery.Event{Tenant: "clinic-a", ID: fmt.Sprint("evt-", s.n), Type: "patient.created", Body: benchBody}
	_, fanouts, err := s.Append(s.Context(), []store.NewEvent{{Fanout: delivery.Fanout{Event: e, Subscriptions: subs}}})
	if err != nil {
		s.Fatal(err)
	}
	return storetest.Deliveries(fanouts)
}

func (s *sweeper) record(d delivery.PendingDelivery, state delivery.State) delivery.PendingDelivery {
	s.Helper()
	o := delivery.Outcome{Delivery: d, State: state, Attempt: benchAttempt(&d, 500, "")}
	if state == delivery.Pending {
		o.Due = s.clock.Now().Add(time.Duration(s.n%7) * time.Hour)
		d.Due, d.Attempts = o.Due, d.Attempts+1
	}
	if err := s.Record(s.Context(), []delivery.Outcome{o}); err != nil {
		s.Fatal(err)
	}
	return d
}

func (s *sweeper) pass(d time.Duration) {
	s.Helper()
	s.clock.Advance(d)
	if err := s.Expire(s.clock.Now()); err != nil {
		s.Fatal(err)
	}
}

func sweepSubs(n int) []*delivery.Subscription {
	var subs []*delivery.Subscription
	for i := range n {
		name := fmt.Sprint("sub-", i)
		subs = append(subs, &delivery.Subscription{Key: event.NewSubscriptionKey(name), Tenant: "clinic-a", Name: name})
	}
	return subs
}

// TestSweepLeavesWhatIsNeeded lets hours of events of every fate age, and expects just those that something refers to,
// once each, to be left at every time.
func TestSweepLeavesWhatIsNeeded(t *testing.T) {
	t.Parallel()
	s := newSweeper(t)
	subs := sweepSubs(5)
	random := rand.New(rand.NewPCG(3, 0))
	var pending, failed, late, all []delivery.PendingDelivery
	for range 6 {
		for range 200 {
			d := s.publish(subs[random.IntN(len(subs))])[0]
			all = append(all, d)
			switch random.IntN(20) {
			case 0:
				pending = append(pending, d)
			case 1:
				pending = append(pending, s.record(d, delivery.Pending))
			case 2:
				s.record(d, delivery.Failed)
				failed = append(failed, d)
			case 3:
				late = append(late, s.record(d, delivery.Pending))
			default:
				s.record(d, delivery.Delivered)
			}
		}
		s.clock.Advance(time.Hour)
	}
	expect := func(groups ...[]delivery.PendingDelivery) {
		t.Helper()
		want := map[event.Key]bool{}
		for _, d := range slices.Concat(groups...) {
			want[d.ID.Event] = true
		}
		got := pebble.Bodies(t, s.Store)
		for key, n := range got {
			if n != 1 || !want[key] {
				t.Errorf("an event of %s is stored %d times, needed: %t", key.Accepted(), n, want[key])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d events are stored, want %d", len(got), len(want))
		}
	}
	s.pass(time.Hour)
	expect(all)
	s.clock.Advance(10 * time.Hour)
	for _, d := range late {
		s.record(d, delivery.Delivered)
	}
	s.pass(18 * time.Hour)
	expect(pending, failed, late)
	s.reopen()
	s.pass(time.Minute)
	expect(pending, failed, late)
	s.pass(30 * time.Hour)
	expect(pending, failed)
	replayed := failed[:len(failed)/2]
	for _, d := range replayed {
		if _, err := s.Replay(t.Context(), "clinic-a", d.ID); err != nil {
			t.Fatal(err)
		}
	}
	s.pass(31 * 24 * time.Hour)
	expect(pending, replayed)
	if n := pebble.Pending(s.Store); n != int64(len(pending)+len(replayed)) {
		t.Errorf("%d deliveries are counted as pending, want %d", n, len(pending)+len(replayed))
	}
	for _, d := range slices.Concat(pending, replayed) {
		s.record(d, delivery.Cancelled)
	}
	expect(pending, replayed)
	s.pass(32 * 24 * time.Hour)
	expect()
	if n := pebble.Pending(s.Store); n != 0 {
		t.Errorf("%d deliveries are counted as pending", n)
	}
}

// TestFinishingRefersToTheEvent: whatever becomes of its deliveries, the body of an event is stored once, and finishing
// writes little.
func TestFinishingRefersToTheEvent(t *testing.T) {
	t.Parallel()
	s := newSweeper(t)
	deliveries := s.publish(sweepSubs(4)...)
	s.clock.Advance(5 * time.Hour)
	before := pebble.Written(s.Store)
	for i, state := range []delivery.State{delivery.Delivered, delivery.Failed, delivery.Cancelled, delivery.Pending} {
		s.record(deliveries[i], state)
	}
	if _, err := s.Replay(t.Context(), "clinic-a", deliveries[1].ID); err != nil {
		t.Fatal(err)
	}
	if wrote := pebble.Written(s.Store) - before; wrote > 5*512 {
		t.Errorf("finishing and replaying wrote %d bytes", wrote)
	}
	if bodies := pebble.Bodies(t, s.Store); len(bodies) != 1 || bodies[deliveries[0].ID.Event] != 1 {
		t.Errorf("bodies: %v", bodies)
	}
}
