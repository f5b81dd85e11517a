package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// scheduleTests are about planned deliveries; scheduleKeyTests, about what events of one key do to them.
var scheduleTests = map[string]func(*fixture){
	"Planned":           testPlanned,
	"NotPlanned":        testNotPlanned,
	"Failed":            testScheduleFailed,
	"ZeroKey":           testPlanZeroKey,
	"BesideDeliveries":  testPlanBesides,
	"KeysApart":         testPlanKeysApart,
	"Keys":              testPlanKeys,
	"BatchInOrder":      testPlanBatch,
	"Repetition":        testPlanRepetition,
	"Conflict":          testPlanConflict,
	"Notice":            testPlanNotice,
	"Aged":              testPlanAged,
	"CancelAndOutcome":  testCancelAndOutcome,
	"CancelledByUser":   testCancelByUser,
	"SendNow":           testSendNow,
	"StartAsRead":       testStartAsRead,
	"ReplayOfPlanned":   testReplayPlanned,
	"ReasonOfOutcome":   testReasonOfOutcome,
	"Scheduled":         testScheduled,
	"List":              testListScheduled,
	"Totals":            testPlanTotals,
	"Retention":         testPlanRetention,
	"RetentionOfEnded":  testPlanRetentionEnded,
	"RetentionOfLatest": testLatestRetention,
	"RetentionOfAgain":  testLatestAgain,
	"Reopen":            testPlanReopened,
	"Durable":           testPlanDurable,
	"Full":              testPlanFull,
	"Race":              testPlanRace,
	"ReplaceRace":       testReplaceRace,
	"Model":             testPlanModel,
}

// timestamp of an event, in minutes after an arbitrary time.
func timestamp(minute int) time.Time {
	return start.Add(-24*time.Hour + time.Duration(minute)*time.Minute)
}

func keyOf(f *fixture, text string) plan.Key {
	f.Helper()
	key, err := plan.NewKey(text)
	if err != nil {
		f.Fatal(err)
	}
	return key
}

// planEvent has no deliveries but what is planned.
func planEvent(sub delivery.Subscription, id string, plans ...store.Plan) store.NewEvent {
	e := newEvent(sub.Tenant, id, id)
	for i := range plans {
		plans[i].Subscription = &sub
	}
	e.Plans = plans
	return e
}

// cancelEvent cancels what is planned for the key.
func cancelEvent(sub delivery.Subscription, id string, key plan.Key, minute int) store.NewEvent {
	e := newEvent(sub.Tenant, id, id)
	e.Cancels = []store.Cancel{{Subscription: &sub, Key: key, Timestamp: timestamp(minute)}}
	return e
}

// planFor is a plan for a key, by an event of that minute.
func planFor(key plan.Key, minute int, at time.Time) store.Plan {
	return store.Plan{Key: key, Timestamp: timestamp(minute), Decision: plan.Decision{At: at}}
}

// accept appends events, of which none may cause a fan-out, and returns the deliveries that sub would have of them.
func (f *fixture) accept(sub delivery.Subscription, events ...store.NewEvent) []event.DeliveryID {
	f.Helper()
	f.clock.Advance(time.Millisecond)
	answers, deliveries, err := f.Append(f.ctx, events)
	if err != nil {
		f.Fatalf("Append: %v", err)
	}
	var ids []event.DeliveryID
	for i, e := range events {
		want := store.Accepted{ID: e.Event.ID, Deliveries: len(e.Plans)}
		if answers[i] != want || len(deliveries) != 0 {
			f.Fatalf("Append gave %+v and %d deliveries, want %+v and none", answers[i], len(deliveries), want)
		}
		ids = append(ids, event.DeliveryID{Event: e.Event.Key, Subscription: sub.Key})
	}
	return ids
}

// planned plans one delivery, which must then be pending.
func (f *fixture) planned(sub delivery.Subscription, key plan.Key, minute int, at time.Time) delivery.PendingDelivery {
	f.Helper()
	f.next++
	e := planEvent(sub, fmt.Sprintf("evt-%d", f.next), planFor(key, minute, at))
	id := f.accept(sub, e)[0]
	for _, d := range f.pending(sub) {
		if d.ID == id {
			return d
		}
	}
	f.Fatalf("%s was planned, and is not pending", id)
	return delivery.PendingDelivery{}
}

// starts expects Start to answer so.
func (f *fixture) starts(id event.DeliveryID, want bool) {
	f.Helper()
	got, err := f.Start(f.ctx, delivery.PendingDelivery{ID: id})
	if err != nil || got != want {
		f.Errorf("Start(%s) gave %t, %v; want %t", id, got, err, want)
	}
}

// stands expects a delivery to be listed in the state, for the reason, and returns its record.
func (f *fixture) stands(id event.DeliveryID, namespace string, state delivery.State, reason delivery.Reason) store.Record {
	f.Helper()
	r := f.get(id, namespace)
	if r.State != state || r.Reason != reason {
		f.Errorf("%s of %s is %s %q, want %s %q", id, r.EventID, r.State, r.Reason, state, reason)
	}
	listed := f.list(store.Query{Tenant: namespace, State: state})
	for _, l := range listed {
		if l.ID == id {
			r.Attempts = nil
			f.same("listed", r, l)
			return f.get(id, namespace)
		}
	}
	f.Errorf("%s is not listed among the %d that are %s", id, len(listed), state)
	return r
}

// unknown expects that there is no such delivery.
func (f *fixture) unknown(id event.DeliveryID, namespace string) {
	f.Helper()
	if r, err := f.Get(f.ctx, namespace, id); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("Get(%s) gave %+v, %v; want none", id, r, err)
	}
}

func testPlanned(f *fixture) {
	sub := subscription(clinicA, "sms")
	at := start.AddDate(0, 0, 300)
	e := planEvent(sub, "evt-1", planFor(keyOf(f, "a"), 1, at))
	id := f.accept(sub, e)[0]
	want := delivery.PendingDelivery{ID: id, Due: at, Since: at, Planned: at, Size: len(e.Event.Body)}
	check := func() {
		f.Helper()
		f.same("pending", bare(want), bare(f.pending(sub)...))
		f.same("record", store.Record{
			ID: id, EventID: "evt-1", Type: "patient.created", Tenant: clinicA, Subscription: "sms", State: delivery.Pending,
			Created: id.Event.Accepted(), Due: at, Planned: at,
		}, f.stands(id, clinicA, delivery.Pending, ""))
		stored, err := f.Event(f.ctx, id.Event)
		if err != nil {
			f.Fatal(err)
		}
		f.same("event", e.Event, stored)
		f.same("backlogs", map[event.SubscriptionKey]time.Time{sub.Key: at}, f.backlogs())
		f.same("counts", delivery.Counts{}, f.counts(sub))
	}
	check()
	f.reopen()
	check()
	found, next, more, err := f.Due(f.ctx, sub.Key, delivery.Position{}, f.clock.Now(), 9, nil)
	if err != nil || len(found) != 0 || !more || !next.Due.Equal(at) {
		f.Errorf("Due gave %d deliveries, next at %s (%t), %v", len(found), next.Due, more, err)
	}
	f.clock.Advance(at.Sub(f.clock.Now()))
	f.starts(id, true)
	d := f.retry(f.pending(sub)[0], time.Hour)
	want = d
	f.same("pending after an attempt", bare(want), bare(f.pending(sub)...))
	f.record(f.delivered(d))
	r := f.stands(id, clinicA, delivery.Delivered, "")
	if !r.Planned.Equal(at) || r.AttemptCount != 2 || !r.Due.IsZero() {
		f.Errorf("record %+v", r)
	}
	if c := f.counts(sub); c.Delivered != 1 || c.Retrying != 0 {
		f.Errorf("counts %+v", c)
	}
	f.starts(id, false)
}

func testNotPlanned(f *fixture) {
	sub := subscription(clinicA, "sms")
	for i, reason := range []plan.Reason{plan.Past, plan.OutsideWindow, plan.TooFarAhead} {
		p := store.Plan{Key: keyOf(f, string(reason)), Timestamp: timestamp(1), Decision: plan.Decision{Reason: reason}}
		id := f.accept(sub, planEvent(sub, string(reason), p))[0]
		r := f.stands(id, clinicA, delivery.Cancelled, delivery.Reason(reason))
		if !r.Planned.IsZero() || r.AttemptCount != 0 {
			f.Errorf("record %+v", r)
		}
		f.starts(id, false)
		if c := f.counts(sub); c.Cancelled != int64(i+1) {
			f.Errorf("counts %+v", c)
		}
	}
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
}

func testScheduleFailed(f *fixture) {
	sub := subscription(clinicA, "sms")
	waits := f.planned(sub, keyOf(f, "a"), 1, start.Add(time.Hour))
	p := store.Plan{Key: keyOf(f, "a"), Timestamp: timestamp(2), Failed: true}
	id := f.accept(sub, planEvent(sub, "evt-failed", p))[0]
	f.stands(id, clinicA, delivery.Failed, delivery.ReasonScheduleFailed)
	f.stands(waits.ID, clinicA, delivery.Pending, "") // it replaces nothing
	if c := f.counts(sub); c.Failed != 1 || c.FailuresInARow != 0 {
		f.Errorf("counts %+v", c)
	}
	d := f.replay(clinicA, id)
	if !d.Due.Equal(f.Now()) || !d.Since.Equal(f.Now()) || !d.Planned.IsZero() {
		f.Errorf("replay %+v", d)
	}
	f.record(f.delivered(d))
	f.stands(id, clinicA, delivery.Delivered, "")
}

func testPlanZeroKey(f *fixture) {
	sub := subscription(clinicA, "sms")
	a := f.planned(sub, plan.Key{}, 2, start.Add(time.Hour))
	b := f.planned(sub, plan.Key{}, 1, start.Add(2*time.Hour))
	f.accept(sub, cancelEvent(sub, "cancel", plan.Key{}, 3))
	f.same("pending", bare(a, b), bare(f.pending(sub)...))
}

// testPlanBesides: one event is delivered to one subscription at once, and later to another.
func testPlanBesides(f *fixture) {
	now, later := subscription(clinicA, "now"), subscription(clinicA, "later")
	e := newEvent(clinicA, "evt-1", "x", now)
	p := planFor(keyOf(f, "a"), 1, start.Add(time.Hour))
	p.Subscription = &later
	e.Plans = []store.Plan{p}
	answers, deliveries, err := f.Append(f.ctx, []store.NewEvent{e})
	if err != nil {
		f.Fatal(err)
	}
	f.same("answers", []store.Accepted{{ID: "evt-1", Deliveries: 2}}, answers)
	if len(deliveries) != 1 || deliveries[0].ID.Subscription != now.Key || len(f.pending(later)) != 1 {
		f.Fatalf("%d deliveries, %d planned", len(deliveries), len(f.pending(later)))
	}
	f.record(f.delivered(deliveries[0]))
	for range 10 {
		f.clock.Advance(24 * time.Hour)
		f.expire()
	}
	if _, err := f.Event(f.ctx, e.Event.Key); err != nil {
		f.Errorf("Event, which is still owed: %v", err)
	}
}

// testPlanKeysApart: a key is that of one subscription.
func testPlanKeysApart(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicA, "b")
	key, at := keyOf(f, "k"), start.Add(time.Hour)
	first, second, other := f.planned(a, key, 1, at), f.planned(b, key, 2, at), f.planned(a, keyOf(f, "l"), 3, at)
	f.accept(b, cancelEvent(b, "cancel", key, 4))
	f.stands(first.ID, clinicA, delivery.Pending, "")
	f.stands(second.ID, clinicA, delivery.Cancelled, delivery.ReasonCancelledByEvent)
	f.stands(other.ID, clinicA, delivery.Pending, "")
}

// testPlanBatch: several events of a call apply in their order.
func testPlanBatch(f *fixture) {
	sub := subscription(clinicA, "sms")
	key, at := keyOf(f, "a"), start.Add(time.Hour)
	ids := f.accept(sub,
		planEvent(sub, "1", planFor(key, 1, at)),
		planEvent(sub, "2", planFor(key, 3, at)),
		planEvent(sub, "3", planFor(key, 2, at)),
		cancelEvent(sub, "4", key, 4),
		planEvent(sub, "5", planFor(key, 3, at)),
		planEvent(sub, "6", planFor(key, 5, at)),
	)
	f.stands(ids[0], clinicA, delivery.Cancelled, delivery.ReasonReplaced)
	f.stands(ids[1], clinicA, delivery.Cancelled, delivery.ReasonCancelledByEvent)
	f.unknown(ids[2], clinicA)
	f.unknown(ids[4], clinicA)
	f.stands(ids[5], clinicA, delivery.Pending, "")
	if c := f.counts(sub); c.Cancelled != 2 || len(f.pending(sub)) != 1 {
		f.Errorf("%d pending, counts %+v", len(f.pending(sub)), c)
	}
	reversed := f.accept(sub, cancelEvent(sub, "7", keyOf(f, "b"), 1), planEvent(sub, "8", planFor(keyOf(f, "b"), 2, at)))
	f.stands(reversed[1], clinicA, delivery.Pending, "")
}

// testPlanRepetition: an event that comes again neither plans nor cancels.
func testPlanRepetition(f *fixture) {
	sub := subscription(clinicA, "sms")
	key, at := keyOf(f, "a"), start.Add(time.Hour)
	again := func(e store.NewEvent) {
		f.Helper()
		answers, deliveries, err := f.Append(f.ctx, []store.NewEvent{e})
		want := []store.Accepted{{ID: e.Event.ID, Deliveries: len(e.Plans), Repeated: true}}
		if err != nil || len(deliveries) != 0 {
			f.Fatalf("Append gave %d deliveries, %v", len(deliveries), err)
		}
		f.same("answers", want, answers)
	}
	first := f.accept(sub, planEvent(sub, "plan", planFor(key, 1, at)))[0]
	again(planEvent(sub, "plan", planFor(key, 1, at)))
	f.stands(first, clinicA, delivery.Pending, "")
	f.accept(sub, cancelEvent(sub, "cancel", key, 2))
	again(planEvent(sub, "plan", planFor(key, 9, at)))
	f.stands(first, clinicA, delivery.Cancelled, delivery.ReasonCancelledByEvent)
	second := f.planned(sub, key, 3, at)
	again(cancelEvent(sub, "cancel", key, 9))
	f.stands(second.ID, clinicA, delivery.Pending, "")
	f.same("pending", bare(second), bare(f.pending(sub)...))
}

// testPlanConflict: a call that is refused plans and cancels nothing.
func testPlanConflict(f *fixture) {
	sub := subscription(clinicA, "sms")
	key, at := keyOf(f, "a"), start.Add(time.Hour)
	first, other := f.planned(sub, key, 1, at), f.planned(sub, keyOf(f, "b"), 1, at)
	f.publish(clinicA, "taken")
	f.conflict(2, planEvent(sub, "2", planFor(key, 2, at)), cancelEvent(sub, "3", keyOf(f, "b"), 2), newEvent(clinicA, "taken", "other"))
	f.same("pending", bare(first, other), bare(f.pending(sub)...))
	third := f.planned(sub, key, 1, at) // the timestamp of the refused event is not remembered
	f.same("pending", bare(other, third), bare(f.pending(sub)...))
}

// testPlanNotice: the owner hears of what was planned, also if it is due at once.
func testPlanNotice(f *fixture) {
	sub, other := subscription(clinicA, "sms"), subscription(clinicA, "other")
	f.planned(sub, keyOf(f, "a"), 1, start.Add(time.Hour))
	f.noticed(sub, start.Add(time.Hour))
	now := f.clock.Now()
	f.planned(other, keyOf(f, "a"), 1, now)
	f.noticed(other, now)
}

// testPlanAged: a planned delivery's age counts from its planned time.
func testPlanAged(f *fixture) {
	sub := subscription(clinicA, "sms")
	d := f.planned(sub, keyOf(f, "a"), 1, start.Add(100*time.Hour))
	f.clock.Advance(99 * time.Hour)
	none := map[event.DeliveryID]delivery.PendingDelivery{}
	f.same("aged before its time", none, f.aged(sub, f.clock.Now(), 9))
	f.clock.Advance(time.Hour)
	want := map[event.DeliveryID]delivery.PendingDelivery{d.ID: bare(d)[0]}
	f.same("aged", want, f.aged(sub, f.clock.Now(), 9))
	f.same("aged by a little less", none, f.aged(sub, d.Planned.Add(-1), 9))
	retried := f.retry(d, time.Hour)
	f.same("aged after an attempt", map[event.DeliveryID]delivery.PendingDelivery{d.ID: bare(retried)[0]}, f.aged(sub, d.Planned, 9))
}
