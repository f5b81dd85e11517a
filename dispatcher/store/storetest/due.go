package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var dueTests = map[string]func(*fixture){
	"Order":            testDueOrder,
	"Cursor":           testDueCursor,
	"UntilInclusive":   testDueUntil,
	"Into":             testDueInto,
	"OneSubscription":  testDueApart,
	"Backlogs":         testBacklogs,
	"BacklogsStop":     testBacklogsStop,
	"BacklogsReenter":  testBacklogsReenter,
	"Aged":             testAged,
	"AgedLimit":        testAgedLimit,
	"First":            testFirst,
	"FirstUnordered":   testFirstUnordered,
	"OldestPending":    testOldestPending,
	"Retrying":         testRetrying,
	"EventOfNone":      testEventOfNone,
	"EventIsStored":    testEventStored,
	"EventsAlong":      testEventsAlong,
	"ParallelWithLoad": testParallelDue,
}

func testDueOrder(f *fixture) {
	sub := subscription(clinicA, "a")
	first, second, third := f.one(sub), f.one(sub), f.one(sub)
	late := f.retry(first, time.Hour)
	soon := f.retry(second, time.Minute)
	f.same("pending", bare(third, soon, late), bare(f.pending(sub)...))
}

// testDueCursor reads on page by page, with what falls due in between.
func testDueCursor(f *fixture) {
	sub := subscription(clinicA, "a")
	var want, got []delivery.PendingDelivery
	for i := range 23 {
		d := f.one(sub)
		if i%3 == 0 {
			d = f.retry(d, 0) // due between the others
		}
		want = append(want, d)
	}
	at := delivery.Position{}
	for range want {
		found, next, more, err := f.Due(f.ctx, sub.Key, at, f.clock.Now(), 5, nil)
		if err != nil {
			f.Fatal(err)
		}
		got = append(got, found...)
		if !more {
			break
		}
		if len(found) != 5 || next.Before(found[4].Position()) {
			f.Fatalf("%d found, then go on at %v", len(found), next)
		}
		at = next
	}
	f.same("pages", bare(want...), bare(got...))
}

func testDueUntil(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.retry(f.one(sub), time.Minute)
	for name, test := range map[string]struct {
		from  delivery.Position
		until time.Time
		limit int
		want  int
		more  bool
	}{
		"before":          {until: d.Due.Add(-1), limit: 9, want: 0, more: true},
		"at":              {until: d.Due, limit: 9, want: 1},
		"limit":           {until: d.Due, limit: 0, want: 0, more: true},
		"from it":         {from: d.Position(), until: d.Due, limit: 9, want: 1},
		"from behind it":  {from: delivery.Position{Due: d.Due.Add(1)}, until: farFuture, limit: 9, want: 0},
		"until long past": {until: time.Time{}, limit: 9, want: 0, more: true},
	} {
		found, next, more, err := f.Due(f.ctx, sub.Key, test.from, test.until, test.limit, nil)
		if err != nil || len(found) != test.want || more != test.more {
			f.Errorf("%s: %d found, more=%t, err=%v; want %d, %t", name, len(found), more, err, test.want, test.more)
		}
		if more && !next.Due.Equal(d.Due) || more && next.Event != d.ID.Event {
			f.Errorf("%s: goes on at %v", name, next)
		}
	}
}

func testDueInto(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	there := make([]delivery.PendingDelivery, 1, 4)
	there[0].Attempts = 42
	found, _, _, err := f.Due(f.ctx, sub.Key, delivery.Position{}, f.clock.Now(), 4, there)
	if err != nil {
		f.Fatal(err)
	}
	f.same("found", append(there, bare(d)...), append(found[:1:1], bare(found[1:]...)...))
}

// maxBrought bounds the bodies that Due may bring along: nobody has counted them yet.
const maxBrought = 4 << 20

// testEventsAlong: Due brings the events of the deliveries along that the engine attempts next, each with its own, and no more
// than a few MiB.
func testEventsAlong(f *fixture) {
	sub := subscription(clinicA, "a")
	want := map[event.DeliveryID]*delivery.Event{}
	for i := range 40 {
		e := newEvent(clinicA, fmt.Sprint("along-", i), fmt.Sprint("content ", i), sub)
		_, accepted, err := f.Append(f.ctx, []store.NewEvent{e})
		if err != nil {
			f.Fatal(err)
		}
		id := accepted[0].ID
		want[id] = e.Event
		if i%3 == 0 { // they are not due in the order of their acceptance
			f.retry(f.pendingAs(sub, id), time.Duration(40-i)*time.Second)
		}
	}
	key, at := keyOf(f, "a"), f.clock.Now().Add(time.Minute)
	e := planEvent(sub, "evt-planned", planFor(key, 1, at))
	want[f.accept(sub, e)[0]] = e.Event
	f.clock.Advance(2 * time.Minute)
	found := f.pending(sub)
	for _, d := range found {
		if d.Event == nil {
			f.Fatalf("the event of %s does not come along", d.ID)
		}
		f.same("event", want[d.ID], d.Event)
	}
	if len(found) != len(want) {
		f.Errorf("%d found, want %d", len(found), len(want))
	}
	large := subscription(clinicA, "large")
	for range 12 {
		f.sized(1<<20, large)
	}
	brought := 0
	for _, d := range f.pending(large) {
		if d.Event != nil {
			brought += len(d.Event.Body)
		}
	}
	if brought == 0 || brought > maxBrought {
		f.Errorf("%d bytes come along, want some, and at most %d", brought, maxBrought)
	}
}

// pendingAs returns the pending delivery with the given id.
func (f *fixture) pendingAs(sub delivery.Subscription, id event.DeliveryID) delivery.PendingDelivery {
	f.Helper()
	for _, d := range f.pending(sub) {
		if d.ID == id {
			return d
		}
	}
	f.Fatalf("%s is not pending", id)
	return delivery.PendingDelivery{}
}

func testDueApart(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicA, "b")
	d := f.publish(clinicA, "evt-1", a, b)
	f.same("pending of a", bare(d[0]), bare(f.pending(a)...))
	f.record(f.delivered(d[0]))
	f.same("pending of a", []delivery.PendingDelivery(nil), f.pending(a))
	f.same("pending of b", bare(d[1]), bare(f.pending(b)...))
}

func (f *fixture) backlogs() map[event.SubscriptionKey]time.Time {
	f.Helper()
	got := map[event.SubscriptionKey]time.Time{}
	err := f.Backlogs(f.ctx, func(b delivery.Backlog) error {
		if _, twice := got[b.Subscription]; twice {
			f.Errorf("%x came twice", b.Subscription)
		}
		got[b.Subscription] = b.Due.UTC()
		return nil
	})
	if err != nil {
		f.Fatalf("Backlogs: %v", err)
	}
	return got
}

func testBacklogs(f *fixture) {
	f.same("backlogs", map[event.SubscriptionKey]time.Time{}, f.backlogs())
	want := map[event.SubscriptionKey]time.Time{}
	for i := range 40 {
		sub := subscription(clinicA, fmt.Sprintf("sub-%d", i))
		first := f.one(sub)
		f.one(sub)
		switch i % 4 {
		case 0:
			f.record(f.delivered(first), f.delivered(f.pending(sub)[1]))
			continue
		case 1:
			f.retry(first, time.Hour)
			f.retry(f.pending(sub)[0], time.Minute)
		}
		want[sub.Key] = f.pending(sub)[0].Due
	}
	f.same("backlogs", want, f.backlogs())
	f.reopen()
	f.same("backlogs after a restart", want, f.backlogs())
}

func testBacklogsStop(f *fixture) {
	f.one(subscription(clinicA, "a"))
	f.one(subscription(clinicA, "b"))
	enough, calls := errors.New("enough"), 0
	err := f.Backlogs(f.ctx, func(delivery.Backlog) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		f.Errorf("%d calls, then %v", calls, err)
	}
}

func testBacklogsReenter(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	err := f.Backlogs(f.ctx, func(delivery.Backlog) error {
		return f.Record(f.ctx, []delivery.Outcome{f.delivered(d)})
	})
	if err != nil || len(f.pending(sub)) != 0 {
		f.Errorf("err=%v, %d pending", err, len(f.pending(sub)))
	}
}

func (f *fixture) aged(sub delivery.Subscription, since time.Time, limit int) map[event.DeliveryID]delivery.PendingDelivery {
	f.Helper()
	found, err := f.Aged(f.ctx, sub.Key, since, limit, nil)
	if err != nil {
		f.Fatalf("Aged: %v", err)
	}
	got := map[event.DeliveryID]delivery.PendingDelivery{}
	for _, d := range bare(found...) {
		got[d.ID] = d
	}
	if len(got) != len(found) {
		f.Errorf("%d found, %d of them different", len(found), len(got))
	}
	return got
}

func testAged(f *fixture) {
	sub := subscription(clinicA, "a")
	retried, lost, fresh := f.one(sub), f.one(sub), f.one(sub)
	retried = f.retry(retried, 100*time.Hour)
	f.record(f.failed(lost))
	f.clock.Advance(time.Hour)
	replayed, err := f.Replay(f.ctx, clinicA, lost.ID) // its age starts anew
	if err != nil {
		f.Fatal(err)
	}
	f.clock.Advance(time.Hour)
	young := f.one(sub)
	want := map[event.DeliveryID]delivery.PendingDelivery{}
	for _, d := range bare(retried, fresh, replayed, young) {
		if !d.Since.After(fresh.Since) {
			want[d.ID] = d
		}
	}
	if len(want) != 2 {
		f.Fatalf("%d deliveries are as old as the third, want 2", len(want))
	}
	f.same("aged", want, f.aged(sub, fresh.Since, 9))
	f.same("aged a little less", map[event.DeliveryID]delivery.PendingDelivery{retried.ID: want[retried.ID]}, f.aged(sub, fresh.Since.Add(-1), 9))
	want[replayed.ID] = bare(replayed)[0]
	f.same("aged by the replay", want, f.aged(sub, replayed.Since, 9))
	if got := len(f.aged(sub, farFuture, 9)); got != 4 {
		f.Errorf("%d of all, want 4", got)
	}
	f.same("aged before anything", map[event.DeliveryID]delivery.PendingDelivery{}, f.aged(sub, time.Time{}, 9))
}

func testAgedLimit(f *fixture) {
	sub := subscription(clinicA, "a")
	for i := range 6 {
		if d := f.one(sub); i%2 == 0 {
			f.retry(d, time.Hour)
		}
	}
	for limit := range 8 {
		if got := len(f.aged(sub, farFuture, limit)); got != min(limit, 6) {
			f.Errorf("%d found with limit %d", got, limit)
		}
	}
}

// ordered publishes an event whose deliveries are ordered by order, where sub asks for it.
func (f *fixture) ordered(sub delivery.Subscription, order uint64) delivery.PendingDelivery {
	f.Helper()
	f.next++
	f.clock.Advance(time.Millisecond)
	e := newEvent(sub.Tenant, fmt.Sprintf("evt-%d", f.next), "x", sub)
	e.Order = order
	_, deliveries, err := f.Append(f.ctx, []store.NewEvent{e})
	if err != nil {
		f.Fatal(err)
	}
	return deliveries[0]
}

// first expects First to find this delivery, or none.
func (f *fixture) first(sub delivery.Subscription, order uint64, want ...delivery.PendingDelivery) {
	f.Helper()
	d, ok, err := f.First(f.ctx, sub.Key, order)
	if err != nil {
		f.Fatalf("First: %v", err)
	}
	var got []delivery.PendingDelivery
	if ok {
		got = append(got, d)
	}
	f.same("first", bare(want...), bare(got...))
}

func testFirst(f *fixture) {
	sub, other := subscription(clinicA, "a"), subscription(clinicA, "b")
	sub.Ordered, other.Ordered = true, true
	const one, last = 1, 1<<64 - 1
	a, b, c, d := f.ordered(sub, one), f.ordered(sub, last), f.ordered(sub, one), f.ordered(sub, one)
	e := f.ordered(other, one)
	x, y := a.Order, b.Order // the store's own numbers: equal for equal ones
	if x == 0 || y == 0 || x == y || c.Order != x || d.Order != x || e.Order != x {
		f.Errorf("orders %d, %d, %d, %d, %d", x, y, c.Order, d.Order, e.Order)
	}
	f.same("pending", bare(a, b, c, d), bare(f.pending(sub)...))
	f.first(sub, x, a)
	f.first(sub, y, b)
	f.first(other, x, e)
	f.first(sub, 2)
	a = f.retry(a, time.Hour) // it is due last, and first nevertheless
	f.first(sub, x, a)
	f.reopen()
	f.first(sub, x, a)
	f.record(f.delivered(c))
	f.first(sub, x, a)
	f.record(f.failed(a))
	f.first(sub, x, d)
	f.record(f.cancelled(d), f.delivered(b))
	f.first(sub, x)
	f.first(sub, y)
	f.first(other, x, e)
	again, err := f.Replay(f.ctx, clinicA, a.ID)
	if err != nil || again.Order != 0 {
		f.Errorf("the replay has order %d, %v", again.Order, err)
	}
	f.first(sub, x)
}

func testFirstUnordered(f *fixture) {
	sub, ordered := subscription(clinicA, "a"), subscription(clinicA, "b")
	ordered.Ordered = true
	if d := f.ordered(sub, 7); d.Order != 0 {
		f.Errorf("order %d of a subscription that does not ask for it", d.Order)
	}
	if d := f.ordered(ordered, 0); d.Order != 0 {
		f.Errorf("order %d of an event without", d.Order)
	}
	f.first(sub, 7)
	f.first(ordered, 0)
}

func testOldestPending(f *fixture) {
	sub := subscription(clinicA, "a")
	check := func(want time.Time) {
		f.Helper()
		got, err := f.OldestPending(f.ctx, sub.Key)
		if err != nil || !got.Equal(want) {
			f.Errorf("OldestPending gave %v, %v; want %v", got, err, want)
		}
	}
	check(time.Time{})
	a, b, c := f.one(sub), f.one(sub), f.one(sub)
	check(a.Since)
	f.record(f.delivered(a))
	check(b.Since)
	b = f.retry(b, time.Hour)
	check(b.Since)
	f.record(f.delivered(b))
	check(c.Since)
	c = f.retry(c, time.Hour)
	f.one(sub)
	check(c.Since)
	f.record(f.delivered(c), f.delivered(f.pending(sub)[0]))
	check(time.Time{})
}

func testRetrying(f *fixture) {
	sub := subscription(clinicA, "a")
	check := func(limit int, want ...delivery.PendingDelivery) {
		f.Helper()
		var expected []store.RetryingDelivery
		for _, d := range want {
			expected = append(expected, store.RetryingDelivery{ID: d.ID, Type: "patient.created", Attempts: d.Attempts, LastStatusCode: 503, Due: d.Due})
		}
		got, err := f.Retrying(f.ctx, sub.Key, limit)
		if err != nil {
			f.Fatal(err)
		}
		f.same("retrying", expected, got)
	}
	check(9)
	a, b, c, d := f.one(sub), f.one(sub), f.one(sub), f.one(sub)
	f.one(sub)
	check(9)
	a, b, c = f.retry(a, time.Hour), f.retry(b, time.Minute), f.retry(c, 2*time.Minute)
	c = f.retry(c, 2*time.Minute)
	check(9, b, c, a)
	check(2, b, c)
	check(1, b)
	check(0)
	f.record(f.delivered(b), f.delivered(d))
	check(9, c, a)
	f.reopen()
	check(9, c, a)
}

func testEventOfNone(f *fixture) {
	if e, err := f.Event(f.ctx, event.NewKey(start, clinicA, "nothing")); err == nil {
		f.Errorf("Event gave %v for an event that was never stored", e)
	}
}

func testEventStored(f *fixture) {
	sub := subscription(clinicA, "a")
	e := newEvent(clinicA, "evt-1", "x", sub)
	e.Event.Traceparent = ""
	e.Event.Body = []byte("{\"data\":\"\\u0000\xff\"}") // bytes are bytes
	if _, _, err := f.Append(f.ctx, []store.NewEvent{e}); err != nil {
		f.Fatal(err)
	}
	f.reopen()
	got, err := f.Event(f.ctx, e.Event.Key)
	if err != nil {
		f.Fatal(err)
	}
	f.same("event", e.Event, got)
}

// testParallelDue reads while others write: each reader sees what was there all along.
func testParallelDue(f *fixture) {
	sub := subscription(clinicA, "a")
	stays := f.retry(f.one(sub), 1000*time.Hour)
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	parallel(4, func(i int) {
		if i > 0 {
			for ctx.Err() == nil {
				found, _, _, err := f.Due(f.ctx, sub.Key, delivery.Position{}, farFuture, 1<<20, nil)
				if err != nil || len(found) == 0 || found[len(found)-1].ID != stays.ID {
					f.Errorf("%d found, err=%v", len(found), err)
					return
				}
			}
			return
		}
		defer cancel()
		for n := range 100 {
			_, deliveries, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, fmt.Sprintf("load-%d", n), "x", sub)})
			if err == nil {
				err = f.Record(f.ctx, []delivery.Outcome{f.delivered(deliveries[0])})
			}
			if err != nil {
				f.Error(err)
				return
			}
		}
	})
}
