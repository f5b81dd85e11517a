package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var retentionTests = map[string]func(*fixture){
	"Delivered":        testRetentionDelivered,
	"Failed":           testRetentionFailed,
	"Owed":             testRetentionOwed,
	"OwedBySome":       testRetentionShared,
	"LateSuccess":      testRetentionLate,
	"LateByHours":      testRetentionLateByHours,
	"WhileInFlight":    testRetentionInFlight,
	"NothingToDrop":    func(f *fixture) { f.expire(); f.reopen(); f.expire() },
	"AcrossRestart":    testRetentionReopened,
	"CountsAreForLife": testRetentionCounts,
	"Changed":          testRetentionChanged,
}

// kept reports whether the delivery is known, and checks that all that may be asked of it agrees.
func (f *fixture) kept(d event.DeliveryID) bool {
	f.Helper()
	_, err := f.Get(f.ctx, clinicA, d)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		f.Fatal(err)
	}
	listed := false
	for _, r := range f.list(store.Query{Tenant: clinicA}) {
		listed = listed || r.ID == d
	}
	if listed != (err == nil) {
		f.Errorf("listed=%t, but Get gave %v", listed, err)
	}
	return err == nil
}

// lasts lets time pass in steps, and expects the delivery to be kept for at least this long after now, and to be gone
// a bucket later.
func (f *fixture) lasts(d event.DeliveryID, least, bucket time.Duration) {
	f.Helper()
	const step = 10 * time.Minute
	for passed := step; passed <= least; passed += step {
		f.clock.Advance(step)
		if passed%time.Hour == 0 || least-passed < time.Hour {
			f.expire()
			if !f.kept(d) {
				f.Fatalf("gone after %s", passed)
			}
		}
	}
	f.clock.Advance(bucket + time.Hour)
	f.expire()
	if f.kept(d) {
		f.Errorf("kept for more than %s and a bucket", least)
	}
}

// testRetentionChanged: another retention takes effect while the store is open, and brings back nothing.
func testRetentionChanged(f *fixture) {
	retain := f.Store.(interface {
		Retain(delivered, failed time.Duration)
	}).Retain
	sub := subscription(clinicA, "a")
	first, second := f.one(sub), f.one(sub)
	delivered, failed := first.ID, second.ID
	f.record(f.delivered(first), f.failed(second))
	retain(100*time.Hour, 1000*time.Hour)
	f.clock.Advance(keepDelivered + 3*time.Hour)
	f.expire()
	if !f.kept(delivered) || !f.kept(failed) {
		f.Fatal("dropped by the retention that the store was opened with")
	}
	retain(time.Hour, 1000*time.Hour)
	f.expire()
	if f.kept(delivered) || !f.kept(failed) {
		f.Errorf("kept %t and %t, want the failed one alone", f.kept(delivered), f.kept(failed))
	}
	retain(100*time.Hour, time.Hour)
	f.clock.Advance(48 * time.Hour)
	f.expire()
	if f.kept(delivered) || f.kept(failed) {
		f.Errorf("kept %t and %t, want neither", f.kept(delivered), f.kept(failed))
	}
}

func testRetentionDelivered(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	f.record(f.delivered(d))
	f.lasts(d.ID, keepDelivered, time.Hour)
	f.clock.Advance(2 * time.Hour)
	f.expire()
	if _, err := f.Event(f.ctx, d.ID.Event); err == nil {
		f.Error("the event is still there")
	}
	if _, err := f.Replay(f.ctx, clinicA, d.ID); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("Replay gave %v", err)
	}
}

func testRetentionFailed(f *fixture) {
	sub := subscription(clinicA, "a")
	d, cancelled := f.one(sub), f.one(sub)
	f.record(f.failed(d), f.cancelled(cancelled))
	f.clock.Advance(keepFailed - 2*time.Hour)
	f.expire()
	if !f.kept(cancelled.ID) {
		f.Error("the cancelled delivery is gone")
	}
	f.lasts(d.ID, 2*time.Hour, 24*time.Hour)
	if f.kept(cancelled.ID) {
		f.Error("the cancelled delivery is still there")
	}
}

// testRetentionOwed: events stay as long as a delivery needs them, however long that is.
func testRetentionOwed(f *fixture) {
	sub := subscription(clinicA, "a")
	fresh, retried := f.one(sub), f.retry(f.one(sub), time.Hour)
	f.record(f.delivered(f.one(sub)))
	for hour := range 120 {
		f.clock.Advance(time.Hour)
		f.expire()
		f.record(f.delivered(f.one(sub)))
		if hour%20 == 0 {
			retried = f.retry(retried, time.Hour)
			f.reopen()
		}
		for _, d := range []delivery.PendingDelivery{fresh, retried} {
			e, err := f.Event(f.ctx, d.ID.Event)
			if err != nil {
				f.Fatalf("after %d hours: %v", hour, err)
			}
			want := *d.Event
			f.same("event", &want, e)
		}
	}
	f.record(f.delivered(fresh), f.failed(retried))
	for _, d := range []delivery.PendingDelivery{fresh, retried} {
		if !f.kept(d.ID) {
			f.Errorf("%s is gone", d.ID)
		}
	}
}

// testRetentionShared: one of an event's deliveries goes with its bucket, another keeps the event.
func testRetentionShared(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicA, "b")
	d := f.publish(clinicA, "evt", a, b)
	f.record(f.delivered(d[0]))
	f.clock.Advance(keepDelivered + 3*time.Hour)
	f.expire()
	if f.kept(d[0].ID) || !f.kept(d[1].ID) {
		f.Errorf("delivered: %t, pending: %t", f.kept(d[0].ID), f.kept(d[1].ID))
	}
	f.record(f.delivered(d[1]))
	f.lasts(d[1].ID, keepDelivered, time.Hour)
}

// testRetentionLate: a delivery that succeeds late is kept, with its event, as long as any other.
func testRetentionLate(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	for _, wait := range []time.Duration{40 * time.Minute, 3 * time.Hour, 30 * time.Hour} {
		d = f.retry(d, wait)
		f.clock.Advance(wait)
		f.expire()
	}
	f.record(f.delivered(bare(d)[0])) // its event is not in memory any more
	f.lasts(d.ID, keepDelivered, time.Hour)
}

// testRetentionLateByHours: the event would go hours before the delivery, if it were left where it was accepted.
func testRetentionLateByHours(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	f.clock.Advance(20 * time.Hour)
	f.record(f.delivered(bare(d)[0]))
	f.lasts(d.ID, keepDelivered, time.Hour)
}

// testRetentionInFlight: an attempt that takes very long ends after its event's bucket went.
func testRetentionInFlight(f *fixture) {
	sub := subscription(clinicA, "a")
	lost, arrived := f.one(sub), f.one(sub)
	f.clock.Advance(50 * time.Hour)
	f.expire()
	f.record(f.failed(bare(lost)[0]), f.delivered(bare(arrived)[0]))
	for _, d := range []delivery.PendingDelivery{lost, arrived} {
		if !f.kept(d.ID) {
			f.Errorf("%s is gone", d.ID)
		}
		if again := f.replay(clinicA, d.ID); !bytes.Equal(again.Event.Body, d.Event.Body) {
			f.Errorf("body %s", again.Event.Body)
		}
	}
}

func testRetentionReopened(f *fixture) {
	sub := subscription(clinicA, "a")
	old := f.one(sub)
	f.record(f.delivered(old))
	f.clock.Advance(12 * time.Hour)
	young, owed := f.one(sub), f.one(sub)
	f.record(f.delivered(young))
	f.clock.Advance(14 * time.Hour)
	f.reopen()
	f.expire()
	f.reopen()
	if f.kept(old.ID) || !f.kept(young.ID) || !f.kept(owed.ID) {
		f.Errorf("old: %t, young: %t, owed: %t", f.kept(old.ID), f.kept(young.ID), f.kept(owed.ID))
	}
}

func testRetentionCounts(f *fixture) {
	sub := subscription(clinicA, "a")
	for range 5 {
		f.record(f.delivered(f.one(sub)), f.failed(f.one(sub)))
		f.clock.Advance(keepFailed)
		f.expire()
	}
	if c := f.counts(sub); c.Delivered != 5 || c.Failed != 5 {
		f.Errorf("counts %s", fmt.Sprint(c))
	}
}
