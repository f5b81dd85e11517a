package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var lifecycleTests = map[string]func(*fixture){
	"Ready":            testReady,
	"Closed":           testClosed,
	"CloseTwice":       testCloseTwice,
	"CloseUnderLoad":   testCloseUnderLoad,
	"SurvivesReopen":   testSurvivesReopen,
	"AppendIsDurable":  testAppendDurable,
	"CrashForgetsNone": testCrashOutcomes,
	"LockedWhileOpen":  testLocked,
}

func testReady(f *fixture) {
	if err := f.Ready(); err != nil {
		f.Errorf("Ready: %v", err)
	}
}

func testClosed(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	f.close()
	_, _, appended := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, "late", "late", sub)})
	_, get := f.Get(f.ctx, clinicA, d.ID)
	_, list := f.List(f.ctx, store.Query{Tenant: clinicA, Limit: 1})
	_, replay := f.Replay(f.ctx, clinicA, d.ID)
	_, _, _, due := f.Due(f.ctx, sub.Key, delivery.Position{}, farFuture, 1, nil)
	_, stored := f.Event(f.ctx, d.ID.Event)
	for what, err := range map[string]error{
		"Append": appended, "Get": get, "List": list, "Replay": replay, "Due": due, "Event": stored, "Ready": f.Ready(),
		"Record":   f.Record(f.ctx, []delivery.Outcome{f.delivered(d)}),
		"Backlogs": f.Backlogs(f.ctx, func(delivery.Backlog) error { return nil }),
	} {
		if !errors.Is(err, store.ErrClosed) {
			f.Errorf("%s of a closed store gave %v", what, err)
		}
	}
	f.open()
	f.same("pending", bare(d), bare(f.pending(sub)...))
}

func testCloseTwice(f *fixture) {
	f.close()
	f.close()
	f.open()
}

// testCloseUnderLoad closes while calls are under way: each either happened or did not.
func testCloseUnderLoad(f *fixture) {
	sub := subscription(clinicA, "a")
	accepted := make([]int, 6)
	parallel(len(accepted)+1, func(i int) {
		if i == len(accepted) {
			f.close()
			return
		}
		for n := 0; ; n++ {
			_, deliveries, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, fmt.Sprintf("evt-%d-%d", i, n), "x", sub)})
			if err == nil {
				accepted[i]++
				err = f.Record(f.ctx, []delivery.Outcome{{Delivery: deliveries[0], State: delivery.Pending, Due: farFuture, Epoch: f.epoch(deliveries[0])}})
			}
			if errors.Is(err, store.ErrClosed) {
				return
			}
			if err != nil {
				f.Error(err)
				return
			}
		}
	})
	f.open()
	want := 0
	for _, n := range accepted {
		want += n
	}
	if got := len(f.pending(sub)); got != want {
		f.Errorf("%d deliveries are pending, %d were accepted", got, want)
	}
}

func testSurvivesReopen(f *fixture) {
	subs := []delivery.Subscription{subscription(clinicA, "a"), subscription(clinicA, "b"), subscription(clinicB, "c")}
	f.populate(40, subs...)
	type state struct {
		pending []delivery.PendingDelivery
		counts  delivery.Counts
		records []store.Record
	}
	look := func() (all []state) {
		for _, sub := range subs {
			s := state{pending: bare(f.pending(sub)...), counts: f.counts(sub), records: f.list(store.Query{Tenant: sub.Tenant, Subscription: sub.Name})}
			for i := range s.records {
				s.records[i] = f.get(s.records[i].ID, sub.Tenant)
			}
			all = append(all, s)
		}
		return all
	}
	before := look()
	f.reopen()
	after := look()
	for i := range before {
		f.same("pending", before[i].pending, after[i].pending)
		f.same("counts", before[i].counts, after[i].counts)
		f.same("records", before[i].records, after[i].records)
	}
}

func testAppendDurable(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicB, "b")
	first := f.publish(clinicA, "evt-1", a)
	second := f.publish(clinicB, "evt-2", b)
	f.publish(clinicA, "evt-3") // matches nothing
	f.crash()
	f.same("pending of a", bare(first...), bare(f.pending(a)...))
	f.same("pending of b", bare(second...), bare(f.pending(b)...))
	f.repeat(clinicA, "evt-1", a)
	f.repeat(clinicB, "evt-2", b)
	f.repeat(clinicA, "evt-3")
	if got := f.list(store.Query{Tenant: clinicA}); len(got) != 1 || got[0].Subscription != "a" {
		f.Errorf("listed %v", got)
	}
}

// testCrashOutcomes: an outcome that is lost leaves its delivery pending; one that is kept, finished. None is nowhere.
func testCrashOutcomes(f *fixture) {
	sub := subscription(clinicA, "a")
	var all []delivery.PendingDelivery
	for range 20 {
		d := f.one(sub)
		f.record(f.delivered(d))
		all = append(all, d)
	}
	f.crash()
	delivered := int64(0)
	for _, d := range all {
		if f.get(d.ID, clinicA).State == delivery.Delivered {
			delivered++
		}
	}
	if c := f.counts(sub); c.Delivered != delivered || len(f.pending(sub)) != len(all)-int(delivered) {
		f.Errorf("%d delivered, %d pending; counts %+v", delivered, len(f.pending(sub)), c)
	}
}

// testLocked: two stores never share a place.
func testLocked(f *fixture) {
	if f.place.Shared {
		f.Skip("stores share the place")
	}
	if s, err := f.place.Open(); err == nil {
		f.Error("the place could be opened twice", s.Close())
	}
	f.clock.Advance(time.Second)
	f.publish(clinicA, "evt-1", subscription(clinicA, "a"))
}
