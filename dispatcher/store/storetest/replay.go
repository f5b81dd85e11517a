package storetest

import (
	"bytes"
	"errors"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var replayTests = map[string]func(*fixture){
	"Failed":         testReplayFailed,
	"Cancelled":      testReplayCancelled,
	"Delivered":      testReplayDelivered,
	"DeliveredTwice": testReplayTwice,
	"Pending":        testReplayPending,
	"Unknown":        testReplayUnknown,
	"FailsAgain":     testReplayFailsAgain,
	"Durable":        testReplayDurable,
	"Parallel":       testReplayParallel,
	"LateEvent":      testReplayLate,
}

func (f *fixture) replay(namespace string, id event.DeliveryID) delivery.PendingDelivery {
	f.Helper()
	d, err := f.Replay(f.ctx, namespace, id)
	if err != nil {
		f.Fatalf("Replay: %v", err)
	}
	if d.Event == nil {
		f.Error("the replay comes without its event")
	}
	return d
}

func testReplayFailed(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.retry(f.one(sub), time.Minute)
	f.record(f.failed(d))
	f.clock.Advance(48 * time.Hour)
	again := f.replay(clinicA, d.ID)
	want := d
	want.Due, want.Since, want.Attempts, want.AttemptsBefore = f.clock.Now(), f.clock.Now(), 2, 2
	f.same("replay", bare(want), bare(again))
	f.same("pending", bare(want), bare(f.pending(sub)...))
	f.same("event", d.ID.Event, again.Event.Key)
	if r := f.get(d.ID, clinicA); r.State != delivery.Pending || r.AttemptCount != 2 || len(r.Attempts) != 2 || r.ReplayOf != (event.DeliveryID{}) {
		f.Errorf("record %+v", r)
	}
	if c := f.counts(sub); c.Failed != 0 || c.Retrying != 1 {
		f.Errorf("counts %+v", c)
	}
	f.record(f.delivered(again))
	r := f.get(d.ID, clinicA)
	if r.State != delivery.Delivered || r.AttemptCount != 3 || r.Attempts[2].Number != 3 {
		f.Errorf("record %+v", r)
	}
	if c := f.counts(sub); c.Failed != 0 || c.Retrying != 0 || c.Delivered != 1 {
		f.Errorf("counts %+v", c)
	}
	if got := len(f.list(store.Query{Tenant: clinicA})); got != 1 {
		f.Errorf("%d deliveries are listed, want the one", got)
	}
}

func testReplayCancelled(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	f.record(f.cancelled(d))
	again := f.replay(clinicA, d.ID)
	if again.ID != d.ID || again.Attempts != 0 || again.AttemptsBefore != 0 {
		f.Errorf("replay %+v", again)
	}
	f.same("counts", delivery.Counts{}, f.counts(sub))
	f.same("pending", bare(again), bare(f.pending(sub)...))
}

func testReplayDelivered(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	f.record(f.delivered(d))
	f.clock.Advance(time.Hour)
	again := f.replay(clinicA, d.ID)
	if again.ID == d.ID || again.ID.Subscription != sub.Key || again.Attempts != 0 || !again.Due.Equal(f.clock.Now()) || !again.Since.Equal(f.clock.Now()) {
		f.Errorf("replay %+v", again)
	}
	f.same("body", string(d.Event.Body), string(again.Event.Body))
	stored, err := f.Event(f.ctx, again.ID.Event)
	if err != nil {
		f.Fatal(err)
	}
	f.same("event", again.Event, stored)
	r := f.get(again.ID, clinicA)
	if r.State != delivery.Pending || r.ReplayOf != d.ID || r.EventID != "evt-1" {
		f.Errorf("record %+v", r)
	}
	if old := f.get(d.ID, clinicA); old.State != delivery.Delivered {
		f.Errorf("the old record became %+v", old)
	}
	f.same("list", []event.DeliveryID{again.ID, d.ID}, ids(f.list(store.Query{Tenant: clinicA})))
	f.record(f.delivered(again))
	if r := f.get(again.ID, clinicA); r.State != delivery.Delivered || r.ReplayOf != d.ID || r.AttemptCount != 1 {
		f.Errorf("record %+v", r)
	}
	if c := f.counts(sub); c.Delivered != 2 {
		f.Errorf("counts %+v", c)
	}
}

func testReplayTwice(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	f.record(f.delivered(d))
	first, second := f.replay(clinicA, d.ID), f.replay(clinicA, d.ID)
	if first.ID == second.ID {
		f.Error("two replays are one delivery")
	}
	f.same("pending", bare(first, second), bare(f.pending(sub)...))
}

func testReplayPending(f *fixture) {
	sub := subscription(clinicA, "a")
	fresh, retried := f.one(sub), f.retry(f.one(sub), time.Hour)
	for _, d := range []delivery.PendingDelivery{fresh, retried} {
		if _, err := f.Replay(f.ctx, clinicA, d.ID); !errors.Is(err, store.ErrStillPending) {
			f.Errorf("Replay gave %v", err)
		}
	}
}

func testReplayUnknown(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	d.ID.Event[15]++
	if _, err := f.Replay(f.ctx, clinicA, d.ID); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("Replay gave %v", err)
	}
}

func testReplayFailsAgain(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	for round := 1; round <= 3; round++ {
		f.record(f.failed(d))
		f.clock.Advance(30 * time.Hour)
		f.expire()
		d = f.replay(clinicA, d.ID)
		if d.Attempts != round || d.AttemptsBefore != round {
			f.Errorf("round %d: %+v", round, d)
		}
		d = f.retry(d, time.Hour)
		if d.AttemptsBefore = round; f.pending(sub)[0].AttemptsBefore != round {
			f.Errorf("round %d: pending %+v", round, f.pending(sub)[0])
		}
		f.record(f.failed(d))
		f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
		d = f.replay(clinicA, d.ID)
		f.record(f.failed(d))
		d = f.replay(clinicA, d.ID)
		f.record(f.delivered(d))
		d = f.one(sub)
		for range round {
			d = f.retry(d, time.Hour)
		}
	}
}

func testReplayDurable(f *fixture) {
	sub := subscription(clinicA, "a")
	lost, arrived := f.one(sub), f.one(sub)
	f.record(f.failed(lost), f.delivered(arrived))
	again, repeated := f.replay(clinicA, lost.ID), f.replay(clinicA, arrived.ID)
	f.crash()
	f.same("pending", bare(again, repeated), bare(f.pending(sub)...))
	for _, d := range []delivery.PendingDelivery{again, repeated} {
		if e, err := f.Event(f.ctx, d.ID.Event); err != nil || !bytes.Equal(e.Body, d.Event.Body) {
			f.Errorf("event %v, %v", e, err)
		}
	}
}

// testReplayParallel: of many replays of a failed delivery, one succeeds.
func testReplayParallel(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	f.record(f.failed(d))
	won := make([]bool, 8)
	parallel(len(won), func(i int) {
		_, err := f.Replay(f.ctx, clinicA, d.ID)
		won[i] = err == nil
		if err != nil && !errors.Is(err, store.ErrStillPending) {
			f.Error(err)
		}
	})
	wins := 0
	for _, w := range won {
		wins += btoi(w)
	}
	if wins != 1 || len(f.pending(sub)) != 1 {
		f.Errorf("%d replays succeeded, %d deliveries are pending", wins, len(f.pending(sub)))
	}
}

// testReplayLate replays what was kept for weeks, and lets it wait until its old bucket is long gone.
func testReplayLate(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	f.record(f.failed(d))
	for range 28 {
		f.clock.Advance(24 * time.Hour)
		f.expire()
	}
	again := f.replay(clinicA, d.ID)
	again = f.retry(again, time.Hour)
	for range 60 {
		f.clock.Advance(24 * time.Hour)
		f.expire()
	}
	e, err := f.Event(f.ctx, d.ID.Event)
	if err != nil || !bytes.Equal(e.Body, d.Event.Body) {
		f.Fatalf("event %v, %v", e, err)
	}
	f.record(f.delivered(again))
	if r := f.get(d.ID, clinicA); r.State != delivery.Delivered || r.EventID != "evt-1" {
		f.Errorf("record %+v", r)
	}
}
