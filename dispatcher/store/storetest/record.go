package storetest

import (
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var recordTests = map[string]func(*fixture){
	"Delivered":         testDelivered,
	"Retried":           testRetried,
	"GivenUp":           testGivenUp,
	"Cancelled":         testCancelled,
	"FinishedStays":     testFinishedStays,
	"TwiceInOneCall":    testTwiceInCall,
	"UnknownIsDropped":  testUnknownDropped,
	"SameDueAgain":      testSameDueAgain,
	"StaleDue":          testStaleDue,
	"NewestAttempts":    testNewestAttempts,
	"CountsOverALife":   testCounts,
	"CountsGone":        testCountsGone,
	"CountsOfNone":      testCountsNone,
	"ParallelAndExact":  testParallelRecord,
	"PostponedUnmade":   testPostponed,
	"EmptyCall":         func(f *fixture) { f.record() },
	"ManySubscriptions": testManySubscriptions,
}

func testDelivered(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	o := f.delivered(d)
	f.record(o)
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
	f.same("record", store.Record{
		ID: d.ID, EventID: "evt-1", Type: "patient.created", Tenant: clinicA, Subscription: "a", State: delivery.Delivered,
		Created: d.Since, AttemptCount: 1, Attempts: []delivery.Attempt{*o.Attempt},
	}, f.get(d.ID, clinicA))
	f.same("counts", delivery.Counts{Delivered: 1, LastDelivered: o.Attempt.Started.Add(o.Attempt.Duration)}, f.counts(sub))
}

func testRetried(f *fixture) {
	sub := subscription(clinicA, "a")
	first := f.one(sub)
	f.clock.Advance(time.Second)
	second := f.retry(first, 30*time.Second)
	f.same("pending", bare(second), bare(f.pending(sub)...))
	f.clock.Advance(30 * time.Second)
	third := f.retry(second, 2*time.Minute)
	f.reopen()
	f.same("pending after a restart", bare(third), bare(f.pending(sub)...))
	r := f.get(first.ID, clinicA)
	if r.State != delivery.Pending || r.AttemptCount != 2 || !r.Due.Equal(third.Due) || len(r.Attempts) != 2 ||
		r.Attempts[0].Number != 1 || r.Attempts[1].Number != 2 || r.Attempts[1].StatusCode != 503 {
		f.Errorf("record %+v", r)
	}
	f.clock.Advance(2 * time.Minute)
	f.record(f.delivered(third))
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
	if r := f.get(first.ID, clinicA); r.State != delivery.Delivered || r.AttemptCount != 3 || len(r.Attempts) != 3 || !r.Due.IsZero() {
		f.Errorf("record %+v", r)
	}
}

func testGivenUp(f *fixture) {
	sub := subscription(clinicA, "a")
	tried, aged := f.one(sub), f.one(sub)
	tried = f.retry(tried, time.Minute)
	f.record(f.failed(tried), delivery.Outcome{Delivery: aged, State: delivery.Failed})
	if r := f.get(tried.ID, clinicA); r.State != delivery.Failed || r.AttemptCount != 2 || len(r.Attempts) != 2 {
		f.Errorf("record %+v", r)
	}
	if r := f.get(aged.ID, clinicA); r.State != delivery.Failed || r.AttemptCount != 0 || len(r.Attempts) != 0 {
		f.Errorf("record %+v", r)
	}
	if c := f.counts(sub); c.Failed != 2 || c.Retrying != 0 {
		f.Errorf("counts %+v", c)
	}
}

func testCancelled(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.retry(f.one(sub), time.Minute)
	f.record(f.cancelled(d))
	if r := f.get(d.ID, clinicA); r.State != delivery.Cancelled || r.AttemptCount != 1 || r.Subscription != "a" {
		f.Errorf("record %+v", r)
	}
	if c := f.counts(sub); c.Cancelled != 1 || c.Retrying != 0 || c.Failed != 0 {
		f.Errorf("counts %+v", c)
	}
}

// testFinishedStays: nothing but a replay makes a finished delivery pending, or finishes it again.
func testFinishedStays(f *fixture) {
	sub := subscription(clinicA, "a")
	for name, finish := range map[string]func(delivery.PendingDelivery) delivery.Outcome{
		"delivered": f.delivered, "failed": f.failed, "cancelled": f.cancelled,
	} {
		d := f.one(sub)
		f.record(finish(d))
		before, counts := f.get(d.ID, clinicA), f.counts(sub)
		f.record(f.delivered(d))
		f.retry(d, time.Minute)
		f.record(f.failed(d), f.cancelled(d))
		f.same(name+" record", before, f.get(d.ID, clinicA))
		f.same(name+" counts", counts, f.counts(sub))
		f.same(name+" pending", []delivery.PendingDelivery(nil), f.pending(sub))
	}
}

func testTwiceInCall(f *fixture) {
	sub := subscription(clinicA, "a")
	d, retried := f.one(sub), f.one(sub)
	due := f.clock.Now().Add(time.Minute)
	again := retried
	again.Due, again.Attempts = due, 1
	f.record(
		f.delivered(d), f.failed(d),
		delivery.Outcome{Delivery: retried, Attempt: f.attempt(retried, 500), State: delivery.Pending, Due: due}, f.delivered(again),
	)
	for _, id := range []delivery.PendingDelivery{d, retried} {
		if r := f.get(id.ID, clinicA); r.State != delivery.Delivered || r.AttemptCount != 1+again.Attempts*btoi(id.ID == retried.ID) {
			f.Errorf("record %+v", r)
		}
	}
	if c := f.counts(sub); c.Delivered != 2 || c.Failed != 0 || c.Retrying != 0 {
		f.Errorf("counts %+v", c)
	}
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func testUnknownDropped(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	stranger := d
	stranger.ID.Event[15]++
	f.record(f.delivered(stranger), f.delivered(d))
	if c := f.counts(sub); c.Delivered != 1 {
		f.Errorf("counts %+v", c)
	}
}

// testSameDueAgain: the limit of a delivery's age may give it the same due time twice.
func testSameDueAgain(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.retry(f.one(sub), time.Minute)
	again := f.retry(d, time.Minute)
	if !again.Due.Equal(d.Due) {
		f.Fatalf("due at %s, then %s", d.Due, again.Due)
	}
	f.same("pending", bare(again), bare(f.pending(sub)...))
	f.reopen()
	f.same("pending after a restart", bare(again), bare(f.pending(sub)...))
	f.record(f.delivered(again))
	f.reopen()
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
}

// testStaleDue: an outcome counts even if the delivery was put elsewhere since it was taken up.
func testStaleDue(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	f.retry(d, time.Minute)
	f.record(f.delivered(d))
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
	if r := f.get(d.ID, clinicA); r.State != delivery.Delivered || r.AttemptCount != 2 {
		f.Errorf("record %+v", r)
	}
	if c := f.counts(sub); c.Delivered != 1 || c.Retrying != 0 {
		f.Errorf("counts %+v", c)
	}
}

func testNewestAttempts(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	const made = store.MaxAttempts + 7
	for range made {
		f.clock.Advance(time.Minute)
		d = f.retry(d, time.Minute)
	}
	check := func(attempts int) {
		f.Helper()
		r := f.get(d.ID, clinicA)
		if r.AttemptCount != attempts || len(r.Attempts) != store.MaxAttempts {
			f.Fatalf("%d attempts, %d of them in full; want %d, %d", r.AttemptCount, len(r.Attempts), attempts, store.MaxAttempts)
		}
		for i, a := range r.Attempts {
			if a.Number != attempts-store.MaxAttempts+1+i {
				f.Fatalf("attempt %d at place %d of %d", a.Number, i, attempts)
			}
		}
	}
	check(made)
	f.record(f.failed(d))
	check(made + 1)
}

func testCounts(f *fixture) {
	sub := subscription(clinicA, "a")
	a, b, c := f.one(sub), f.one(sub), f.one(sub)
	a = f.retry(a, time.Minute)
	f.clock.Advance(time.Second)
	b = f.retry(b, time.Minute)
	failure := *f.attempt(delivery.PendingDelivery{}, 503)
	f.same("counts", delivery.Counts{Retrying: 2, FailuresInARow: 2, LastFailure: failure}, f.counts(sub))
	f.clock.Advance(time.Second)
	f.record(f.delivered(c))
	at := f.clock.Now().Add(20 * time.Millisecond)
	f.same("counts", delivery.Counts{Delivered: 1, Retrying: 2, LastDelivered: at, LastFailure: failure}, f.counts(sub))
	f.clock.Advance(time.Second)
	last := f.failed(a)
	f.record(last, f.cancelled(b))
	f.reopen()
	f.same("counts after a restart", delivery.Counts{
		Delivered: 1, Failed: 1, Cancelled: 1, FailuresInARow: 1, LastDelivered: at, LastFailure: *last.Attempt,
	}, f.counts(sub))
}

func testCountsGone(f *fixture) {
	sub := subscription(clinicA, "a")
	d, next := f.one(sub), f.one(sub)
	gone := delivery.Outcome{Delivery: d, Attempt: f.attempt(d, 410), State: delivery.Pending, Due: f.clock.Now(), Gone: 7}
	f.record(gone)
	f.reopen()
	if c := f.counts(sub); c.Gone != 7 || c.Retrying != 1 {
		f.Errorf("counts %+v", c)
	}
	f.record(f.delivered(next))
	if c := f.counts(sub); c.Gone != 0 || c.Retrying != 1 {
		f.Errorf("counts %+v", c)
	}
}

func testCountsNone(f *fixture) {
	f.same("counts", delivery.Counts{}, f.counts(subscription(clinicA, "nobody")))
}

// testParallelRecord has every outcome recorded twice, by many at once.
func testParallelRecord(f *fixture) {
	subs := []delivery.Subscription{subscription(clinicA, "a"), subscription(clinicA, "b"), subscription(clinicB, "c")}
	var all []delivery.PendingDelivery
	for range 100 {
		for _, sub := range subs {
			all = append(all, f.one(sub))
		}
	}
	const workers = 8
	parallel(workers, func(w int) {
		for i, d := range all {
			if i%(workers/2) != w%(workers/2) {
				continue
			}
			if err := f.Record(f.ctx, []delivery.Outcome{f.delivered(d)}); err != nil {
				f.Error(err)
			}
			if _, _, _, err := f.Due(f.ctx, d.ID.Subscription, delivery.Position{}, farFuture, 10, nil); err != nil {
				f.Error(err)
			}
		}
	})
	for _, sub := range subs {
		if c := f.counts(sub); c.Delivered != 100 {
			f.Errorf("counts %+v", c)
		}
		f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
	}
}

// testPostponed: a delivery can be put off without an attempt.
func testPostponed(f *fixture) {
	sub := subscription(clinicA, "a")
	d := f.one(sub)
	due := f.clock.Now().Add(time.Hour)
	f.record(delivery.Outcome{Delivery: d, State: delivery.Pending, Due: due})
	d.Due = due
	f.same("pending", bare(d), bare(f.pending(sub)...))
	f.same("counts", delivery.Counts{}, f.counts(sub))
	f.record(f.delivered(d))
	f.same("pending", []delivery.PendingDelivery(nil), f.pending(sub))
}

func testManySubscriptions(f *fixture) {
	var outcomes []delivery.Outcome
	subs := map[string]delivery.Subscription{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		subs[name] = subscription(clinicA, name)
		d := f.one(subs[name])
		outcomes = append(outcomes, f.delivered(d))
	}
	f.record(outcomes...)
	for name, sub := range subs {
		if c := f.counts(sub); c.Delivered != 1 {
			f.Errorf("counts of %s: %+v", name, c)
		}
	}
}
