package storetest

import (
	"fmt"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var settleTests = map[string]func(*fixture){
	"Delivered":      testSettled,
	"Postponed":      testSettledLater,
	"NotPending":     testSettledNotPending,
	"WithoutLease":   testSettledWithoutLease,
	"SurvivesACrash": testSettledCrash,
	"Planned":        testSettledPlanned,
	"Ordered":        testSettledOrdered,
	"StillPending":   testStillPending,
	"EmptyCall":      func(f *fixture) { f.settle(nil) },
}

// settle settles outcomes, and compares which took effect.
func (f *fixture) settle(want []bool, outcomes ...delivery.Outcome) {
	f.Helper()
	got, err := f.Settle(f.ctx, outcomes)
	if err != nil {
		f.Fatalf("Settle: %v", err)
	}
	f.same("settled", want, got)
}

// pulled is the outcome of a delivery that a consumer pulled and acknowledged: its attempt has no status code and no reason.
func (f *fixture) pulled(d delivery.PendingDelivery) delivery.Outcome {
	return delivery.Outcome{Delivery: d, State: delivery.Delivered, Attempt: &delivery.Attempt{
		Number: d.Attempts + 1, Started: f.clock.Now(), Duration: time.Second,
	}}
}

func testSettled(f *fixture) {
	sub := subscription(clinicA, "a")
	first, second, third := f.one(sub), f.one(sub), f.one(sub)
	o := f.pulled(first)
	f.settle([]bool{true, true}, o, f.pulled(second))
	f.same("pending", bare(third), bare(f.pending(sub)...))
	if r := f.get(first.ID, clinicA); r.State != delivery.Delivered || r.AttemptCount != 1 || !r.Attempts[0].Pulled() {
		f.Errorf("record %+v", r)
	}
	f.same("counts", delivery.Counts{Delivered: 2, LastDelivered: o.Attempt.Started.Add(o.Attempt.Duration)}, f.counts(sub))
}

// testSettledLater: what cannot be pulled now is put off, or fails, with an attempt that says why.
func testSettledLater(f *fixture) {
	sub := subscription(clinicA, "a")
	later, never := f.one(sub), f.one(sub)
	due := f.clock.Now().Add(time.Minute)
	f.settle([]bool{true, true},
		delivery.Outcome{Delivery: later, Attempt: f.attempt(later, 0), State: delivery.Pending, Due: due},
		delivery.Outcome{Delivery: never, Attempt: f.attempt(never, 0), State: delivery.Failed})
	later.Due, later.Attempts = due, 1
	f.same("pending", bare(later), bare(f.pending(sub)...))
	if c := f.counts(sub); c.Retrying != 1 || c.Failed != 1 || c.FailuresInARow != 2 {
		f.Errorf("counts %+v", c)
	}
}

// testStillPending: what was cancelled, settled or made due at another time is not pending any more where it was.
func testStillPending(f *fixture) {
	sub := subscription(clinicA, "a")
	stays, ends, cancelled, later, foreign := f.one(sub), f.one(sub), f.one(sub), f.one(sub), f.one(subscription(clinicA, "b"))
	at := []delivery.Position{foreign.Position(), later.Position(), stays.Position(), cancelled.Position(), ends.Position(), stays.Position(), {}}
	still := func(want ...bool) {
		f.Helper()
		got, err := f.StillPending(f.ctx, sub.Key, at)
		if err != nil {
			f.Fatalf("StillPending: %v", err)
		}
		f.same("still pending", want, got)
	}
	still(false, true, true, true, true, true, false)
	f.settle([]bool{true, true}, f.pulled(ends),
		delivery.Outcome{Delivery: later, Attempt: f.attempt(later, 0), State: delivery.Pending, Due: f.clock.Now().Add(time.Minute)})
	if err := f.Cancel(f.ctx, clinicA, cancelled.ID); err != nil {
		f.Fatal(err)
	}
	still(false, false, true, false, false, true, false)
	at = nil
	still([]bool{}...)
}

// testSettledNotPending: an outcome has no effect on what ended, or is due at another time by now, and says so.
func testSettledNotPending(f *fixture) {
	sub := subscription(clinicA, "a")
	for name, end := range map[string]func(delivery.PendingDelivery){
		"settled":   func(d delivery.PendingDelivery) { f.settle([]bool{true}, f.pulled(d)) },
		"failed":    func(d delivery.PendingDelivery) { f.record(f.failed(d)) },
		"cancelled": func(d delivery.PendingDelivery) { f.cancel(d.ID, clinicA, nil) },
		"put off":   func(d delivery.PendingDelivery) { f.retry(d, time.Minute) },
		"replayed": func(d delivery.PendingDelivery) {
			f.record(f.failed(d))
			f.clock.Advance(time.Second)
			if _, err := f.Replay(f.ctx, clinicA, d.ID); err != nil {
				f.Fatal(err)
			}
		},
	} {
		d, other := f.one(sub), f.one(sub)
		end(d)
		before := f.get(d.ID, clinicA)
		f.settle([]bool{false, true}, f.pulled(d), f.pulled(other))
		f.same(name+" record", before, f.get(d.ID, clinicA))
	}
}

// testSettledWithoutLease: whoever answers a consumer may settle, also a process that has no lease.
func testSettledWithoutLease(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	f.disown()
	defer func() { f.owner, f.disown = own(f, f.Store) }()
	f.settle([]bool{true}, f.pulled(d))
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
}

// testSettledCrash: what was settled stays so.
func testSettledCrash(f *fixture) {
	sub := subscription(clinicA, "a")
	var outcomes []delivery.Outcome
	var want []bool
	for range 20 {
		outcomes, want = append(outcomes, f.pulled(f.one(sub))), append(want, true)
	}
	left := f.one(sub)
	f.settle(want, outcomes...)
	f.crash()
	f.same("pending after a crash", bare(left), bare(f.pending(sub)...))
	if c := f.counts(sub); c.Delivered != 20 {
		f.Errorf("counts %+v", c)
	}
}

// testSettledPlanned: a planned delivery is settled without having been started, and its key is free after.
func testSettledPlanned(f *fixture) {
	sub := subscription(clinicA, "a")
	key := keyOf(f, "k")
	d := f.planned(sub, key, 1, f.clock.Now().Add(time.Minute))
	f.clock.Advance(2 * time.Minute)
	f.settle([]bool{true}, f.pulled(d))
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
	if n, _, err := f.Scheduled(f.ctx, sub.Key); err != nil || n != 0 {
		f.Errorf("%d are scheduled, %v", n, err)
	}
	f.reopen()
	f.stands(d.ID, clinicA, delivery.Delivered, "")
}

func testSettledOrdered(f *fixture) {
	sub := subscription(clinicA, "a")
	sub.Ordered = true
	var all []delivery.PendingDelivery
	for i := range 3 {
		e := newEvent(clinicA, fmt.Sprint("evt-ordered-", i), "x", sub)
		e.Order = 7
		f.clock.Advance(time.Millisecond)
		_, deliveries, err := f.Append(f.ctx, []store.NewEvent{e})
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, deliveries...)
	}
	f.settle([]bool{true}, f.pulled(all[0]))
	first, ok, err := f.First(f.ctx, sub.Key, all[1].Order)
	if err != nil || !ok || first.ID != all[1].ID {
		f.Errorf("the first is %v, %t, %v", first.ID, ok, err)
	}
}
