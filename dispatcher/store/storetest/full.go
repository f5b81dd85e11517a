package storetest

import (
	"errors"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var fullTests = map[string]func(*fixture){
	"FinishesWhatIsPending": testFullFinishes,
	"KeepsWhatIsNeeded":     testFullKeeps,
}

// fill makes the store find its volume full, or not any more.
func (f *fixture) fill(full bool) {
	f.Helper()
	if f.place.Fill == nil {
		f.Skip("the implementation cannot be full")
	}
	f.place.Fill(f.Store, full)
}

// testFullFinishes: a full store refuses new events and replays, and records every outcome.
func testFullFinishes(f *fixture) {
	sub := subscription(clinicA, "a")
	old := f.one(sub)
	f.record(f.failed(old))
	arrived, lost, dropped, again := f.one(sub), f.one(sub), f.one(sub), f.one(sub)
	f.fill(true)
	if _, _, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, "evt", "x", sub)}); !errors.Is(err, store.ErrFull) {
		f.Errorf("Append gave %v", err)
	}
	if err := f.Ready(); !errors.Is(err, store.ErrFull) {
		f.Errorf("Ready gave %v", err)
	}
	if _, err := f.Replay(f.ctx, clinicA, old.ID); !errors.Is(err, store.ErrFull) {
		f.Errorf("Replay gave %v", err)
	}
	f.record(f.delivered(arrived), f.failed(lost), f.cancelled(dropped))
	again = f.retry(again, time.Minute)
	f.same("pending", bare(again), bare(f.pending(sub)...))
	f.fill(false)
	if err := f.Ready(); err != nil {
		f.Errorf("Ready gave %v once there is space", err)
	}
	for want, d := range map[delivery.State]delivery.PendingDelivery{delivery.Failed: lost, delivery.Cancelled: dropped} {
		if r := f.get(d.ID, clinicA); r.State != want {
			f.Errorf("%s is %s, want %s", d.ID, r.State, want)
		}
	}
	// A full store may drop delivered history before its time.
	if r, err := f.Get(f.ctx, clinicA, arrived.ID); !errors.Is(err, store.ErrNotFound) && (err != nil || r.State != delivery.Delivered) {
		f.Errorf("%s is %s, %v", arrived.ID, r.State, err)
	}
	f.replay(clinicA, old.ID)
	f.replay(clinicA, dropped.ID)
	f.one(sub)
}

// testFullKeeps: retention goes on in a full store, and takes nothing that is needed.
func testFullKeeps(f *fixture) {
	sub := subscription(clinicA, "a")
	owed, lost, arrived := f.one(sub), f.one(sub), f.one(sub)
	f.record(f.failed(lost), f.delivered(arrived))
	f.fill(true)
	f.clock.Advance(keepDelivered + 3*time.Hour)
	f.expire()
	if f.kept(arrived.ID) || !f.kept(lost.ID) || !f.kept(owed.ID) {
		f.Errorf("delivered: %t, failed: %t, pending: %t", f.kept(arrived.ID), f.kept(lost.ID), f.kept(owed.ID))
	}
	if _, err := f.Event(f.ctx, owed.ID.Event); err != nil {
		f.Errorf("Event: %v", err)
	}
	f.fill(false)
	f.replay(clinicA, lost.ID)
}
