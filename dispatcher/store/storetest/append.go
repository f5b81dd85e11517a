package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var appendTests = map[string]func(*fixture){
	"EventAndDeliveries":     testAppend,
	"OrderOfDeliveries":      testAppendOrder,
	"NothingMatches":         testAppendNoMatch,
	"Empty":                  testAppendEmpty,
	"Repetition":             testRepetition,
	"RepetitionAcrossReopen": testRepetitionReopened,
	"RepetitionInOneCall":    testRepetitionInCall,
	"RepetitionOfFresh":      testRepetitionOfFresh,
	"Window":                 testWindow,
	"Conflict":               testConflict,
	"ConflictInOneCall":      testConflictInCall,
	"NamespacesApart":        testNamespacesApart,
	"ParallelSameID":         testParallelSameID,
	"ParallelCrossing":       testParallelCrossing,
	"ParallelDistinct":       testParallelDistinct,
	"AcceptancesRise":        testAcceptancesRise,
	"ClockSetBack":           testClockSetBack,
	"ContextEnded":           testAppendContext,
	"ManyDeliveries":         testAppendManyDeliveries,
	"Full":                   testFull,
}

func testAppend(f *fixture) {
	a, b := subscription(clinicA, "billing"), subscription(clinicA, "sms")
	e := newEvent(clinicA, "evt-1", "x", a, b)
	answers, deliveries, err := f.Append(f.ctx, []store.NewEvent{e})
	if err != nil {
		f.Fatal(err)
	}
	f.same("answers", []store.Accepted{{ID: "evt-1", Deliveries: 2}}, answers)
	if !e.Event.Key.Accepted().Equal(start) {
		f.Errorf("accepted at %s, want %s", e.Event.Key.Accepted(), start)
	}
	var want []delivery.PendingDelivery
	for _, sub := range []delivery.Subscription{a, b} {
		id := event.DeliveryID{Event: e.Event.Key, Subscription: sub.Key}
		want = append(want, delivery.PendingDelivery{ID: id, Due: start, Since: start, Size: len(e.Event.Body), Event: e.Event})
	}
	f.same("deliveries", want, deliveries)
	for i, sub := range []delivery.Subscription{a, b} {
		f.same("pending", bare(want[i]), bare(f.pending(sub)...))
	}
	stored, err := f.Event(f.ctx, e.Event.Key)
	if err != nil {
		f.Fatal(err)
	}
	f.same("event", e.Event, stored)
}

func testAppendOrder(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicA, "b")
	events := []store.NewEvent{newEvent(clinicA, "1", "1", b, a), newEvent(clinicA, "2", "2"), newEvent(clinicA, "3", "3", a)}
	answers, deliveries, err := f.Append(f.ctx, events)
	if err != nil {
		f.Fatal(err)
	}
	f.same("answers", []store.Accepted{{ID: "1", Deliveries: 2}, {ID: "2"}, {ID: "3", Deliveries: 1}}, answers)
	var got []event.DeliveryID
	for _, d := range deliveries {
		got = append(got, d.ID)
	}
	f.same("deliveries", []event.DeliveryID{
		{Event: events[0].Event.Key, Subscription: b.Key}, {Event: events[0].Event.Key, Subscription: a.Key},
		{Event: events[2].Event.Key, Subscription: a.Key},
	}, got)
}

func testAppendNoMatch(f *fixture) {
	f.publish(clinicA, "evt-1")
	answers, deliveries, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, "evt-1", "evt-1", subscription(clinicA, "late"))})
	if err != nil {
		f.Fatal(err)
	}
	f.same("answers to the repetition, which matches now", []store.Accepted{{ID: "evt-1", Repeated: true}}, answers)
	f.same("deliveries", []delivery.PendingDelivery(nil), deliveries)
	f.same("list", []store.Record(nil), f.list(store.Query{Tenant: clinicA}))
}

func testAppendEmpty(f *fixture) {
	answers, deliveries, err := f.Append(f.ctx, nil)
	if err != nil || len(answers) != 0 || len(deliveries) != 0 {
		f.Errorf("Append of nothing gave %v, %v, %v", answers, deliveries, err)
	}
}

// repeat appends what publish did, and expects the first answer.
func (f *fixture) repeat(namespace, id string, subs ...delivery.Subscription) {
	f.Helper()
	answers, deliveries, err := f.Append(f.ctx, []store.NewEvent{newEvent(namespace, id, id, subs...)})
	if err != nil {
		f.Fatal(err)
	}
	f.same("answers", []store.Accepted{{ID: id, Deliveries: len(subs), Repeated: true}}, answers)
	f.same("deliveries", []delivery.PendingDelivery(nil), deliveries)
}

func testRepetition(f *fixture) {
	sub := subscription(clinicA, "a")
	f.publish(clinicA, "evt-1", sub)
	f.clock.Advance(time.Hour)
	f.repeat(clinicA, "evt-1", sub)
	if got := len(f.pending(sub)); got != 1 {
		f.Errorf("%d deliveries are pending, want 1", got)
	}
}

func testRepetitionReopened(f *fixture) {
	sub := subscription(clinicA, "a")
	f.publish(clinicA, "evt-1", sub)
	f.reopen()
	f.repeat(clinicA, "evt-1", sub)
}

func testRepetitionInCall(f *fixture) {
	sub := subscription(clinicA, "a")
	f.publish(clinicA, "old", sub, subscription(clinicA, "b"))
	answers, deliveries, err := f.Append(f.ctx, []store.NewEvent{
		newEvent(clinicA, "new", "new", sub), newEvent(clinicA, "old", "old", sub), newEvent(clinicA, "new", "new", sub),
		newEvent(clinicA, "old", "old", sub),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.same("answers", []store.Accepted{
		{ID: "new", Deliveries: 1}, {ID: "old", Deliveries: 2, Repeated: true}, {ID: "new", Deliveries: 1, Repeated: true},
		{ID: "old", Deliveries: 2, Repeated: true},
	}, answers)
	if len(deliveries) != 1 || len(f.pending(sub)) != 2 {
		f.Errorf("%d deliveries came of it and %d are pending, want 1 and 2", len(deliveries), len(f.pending(sub)))
	}
}

// testRepetitionOfFresh appends events whose ids need not be looked for, among others; later ones meet them.
func testRepetitionOfFresh(f *fixture) {
	sub := subscription(clinicA, "a")
	f.publish(clinicA, "old", sub)
	fresh, alone := newEvent(clinicA, "fresh", "fresh", sub), newEvent(clinicA, "alone", "alone", sub)
	fresh.Fresh, alone.Fresh = true, true
	answers, _, err := f.Append(f.ctx, []store.NewEvent{fresh, newEvent(clinicA, "old", "old", sub)})
	if err != nil {
		f.Fatal(err)
	}
	f.same("answers", []store.Accepted{{ID: "fresh", Deliveries: 1}, {ID: "old", Deliveries: 1, Repeated: true}}, answers)
	if _, _, err := f.Append(f.ctx, []store.NewEvent{alone}); err != nil {
		f.Fatal(err)
	}
	f.repeat(clinicA, "fresh", sub)
	f.repeat(clinicA, "alone", sub)
	if _, _, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, "alone", "other", sub)}); !errors.Is(err, store.ErrConflict) {
		f.Errorf("other content with an id that was fresh: %v, want a conflict", err)
	}
	if got := len(f.pending(sub)); got != 3 {
		f.Errorf("%d are pending, want 3", got)
	}
}

// testWindow walks around the clock, so that the window crosses whatever the implementation files ids by.
func testWindow(f *fixture) {
	sub := subscription(clinicA, "a")
	for i := range 26 {
		id := fmt.Sprintf("evt-%d", i)
		f.publish(clinicA, id, sub)
		f.clock.Advance(24*time.Hour - 1)
		f.repeat(clinicA, id, sub)
		f.expire()
		f.repeat(clinicA, id, sub)
		f.clock.Advance(1)
		f.publish(clinicA, id, sub) // forgotten, to the nanosecond
		f.clock.Advance(time.Hour)
		f.repeat(clinicA, id, sub)
	}
}

// conflict expects the call to be refused because of one event, and nothing of it to be stored.
func (f *fixture) conflict(index int, events ...store.NewEvent) {
	f.Helper()
	_, deliveries, err := f.Append(f.ctx, events)
	var conflict *store.ConflictError
	if !errors.Is(err, store.ErrConflict) || !errors.As(err, &conflict) || deliveries != nil {
		f.Fatalf("Append gave %d deliveries and %v, want a conflict", len(deliveries), err)
	}
	f.same("conflict", store.ConflictError{Index: index, ID: events[index].Event.ID}, *conflict)
}

func testConflict(f *fixture) {
	sub := subscription(clinicA, "a")
	f.publish(clinicA, "evt-1", sub)
	f.conflict(1, newEvent(clinicA, "evt-2", "fine", sub), newEvent(clinicA, "evt-1", "other", sub), newEvent(clinicA, "evt-3", "fine", sub))
	if got := len(f.pending(sub)); got != 1 {
		f.Errorf("%d deliveries are pending, want the first call's", got)
	}
	f.publish(clinicA, "evt-2", sub) // not remembered
	f.repeat(clinicA, "evt-1", sub)
	f.clock.Advance(24 * time.Hour)
	if _, _, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, "evt-1", "other", sub)}); err != nil {
		f.Errorf("a day later: %v", err)
	}
}

func testConflictInCall(f *fixture) {
	sub := subscription(clinicA, "a")
	f.conflict(2, newEvent(clinicA, "evt-1", "x", sub), newEvent(clinicA, "evt-2", "x", sub), newEvent(clinicA, "evt-1", "y", sub))
	if got := len(f.pending(sub)); got != 0 {
		f.Errorf("%d deliveries are pending, want none", got)
	}
	f.publish(clinicA, "evt-1", sub)
}

func testNamespacesApart(f *fixture) {
	a, b := subscription(clinicA, "same"), subscription(clinicB, "same")
	f.publish(clinicA, "evt-1", a)
	answers, _, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicB, "evt-1", "other", b)})
	if err != nil {
		f.Fatalf("the same id in another namespace: %v", err)
	}
	f.same("answers", []store.Accepted{{ID: "evt-1", Deliveries: 1}}, answers)
}

// parallel runs n functions at once.
func parallel(n int, run func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			run(i)
		})
	}
	close(start)
	wg.Wait()
}

func testParallelSameID(f *fixture) {
	sub := subscription(clinicA, "a")
	for round := range 50 {
		id := fmt.Sprintf("evt-%d", round)
		answers := make([]store.Accepted, 8)
		parallel(len(answers), func(i int) {
			got, _, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, id, "x", sub)})
			if err != nil {
				f.Error(err)
				return
			}
			answers[i] = got[0]
		})
		first := 0
		for _, a := range answers {
			if a.ID != id || a.Deliveries != 1 {
				f.Errorf("answer %+v", a)
			}
			if !a.Repeated {
				first++
			}
		}
		if first != 1 || len(f.pending(sub)) != round+1 {
			f.Fatalf("%d calls were the first, %d deliveries are pending, want 1 and %d", first, len(f.pending(sub)), round+1)
		}
	}
}

// testParallelCrossing appends pairs in both orders: neither may wait for the other for ever.
func testParallelCrossing(f *fixture) {
	sub := subscription(clinicA, "a")
	const rounds = 20
	for round := range rounds {
		x, y := fmt.Sprintf("x-%d", round), fmt.Sprintf("y-%d", round)
		parallel(8, func(i int) {
			events := []store.NewEvent{newEvent(clinicA, x, "x", sub), newEvent(clinicA, y, "y", sub)}
			if i%2 == 1 {
				slices.Reverse(events)
			}
			if _, _, err := f.Append(f.ctx, events); err != nil {
				f.Error(err)
			}
		})
	}
	if got := len(f.pending(sub)); got != 2*rounds {
		f.Errorf("%d deliveries are pending, want %d", got, 2*rounds)
	}
}

func testParallelDistinct(f *fixture) {
	subs := []delivery.Subscription{subscription(clinicA, "a"), subscription(clinicA, "b")}
	const writers, each = 16, 20
	parallel(writers, func(w int) {
		for i := range each {
			if _, _, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, fmt.Sprintf("evt-%d-%d", w, i), "x", subs...)}); err != nil {
				f.Error(err)
			}
		}
	})
	f.reopen()
	for _, sub := range subs {
		if got := len(f.pending(sub)); got != writers*each {
			f.Errorf("%d deliveries are pending, want %d", got, writers*each)
		}
	}
}

// testAcceptancesRise stops the clock: each event is accepted at its own nanosecond nevertheless, across a restart, too.
func testAcceptancesRise(f *fixture) {
	sub := subscription(clinicA, "a")
	last := event.Key{}
	for i := range 30 {
		if i%10 == 9 {
			f.reopen()
		}
		d := f.publish(clinicA, fmt.Sprintf("evt-%d", i), sub)[0]
		if slices.Compare(d.ID.Event[:8], last[:8]) <= 0 {
			f.Fatalf("accepted at %s after %s", d.ID.Event.Accepted(), last.Accepted())
		}
		last = d.ID.Event
	}
}

// testClockSetBack: acceptances go on from the newest, but what is due is due by the clock.
func testClockSetBack(f *fixture) {
	sub := subscription(clinicA, "a")
	before := f.publish(clinicA, "evt-1", sub)[0]
	f.clock.Advance(-time.Hour)
	after := f.publish(clinicA, "evt-2", sub)[0]
	if !after.ID.Event.Accepted().After(before.ID.Event.Accepted()) {
		f.Errorf("accepted at %s after %s", after.ID.Event.Accepted(), before.ID.Event.Accepted())
	}
	if after.Due.After(f.Now()) {
		f.Errorf("due at %s, although it is %s", after.Due, f.Now())
	}
	f.same("pending", bare(after, before), bare(f.pending(sub)...))
	f.reopen()
	again := f.publish(clinicA, "evt-3", sub)[0]
	if again.Due.After(f.Now()) {
		f.Errorf("after a restart, due at %s, although it is %s", again.Due, f.Now())
	}
	f.record(f.delivered(after), f.delivered(again), f.delivered(before))
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
	if got := len(f.list(store.Query{Tenant: clinicA})); got != 3 {
		f.Errorf("%d deliveries are listed, want 3", got)
	}
}

func testAppendContext(f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	if _, _, err := f.Append(ctx, []store.NewEvent{newEvent(clinicA, "evt-1", "evt-1")}); !errors.Is(err, context.Canceled) {
		f.Errorf("Append gave %v, want the context's error", err)
	}
}

func testFull(f *fixture) {
	if f.place.Fill == nil {
		f.Skip("the implementation cannot simulate a full volume")
	}
	sub := subscription(clinicA, "a")
	lost, late := f.one(sub), f.one(sub)
	f.record(f.failed(lost))
	f.place.Fill(f.Store, true)
	_, _, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, "evt", "x", sub)})
	_, replayed := f.Replay(f.ctx, clinicA, lost.ID)
	for what, err := range map[string]error{"Append": err, "Replay": replayed, "Ready": f.Ready()} {
		if !errors.Is(err, store.ErrFull) {
			f.Errorf("%s of a full store gave %v", what, err)
		}
	}
	f.record(f.delivered(late)) // what is under way can be finished
	f.place.Fill(f.Store, false)
	if err := f.Ready(); err != nil {
		f.Errorf("Ready once there is space: %v", err)
	}
	f.publish(clinicA, "evt", sub)
}
