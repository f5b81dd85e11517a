package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// keepLatest is for how long after a key's latest delivery has ended older events are ignored, at least.
const keepLatest = 72 * time.Hour

// testPlanRetention: what is planned for next year is there next year, with its event.
func testPlanRetention(f *fixture) {
	sub := subscription(clinicA, "sms")
	at := start.AddDate(0, 0, 300)
	e := planEvent(sub, "evt-planned", planFor(keyOf(f, "a"), 1, at))
	id := f.accept(sub, e)[0]
	for day := range 300 {
		f.clock.Advance(24 * time.Hour)
		if day%7 == 0 {
			f.record(f.delivered(f.one(sub)), f.failed(f.one(sub)))
		}
		f.expire()
		if day%100 == 0 {
			f.reopen()
		}
	}
	stored, err := f.Event(f.ctx, id.Event)
	if err != nil {
		f.Fatal(err)
	}
	f.same("event", e.Event, stored)
	var d delivery.PendingDelivery
	for _, p := range f.pending(sub) {
		if p.ID == id {
			d = p
		}
	}
	f.starts(id, true)
	f.record(f.delivered(d))
	f.lasts(id, keepDelivered, time.Hour) // from its end
	f.clock.Advance(48 * time.Hour)
	f.expire()
	if _, err := f.Event(f.ctx, id.Event); err == nil {
		f.Error("the event is still there")
	}
}

// testPlanRetentionEnded: what was cancelled or failed before its time goes with what ended then.
func testPlanRetentionEnded(f *fixture) {
	sub := subscription(clinicA, "sms")
	key, at := keyOf(f, "a"), start.AddDate(0, 0, 300)
	cancelled := f.planned(sub, key, 1, at)
	f.accept(sub, cancelEvent(sub, "cancel", key, 2))
	past := f.accept(sub, planEvent(sub, "past", store.Plan{Decision: plan.Decision{Reason: plan.Past}}))[0]
	failed := f.accept(sub, planEvent(sub, "failed", store.Plan{Failed: true}))[0]
	f.clock.Advance(keepFailed - 2*time.Hour)
	f.expire()
	if !f.kept(past) || !f.kept(failed) {
		f.Errorf("kept: %t, %t; want both", f.kept(past), f.kept(failed))
	}
	f.lasts(cancelled.ID, time.Hour, 24*time.Hour)
	f.clock.Advance(2 * time.Hour)
	f.expire()
	if f.kept(past) || f.kept(failed) {
		f.Errorf("kept: %t, %t; want neither", f.kept(past), f.kept(failed))
	}
	if _, err := f.Event(f.ctx, cancelled.ID.Event); err == nil {
		f.Error("the event is still there")
	}
}

// testLatestRetention: what is known of a key outlives its latest delivery for as long as events may be late, and not for ever.
func testLatestRetention(f *fixture) {
	sub := subscription(clinicA, "sms")
	at := func() time.Time { return f.clock.Now().Add(1000 * time.Hour) }
	ended := map[string]plan.Key{}
	for _, how := range []string{"delivered", "cancelled", "by nothing", "past", "waits"} {
		ended[how] = keyOf(f, how)
	}
	delivered := f.planned(sub, ended["delivered"], 5, f.clock.Now())
	f.planned(sub, ended["cancelled"], 4, at())
	f.accept(sub, cancelEvent(sub, "cancel", ended["cancelled"], 5), cancelEvent(sub, "nothing", ended["by nothing"], 5))
	f.accept(sub, planEvent(sub, "past", store.Plan{Key: ended["past"], Timestamp: timestamp(5), Decision: plan.Decision{Reason: plan.Past}}))
	f.planned(sub, ended["waits"], 5, start.AddDate(0, 0, 300))
	f.record(f.delivered(delivered))
	ignored := func(how string, want bool) {
		f.Helper()
		f.next++
		id := f.accept(sub, planEvent(sub, fmt.Sprint("older-", f.next), planFor(ended[how], 1, at())))[0]
		_, err := f.Get(f.ctx, clinicA, id)
		if got := errors.Is(err, store.ErrNotFound); got != want {
			f.Errorf("%s, at %s: an older event is ignored: %t, %v; want %t", how, f.clock.Now(), got, err, want)
		}
	}
	for passed := time.Duration(0); passed < keepLatest-time.Hour; passed += 6 * time.Hour {
		for how := range ended {
			ignored(how, true)
		}
		f.clock.Advance(6 * time.Hour)
		f.expire()
	}
	f.reopen()
	for range 40 {
		f.clock.Advance(24 * time.Hour)
		f.expire()
	}
	for how := range ended {
		ignored(how, how == "waits")
	}
}

// testLatestAgain: what is known of a key counts from the end of the key's latest delivery, also if an earlier one ended, a
// replay began it anew, or another began while a first one was on its way.
func testLatestAgain(f *fixture) {
	sub := subscription(clinicA, "sms")
	key := keyOf(f, "a")
	far := func() time.Time { return f.clock.Now().Add(1000 * time.Hour) }
	n := 0
	ignored := func(want bool) {
		f.Helper()
		n++
		id := f.accept(sub, planEvent(sub, fmt.Sprint("older-", n), planFor(key, 1, far())))[0]
		if _, err := f.Get(f.ctx, clinicA, id); errors.Is(err, store.ErrNotFound) != want {
			f.Errorf("at %s, an older event is ignored: %v; want %t", f.clock.Now(), err, want)
		}
	}
	wait := func(hours int) {
		for ; hours > 0; hours -= 6 {
			f.clock.Advance(6 * time.Hour)
			f.expire()
		}
	}
	f.record(f.delivered(f.planned(sub, key, 5, f.clock.Now())))
	wait(66)
	second := f.planned(sub, key, 6, f.clock.Now())
	wait(120)
	ignored(true) // it is pending
	f.record(f.delivered(second))
	wait(66)
	ignored(true) // the first one's day is over
	third := f.planned(sub, key, 7, f.clock.Now())
	f.record(f.outcomeOf(third, delivery.Failed))
	wait(66)
	f.replay(clinicA, third.ID)
	wait(120)
	ignored(true) // it is pending again
	f.cancel(third.ID, clinicA, nil)
	wait(66)
	ignored(true)
	wait(96)
	ignored(false)
}

func testPlanReopened(f *fixture) {
	sub := subscription(clinicA, "sms")
	key, at := keyOf(f, "a"), start.Add(time.Hour)
	first := f.planned(sub, key, 1, at)
	second := f.planned(sub, key, 3, at)
	f.reopen()
	f.same("pending", bare(second), bare(f.pending(sub)...))
	f.stands(first.ID, clinicA, delivery.Cancelled, delivery.ReasonReplaced)
	ignored := f.accept(sub, planEvent(sub, "older", planFor(key, 2, at)))[0]
	f.unknown(ignored, clinicA)
	third := f.planned(sub, key, 4, at)
	f.reopen()
	f.same("pending", bare(third), bare(f.pending(sub)...))
	f.scheduled(sub, 1, at)
	if c := f.counts(sub); c.Cancelled != 2 {
		f.Errorf("counts %+v", c)
	}
}

// testPlanDurable: what Append acknowledged, a power failure does not undo.
func testPlanDurable(f *fixture) {
	sub := subscription(clinicA, "sms")
	at := start.Add(time.Hour)
	kept := f.planned(sub, keyOf(f, "kept"), 1, at)
	replaced := f.planned(sub, keyOf(f, "replaced"), 1, at)
	cancelled := f.planned(sub, keyOf(f, "cancelled"), 1, at)
	replacing := f.planned(sub, keyOf(f, "replaced"), 2, at)
	f.accept(sub, cancelEvent(sub, "cancel", keyOf(f, "cancelled"), 3))
	f.crash()
	f.same("pending", bare(kept, replacing), bare(f.pending(sub)...))
	f.stands(replaced.ID, clinicA, delivery.Cancelled, delivery.ReasonReplaced)
	f.stands(cancelled.ID, clinicA, delivery.Cancelled, delivery.ReasonCancelledByEvent)
	f.starts(cancelled.ID, false)
	f.starts(replacing.ID, true)
	ignored := f.accept(sub, planEvent(sub, "older", planFor(keyOf(f, "cancelled"), 2, at)))[0]
	f.unknown(ignored, clinicA)
}
