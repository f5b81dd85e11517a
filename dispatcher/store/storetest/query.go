package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var queryTests = map[string]func(*fixture){
	"GetNone":           testGetNone,
	"GetForeign":        testGetForeign,
	"ListNewestFirst":   testListNewestFirst,
	"ListByState":       testListByState,
	"ListBySub":         testListBySubscription,
	"ListByTime":        testListByTime,
	"ListPages":         testListPages,
	"ListForeign":       testListForeign,
	"ListOneEvent":      testListOneEvent,
	"ListDeleted":       testListDeleted,
	"ListRenamed":       testListRenamed,
	"ListUIDMoved":      testListMoved,
	"ListAcrossBuckets": testListAcross,
	"Context":           testQueryContext,
}

func testGetNone(f *fixture) {
	sub := subscription(clinicA, "a")
	id := event.DeliveryID{Event: event.NewKey(start, clinicA, "x"), Subscription: sub.Key}
	if _, err := f.Get(f.ctx, clinicA, id); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("Get from an empty store gave %v", err)
	}
	f.one(sub)
	if _, err := f.Get(f.ctx, clinicA, id); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("Get of another event gave %v", err)
	}
}

// testGetForeign: a namespace never learns that another's delivery exists.
func testGetForeign(f *fixture) {
	sub := subscription(clinicA, "a")
	f.one(subscription(clinicB, "b"))
	for _, finish := range []func(delivery.PendingDelivery) delivery.Outcome{nil, f.delivered, f.failed, f.cancelled} {
		d := f.one(sub)
		if finish != nil {
			f.record(finish(d))
		}
		_, err := f.Get(f.ctx, clinicB, d.ID)
		_, replayed := f.Replay(f.ctx, clinicB, d.ID)
		if !errors.Is(err, store.ErrNotFound) || !errors.Is(replayed, store.ErrNotFound) {
			f.Errorf("Get gave %v, Replay %v", err, replayed)
		}
	}
}

// populate makes deliveries in every state, over hours, and returns their ids, newest first.
func (f *fixture) populate(n int, subs ...delivery.Subscription) []event.DeliveryID {
	f.Helper()
	var ids []event.DeliveryID
	for i := range n {
		d := f.one(subs[i%len(subs)])
		ids = append(ids, d.ID)
		switch i % 6 {
		case 0:
			f.record(f.delivered(d))
		case 1:
			f.record(f.failed(d))
		case 2:
			f.record(f.cancelled(d))
		case 3:
			f.retry(d, time.Hour)
		case 4:
			d = f.retry(d, time.Hour)
			f.clock.Advance(time.Hour)
			f.record(f.delivered(d))
		}
		f.clock.Advance(10 * time.Minute)
	}
	slices.Reverse(ids)
	return ids
}

func ids(records []store.Record) []event.DeliveryID {
	var all []event.DeliveryID
	for _, r := range records {
		all = append(all, r.ID)
	}
	return all
}

func testListNewestFirst(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicA, "b")
	want := f.populate(30, a, b)
	got := f.list(store.Query{Tenant: clinicA})
	f.same("ids", want, ids(got))
	for _, r := range got {
		full := f.get(r.ID, clinicA)
		if full.AttemptCount > 0 && len(full.Attempts) != full.AttemptCount {
			f.Errorf("%d attempts of %d", len(full.Attempts), full.AttemptCount)
		}
		full.Attempts = nil
		f.same("listed record", full, r)
	}
	for _, r := range f.list(store.Query{Tenant: clinicA, LastAttempt: true}) {
		full := f.get(r.ID, clinicA)
		full.Attempts = full.Listed(true)
		f.same("listed record with its last attempt", full, r)
	}
	f.reopen()
	f.same("after a restart", got, f.list(store.Query{Tenant: clinicA}))
}

func testListByState(f *fixture) {
	all := map[delivery.State][]event.DeliveryID{}
	f.populate(30, subscription(clinicA, "a"), subscription(clinicA, "b"))
	for _, r := range f.list(store.Query{Tenant: clinicA}) {
		all[r.State] = append(all[r.State], r.ID)
	}
	for state := delivery.Pending; state <= delivery.Cancelled; state++ {
		if len(all[state]) == 0 {
			f.Errorf("nothing is %s", state)
		}
		f.same(state.String(), all[state], ids(f.list(store.Query{Tenant: clinicA, State: state})))
	}
}

func testListBySubscription(f *fixture) {
	all := map[string][]event.DeliveryID{}
	f.populate(31, subscription(clinicA, "a"), subscription(clinicA, "b"))
	for _, r := range f.list(store.Query{Tenant: clinicA}) {
		all[r.Subscription] = append(all[r.Subscription], r.ID)
	}
	for _, name := range []string{"a", "b", "c"} {
		f.same(name, all[name], ids(f.list(store.Query{Tenant: clinicA, Subscription: name})))
	}
	if len(all["a"]) != 16 || len(all["b"]) != 15 {
		f.Errorf("%d and %d", len(all["a"]), len(all["b"]))
	}
}

func testListByTime(f *fixture) {
	newest := f.populate(30, subscription(clinicA, "a"))
	for from := 0; from < len(newest); from += 7 {
		for until := from; until < len(newest); until += 5 {
			q := store.Query{Tenant: clinicA, Since: newest[until].Event.Accepted(), Until: newest[from].Event.Accepted()}
			f.same(fmt.Sprintf("%d to %d", from, until), newest[min(from+1, until+1):until+1], ids(f.list(q)))
		}
	}
	f.same("since", newest[:4], ids(f.list(store.Query{Tenant: clinicA, Since: newest[3].Event.Accepted()})))
	f.same("until", newest[4:], ids(f.list(store.Query{Tenant: clinicA, Until: newest[3].Event.Accepted()})))
}

func testListPages(f *fixture) {
	want := f.populate(30, subscription(clinicA, "a"), subscription(clinicA, "b"), subscription(clinicA, "c"))
	for _, limit := range []int{1, 7, 30} {
		var got []event.DeliveryID
		q := store.Query{Tenant: clinicA, Limit: limit}
		for range len(want) + 1 {
			page := f.list(q)
			if len(page) == 0 {
				break
			}
			got = append(got, ids(page)...)
			q.Before = page[len(page)-1].ID
		}
		f.same(fmt.Sprintf("pages of %d", limit), want, got)
	}
}

func testListForeign(f *fixture) {
	mine := f.populate(12, subscription(clinicA, "same"))
	theirs := f.populate(12, subscription(clinicB, "same"))
	f.same("mine", mine, ids(f.list(store.Query{Tenant: clinicA})))
	f.same("theirs", theirs, ids(f.list(store.Query{Tenant: clinicB})))
	f.same("theirs by name", theirs, ids(f.list(store.Query{Tenant: clinicB, Subscription: "same"})))
	f.same("nobody's", []event.DeliveryID(nil), ids(f.list(store.Query{Tenant: "clinic"})))
	f.same("mine before theirs", mine, ids(f.list(store.Query{Tenant: clinicA, Before: theirs[0]})))
}

// testListOneEvent pages through the deliveries of one event, in every state.
func testListOneEvent(f *fixture) {
	var subs []delivery.Subscription
	for i := range 8 {
		subs = append(subs, subscription(clinicA, fmt.Sprintf("sub-%d", i)))
	}
	deliveries := f.publish(clinicA, "evt", subs...)
	f.record(f.delivered(deliveries[0]), f.delivered(deliveries[1]), f.failed(deliveries[2]), f.cancelled(deliveries[3]))
	f.retry(deliveries[4], time.Hour)
	f.retry(deliveries[5], time.Hour)
	want := make([]string, 0, len(deliveries))
	for _, d := range deliveries {
		want = append(want, d.ID.String())
	}
	slices.Sort(want)
	slices.Reverse(want)
	var got []string
	q := store.Query{Tenant: clinicA, Limit: 1}
	for range len(want) + 1 {
		for _, r := range f.list(q) {
			got, q.Before = append(got, r.ID.String()), r.ID
		}
	}
	f.same("ids", want, got)
}

// testListDeleted: what was delivered to a subscription stays when it goes, and its successor of the same name joins it.
func testListDeleted(f *fixture) {
	sub := subscription(clinicA, "a")
	f.record(f.cancelled(f.one(sub)), f.delivered(f.one(sub)))
	successor := sub
	successor.Key = event.NewSubscriptionKey("another uid")
	f.one(successor)
	f.reopen()
	if got := len(f.list(store.Query{Tenant: clinicA, Subscription: "a"})); got != 3 {
		f.Errorf("%d deliveries, want 3", got)
	}
}

func testListRenamed(f *fixture) {
	sub := subscription(clinicA, "a")
	f.one(sub)
	sub.Name = "b"
	f.one(sub)
	f.reopen()
	if got := f.list(store.Query{Tenant: clinicA, Subscription: "b"}); len(got) != 2 || got[0].Subscription != "b" {
		f.Errorf("listed %v", got)
	}
}

// testListMoved: a manifest that takes its uid to another namespace takes none of its deliveries there.
func testListMoved(f *fixture) {
	sub := subscription(clinicA, "a")
	old := []delivery.PendingDelivery{f.one(sub), f.one(sub), f.one(sub), f.one(sub)}
	f.record(f.delivered(old[0]), f.failed(old[1]))
	f.retry(old[2], time.Hour)
	sub.Tenant = clinicB
	moved := f.one(sub)
	f.same("theirs", []event.DeliveryID{moved.ID}, ids(f.list(store.Query{Tenant: clinicB})))
	for _, d := range old {
		if _, err := f.Get(f.ctx, clinicB, d.ID); !errors.Is(err, store.ErrNotFound) {
			f.Errorf("Get gave %v", err)
		}
		if _, err := f.Replay(f.ctx, clinicB, d.ID); !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrStillPending) {
			f.Errorf("Replay gave %v", err)
		}
	}
	f.reopen()
	f.same("mine", 4, len(f.list(store.Query{Tenant: clinicA})))
	f.same("theirs after a restart", []event.DeliveryID{moved.ID}, ids(f.list(store.Query{Tenant: clinicB})))
}

// testListAcross finishes old deliveries late, so that they are filed in another order than their events came.
func testListAcross(f *fixture) {
	sub := subscription(clinicA, "a")
	var deliveries []delivery.PendingDelivery
	var want []event.DeliveryID
	for range 8 {
		deliveries = append(deliveries, f.one(sub))
		want = append(want, deliveries[len(deliveries)-1].ID)
	}
	slices.Reverse(want)
	for i, at := range []int{3, 7, 0, 5, 1, 6, 2, 4} {
		f.clock.Advance(70 * time.Minute)
		if i%3 == 0 {
			f.record(f.failed(deliveries[at]))
		} else {
			f.record(f.delivered(deliveries[at]))
		}
	}
	f.same("ids", want, ids(f.list(store.Query{Tenant: clinicA})))
	f.same("first page", want[:3], ids(f.list(store.Query{Tenant: clinicA, Limit: 3})))
}

func testQueryContext(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	_, get := f.Get(ctx, clinicA, d.ID)
	_, list := f.List(ctx, store.Query{Tenant: clinicA, Limit: 1})
	_, replay := f.Replay(ctx, clinicA, d.ID)
	_, _, _, due := f.Due(ctx, sub.Key, delivery.Position{}, farFuture, 1, nil)
	_, aged := f.Aged(ctx, sub.Key, farFuture, 1, nil)
	_, _, first := f.First(ctx, sub.Key, 1)
	_, stored := f.Event(ctx, d.ID.Event)
	_, counts := f.Counts(ctx, sub.Key)
	_, retrying := f.Retrying(ctx, sub.Key, 1)
	_, oldest := f.OldestPending(ctx, sub.Key)
	for what, err := range map[string]error{
		"Get": get, "List": list, "Replay": replay, "Due": due, "Aged": aged, "First": first, "Event": stored, "Counts": counts,
		"Retrying": retrying, "OldestPending": oldest, "Record": f.Record(ctx, []delivery.Outcome{f.delivered(d)}),
		"Backlogs": f.Backlogs(ctx, func(delivery.Backlog) error { return nil }),
	} {
		if !errors.Is(err, context.Canceled) {
			f.Errorf("%s gave %v, want the context's error", what, err)
		}
	}
}
