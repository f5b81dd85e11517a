package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// testCancelAndOutcome: what becomes of an attempt that began before its delivery was cancelled.
func testCancelAndOutcome(f *fixture) {
	for i, test := range []struct {
		outcome    delivery.State
		byUser     bool
		want       delivery.State
		wantReason delivery.Reason
	}{
		{delivery.Pending, false, delivery.Cancelled, delivery.ReasonCancelledByEvent},
		{delivery.Failed, false, delivery.Cancelled, delivery.ReasonCancelledByEvent},
		{delivery.Delivered, false, delivery.Delivered, ""},
		{delivery.Pending, true, delivery.Cancelled, delivery.ReasonByUser},
		{delivery.Delivered, true, delivery.Delivered, ""},
	} {
		sub := subscription(clinicA, fmt.Sprint("sms-", i))
		key := keyOf(f, "a")
		d := f.planned(sub, key, 1, f.clock.Now())
		f.starts(d.ID, true)
		if test.byUser {
			f.cancel(d.ID, clinicA, nil)
		} else {
			f.accept(sub, cancelEvent(sub, fmt.Sprint("cancel-", i), key, 2))
		}
		f.record(f.outcomeOf(d, test.outcome))
		r := f.stands(d.ID, clinicA, test.want, test.wantReason)
		c := f.counts(sub)
		want := delivery.Counts{Cancelled: 1}
		if test.want == delivery.Delivered {
			want = delivery.Counts{Delivered: 1, LastDelivered: c.LastDelivered}
		}
		if c.LastFailure, c.FailuresInARow = (delivery.Attempt{}), 0; r.AttemptCount != len(r.Attempts) {
			f.Errorf("record %+v", r)
		}
		f.same("counts", want, c)
		f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
		f.starts(d.ID, false)
		f.reopen()
		f.stands(d.ID, clinicA, test.want, test.wantReason)
	}
}

// cancel expects Cancel to answer so.
func (f *fixture) cancel(id event.DeliveryID, namespace string, want error) {
	f.Helper()
	if err := f.Cancel(f.ctx, namespace, id); !errors.Is(err, want) {
		f.Errorf("Cancel gave %v, want %v", err, want)
	}
}

func testCancelByUser(f *fixture) {
	sub := subscription(clinicA, "sms")
	key := keyOf(f, "a")
	d, plain, retried := f.planned(sub, key, 2, start.Add(time.Hour)), f.one(sub), f.retry(f.one(sub), time.Hour)
	f.cancel(d.ID, clinicB, store.ErrNotFound)
	for _, id := range []event.DeliveryID{d.ID, plain.ID, retried.ID} {
		f.cancel(id, clinicA, nil)
		f.cancel(id, clinicA, store.ErrNotPending)
		f.starts(id, false)
	}
	f.crash()
	for _, id := range []event.DeliveryID{d.ID, plain.ID, retried.ID} {
		f.stands(id, clinicA, delivery.Cancelled, delivery.ReasonByUser)
	}
	if c := f.counts(sub); c.Cancelled != 3 || c.Retrying != 0 {
		f.Errorf("counts %+v", c)
	}
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
	ignored := f.accept(sub, planEvent(sub, "older", planFor(key, 1, start.Add(time.Hour))))[0]
	f.unknown(ignored, clinicA)
	f.planned(sub, key, 3, start.Add(time.Hour))
	unknown := d.ID
	unknown.Event[15]++
	f.cancel(unknown, clinicA, store.ErrNotFound)
}

func testSendNow(f *fixture) {
	sub := subscription(clinicA, "sms")
	key, at := keyOf(f, "a"), start.Add(100*time.Hour)
	d := f.planned(sub, key, 1, at)
	f.clock.Advance(time.Hour)
	if _, err := f.Store.SendNow(f.ctx, clinicB, d.ID); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("SendNow by another tenant gave %v", err)
	}
	now, err := f.Store.SendNow(f.ctx, clinicA, d.ID)
	if err != nil || now.Event == nil || !bytes.Contains(now.Event.Body, []byte("evt-")) {
		f.Fatalf("SendNow gave %+v, %v", now, err)
	}
	want := d
	want.Due, want.Since = f.clock.Now(), f.clock.Now()
	f.same("sent now", bare(want), bare(now))
	f.scheduled(sub, 0, time.Time{})
	f.crash()
	f.same("pending", bare(want), bare(f.pending(sub)...))
	f.starts(d.ID, true)
	retried := f.retry(f.pending(sub)[0], time.Hour)
	f.same("pending", bare(retried), bare(f.pending(sub)...))
	f.scheduled(sub, 0, time.Time{})
	f.record(f.delivered(retried))
	if r := f.stands(d.ID, clinicA, delivery.Delivered, ""); !r.Planned.Equal(at) {
		f.Errorf("record %+v", r)
	}
	if _, err := f.Store.SendNow(f.ctx, clinicA, d.ID); !errors.Is(err, store.ErrNotPending) {
		f.Errorf("SendNow of what has ended gave %v", err)
	}
}

// testReplayPlanned: a replay is due at once, and Start knows it.
func testReplayPlanned(f *fixture) {
	sub := subscription(clinicA, "sms")
	key, at := keyOf(f, "a"), start.Add(100*time.Hour)
	d := f.planned(sub, key, 1, at)
	f.accept(sub, cancelEvent(sub, "cancel", key, 2))
	f.starts(d.ID, false)
	again := f.replay(clinicA, d.ID)
	if again.ID != d.ID || !again.Planned.Equal(at) || !again.Due.Equal(f.clock.Now()) || !again.Since.Equal(f.clock.Now()) {
		f.Errorf("replay %+v", again)
	}
	f.same("pending", bare(again), bare(f.pending(sub)...))
	f.stands(d.ID, clinicA, delivery.Pending, "")
	f.scheduled(sub, 0, time.Time{})
	f.reopen()
	f.starts(d.ID, true)
	f.record(f.delivered(again))
	f.stands(d.ID, clinicA, delivery.Delivered, "")
	f.same("by key", []event.DeliveryID{d.ID}, ids(f.list(store.Query{Tenant: clinicA, Subscription: "sms", Key: key})))
	copied := f.replay(clinicA, d.ID)
	if copied.ID == d.ID || !copied.Planned.IsZero() {
		f.Errorf("the replay of what was delivered is %+v", copied)
	}
}

// testReasonOfOutcome: an outcome without an attempt names a reason.
func testReasonOfOutcome(f *fixture) {
	sub := subscription(clinicA, "sms")
	rechecked, deleted := f.planned(sub, keyOf(f, "a"), 1, start), f.one(sub)
	f.starts(rechecked.ID, true)
	first, second := f.cancelled(rechecked), f.cancelled(deleted)
	first.Reason, second.Reason = delivery.ReasonRecheck, delivery.ReasonSubscriptionDeleted
	f.record(first, second)
	f.reopen()
	f.stands(rechecked.ID, clinicA, delivery.Cancelled, delivery.ReasonRecheck)
	f.stands(deleted.ID, clinicA, delivery.Cancelled, delivery.ReasonSubscriptionDeleted)
	f.record(f.delivered(deleted)) // only a cancel by an event or a user gives way to an attempt that began before
	f.stands(deleted.ID, clinicA, delivery.Cancelled, delivery.ReasonSubscriptionDeleted)
	f.replay(clinicA, deleted.ID)
	f.stands(deleted.ID, clinicA, delivery.Pending, "")
}

// scheduled expects so many planned deliveries to be still to come, and the first at that time.
func (f *fixture) scheduled(sub delivery.Subscription, want int64, wantNext time.Time) {
	f.Helper()
	count, next, err := f.Store.Scheduled(f.ctx, sub.Key)
	if err != nil || count != want || !next.Equal(wantNext) {
		f.Errorf("Scheduled gave %d, %s, %v; want %d, %s", count, next, err, want, wantNext)
	}
}

func testScheduled(f *fixture) {
	sub, other := subscription(clinicA, "sms"), subscription(clinicA, "other")
	f.scheduled(sub, 0, time.Time{})
	f.retry(f.one(sub), 30*time.Minute)
	at := func(hours int) time.Time { return start.Add(time.Duration(hours) * time.Hour) }
	a, b := f.planned(sub, keyOf(f, "a"), 1, at(3)), f.planned(sub, keyOf(f, "b"), 1, at(2))
	f.planned(sub, plan.Key{}, 1, at(4))
	f.planned(other, keyOf(f, "a"), 1, at(1))
	f.scheduled(sub, 3, at(2))
	f.accept(sub, cancelEvent(sub, "cancel", keyOf(f, "b"), 2))
	f.scheduled(sub, 2, at(3))
	f.starts(b.ID, false)
	f.planned(sub, keyOf(f, "a"), 2, at(5)) // in place of a
	f.scheduled(sub, 2, at(4))
	f.starts(a.ID, false)
	f.reopen()
	f.scheduled(sub, 2, at(4))
	f.clock.Advance(at(4).Sub(f.clock.Now()) - 1)
	f.scheduled(sub, 2, at(4))
	f.clock.Advance(1)
	f.scheduled(sub, 1, at(5)) // the other one's time has come
	f.clock.Advance(2 * time.Hour)
	f.scheduled(sub, 0, time.Time{})
	for _, d := range f.pending(sub) {
		f.retry(d, time.Hour)
	}
	f.scheduled(sub, 0, time.Time{})
}

func testListScheduled(f *fixture) {
	sub := subscription(clinicA, "sms")
	key, other := keyOf(f, "a"), keyOf(f, "b")
	at := start.Add(time.Hour)
	first := f.planned(sub, key, 1, at)
	plain := f.one(sub)
	second := f.planned(sub, key, 2, at)
	third := f.planned(sub, other, 1, start.Add(2*time.Hour))
	skipped := f.accept(sub, planEvent(sub, "past", store.Plan{
		Key: other, Timestamp: timestamp(0), Decision: plan.Decision{Reason: plan.Past},
	}))[0]
	f.unknown(skipped, clinicA)
	elsewhere := subscription(clinicA, "elsewhere")
	f.planned(elsewhere, key, 1, at)
	check := func(what string, q store.Query, want ...event.DeliveryID) {
		f.Helper()
		q.Tenant, q.Subscription = clinicA, "sms"
		f.same(what, want, ids(f.list(q)))
	}
	all := func() {
		f.Helper()
		check("all", store.Query{}, third.ID, second.ID, plain.ID, first.ID)
		check("pending", store.Query{State: delivery.Pending}, third.ID, second.ID, plain.ID)
		check("scheduled", store.Query{Scheduled: true}, third.ID, second.ID)
		check("scheduled and pending", store.Query{State: delivery.Pending, Scheduled: true}, third.ID, second.ID)
		check("by key", store.Query{Key: key}, second.ID, first.ID)
		check("by key and state", store.Query{Key: key, State: delivery.Cancelled}, first.ID)
		check("scheduled by key", store.Query{Key: key, Scheduled: true}, second.ID)
		check("on from the newest", store.Query{Before: third.ID, Limit: 2}, second.ID, plain.ID)
		check("the newest", store.Query{Limit: 1}, third.ID)
		check("since", store.Query{Since: second.ID.Event.Accepted()}, third.ID, second.ID)
		check("until", store.Query{Until: second.ID.Event.Accepted()}, plain.ID, first.ID)
	}
	all()
	f.reopen()
	all()
	f.clock.Advance(at.Sub(f.clock.Now()))
	check("scheduled once the first is due", store.Query{Scheduled: true}, third.ID)
	f.record(f.delivered(second))
	check("by key and state", store.Query{Key: key, State: delivery.Delivered}, second.ID)
}

func testPlanTotals(f *fixture) {
	sub := subscription(clinicA, "sms")
	d := f.planned(sub, keyOf(f, "a"), 1, start.Add(time.Hour))
	f.planned(sub, keyOf(f, "b"), 1, start.Add(time.Hour))
	total := func() (deliveries, size int64) {
		f.Helper()
		err := f.Store.Totals(f.ctx, func(key event.SubscriptionKey, n, bytes int64) error {
			if key == sub.Key {
				deliveries, size = n, bytes
			}
			return nil
		})
		if err != nil {
			f.Fatal(err)
		}
		return deliveries, size
	}
	if n, size := total(); n != 2 || size != 2*int64(d.Size) {
		f.Errorf("%d deliveries of %d bytes", n, size)
	}
	f.accept(sub, cancelEvent(sub, "cancel", keyOf(f, "a"), 2))
	if n, size := total(); n != 1 || size != int64(d.Size) {
		f.Errorf("%d deliveries of %d bytes once one is cancelled", n, size)
	}
}

func testPlanFull(f *fixture) {
	if f.place.Fill == nil {
		f.Skip("the implementation cannot simulate a full volume")
	}
	sub := subscription(clinicA, "sms")
	key := keyOf(f, "a")
	d := f.planned(sub, key, 1, start.Add(time.Hour))
	f.place.Fill(f.Store, true)
	_, _, err := f.Append(f.ctx, []store.NewEvent{planEvent(sub, "late", planFor(key, 2, start.Add(time.Hour)))})
	if !errors.Is(err, store.ErrFull) {
		f.Errorf("Append of a plan gave %v", err)
	}
	if _, err := f.Store.SendNow(f.ctx, clinicA, d.ID); !errors.Is(err, store.ErrFull) {
		f.Errorf("SendNow gave %v", err)
	}
	f.clock.Advance(time.Hour)
	f.starts(d.ID, true)
	f.record(f.delivered(d)) // what is due goes on
	f.place.Fill(f.Store, false)
	f.planned(sub, key, 2, start.Add(2*time.Hour))
}

// testStartAsRead: a delivery that was read before it ended does not start after that.
func testStartAsRead(f *fixture) {
	sub := subscription(clinicA, "sms")
	read := map[event.DeliveryID]delivery.PendingDelivery{}
	ids := make([]event.DeliveryID, 5)
	for i := range ids {
		ids[i] = f.planned(sub, keyOf(f, fmt.Sprint("key-", i)), i+1, start).ID
	}
	for _, d := range f.pending(sub) {
		read[d.ID] = d
	}
	ends := []func(){
		nil,
		func() { f.accept(sub, cancelEvent(sub, "cancel", keyOf(f, "key-1"), 20)) },
		func() { f.accept(sub, planEvent(sub, "replace", planFor(keyOf(f, "key-2"), 20, start))) },
		func() { f.cancel(ids[3], clinicA, nil) },
		func() { f.record(f.cancelled(read[ids[4]])) },
	}
	for i, end := range ends {
		if end != nil {
			end()
		}
		if got, err := f.Start(f.ctx, read[ids[i]]); err != nil || got != (end == nil) {
			f.Errorf("Start of delivery %d, as it was read before, gave %t, %v; want %t", i, got, err, end == nil)
		}
	}
}
