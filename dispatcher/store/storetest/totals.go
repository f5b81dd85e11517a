package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var totalsTests = map[string]func(*fixture){
	"None":            testTotalsNone,
	"Pending":         testTotalsPending,
	"Retrying":        testTotalsRetrying,
	"Finished":        testTotalsFinished,
	"Replayed":        testTotalsReplayed,
	"Ordered":         testTotalsOrdered,
	"Everywhere":      testTotalsEverywhere,
	"OneMoment":       testTotalsOneMoment,
	"YieldFails":      testTotalsYieldFails,
	"Context":         testTotalsContext,
	"ContextEnds":     testTotalsContextEnds,
	"Closed":          testTotalsClosed,
	"ClosedMeanwhile": testTotalsClosedMeanwhile,
}

// total of a subscription.
type total struct{ Deliveries, Bytes int64 }

// totals of each subscription.
type totals map[event.SubscriptionKey]total

// of adds a delivery of the given size.
func (t totals) of(sub delivery.Subscription, sizes ...int) totals {
	for _, size := range sizes {
		t[sub.Key] = total{t[sub.Key].Deliveries + 1, t[sub.Key].Bytes + int64(size)}
	}
	return t
}

// totals are those of every subscription, each of which must come once.
func (f *fixture) totals() totals {
	f.Helper()
	all := totals{}
	err := f.Totals(f.ctx, func(sub event.SubscriptionKey, deliveries, bytes int64) error {
		if _, again := all[sub]; again {
			f.Errorf("subscription %x came twice", sub)
		}
		all[sub] = total{deliveries, bytes}
		return nil
	})
	if err != nil {
		f.Fatalf("Totals: %v", err)
	}
	return all
}

// sized publishes an event whose body has the given size, of at least 100 bytes.
func (f *fixture) sized(size int, subs ...delivery.Subscription) []delivery.PendingDelivery {
	f.Helper()
	return f.sizedOrder(size, 0, subs...)
}

// sizedOrder is sized for an event that is ordered by order.
func (f *fixture) sizedOrder(size int, order uint64, subs ...delivery.Subscription) []delivery.PendingDelivery {
	f.Helper()
	f.next++
	f.clock.Advance(time.Millisecond)
	e := newEvent(subs[0].Tenant, fmt.Sprintf("evt-%d", f.next), "x", subs...)
	e.Event.Body = []byte(`"` + strings.Repeat("x", size-2) + `"`)
	e.Order = order
	_, deliveries, err := f.Append(f.ctx, []store.NewEvent{e})
	if err != nil || len(deliveries) != len(subs) {
		f.Fatalf("Append gave %d deliveries, %v", len(deliveries), err)
	}
	return deliveries
}

func testTotalsNone(f *fixture) {
	f.same("totals of an empty store", totals{}, f.totals())
	f.publish(clinicA, "evt-unmatched")
	f.same("totals of an event without a delivery", totals{}, f.totals())
}

// testTotalsPending: a body counts for each subscription that is still to get it.
func testTotalsPending(f *fixture) {
	a, b, c := subscription(clinicA, "a"), subscription(clinicA, "b"), subscription(clinicB, "c")
	f.sized(100, a)
	f.sized(3000, a, b)
	f.sized(70_000, c)
	f.repeatTotals(totals{}.of(a, 100, 3000).of(b, 3000).of(c, 70_000))
}

// repeatTotals expects the totals now and after a restart.
func (f *fixture) repeatTotals(want totals) {
	f.Helper()
	f.same("totals", want, f.totals())
	f.reopen()
	f.same("totals after a restart", want, f.totals())
}

func testTotalsRetrying(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicB, "b")
	d := f.sized(500, a)[0]
	f.sized(200, a)
	f.sized(900, b)
	want := totals{}.of(a, 500, 200).of(b, 900)
	for range 3 {
		f.clock.Advance(time.Minute)
		d = f.retry(d, time.Hour)
		f.same("totals", want, f.totals())
	}
	f.repeatTotals(want)
}

func testTotalsFinished(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicB, "b")
	for _, finish := range []func(delivery.PendingDelivery) delivery.Outcome{f.delivered, f.failed, f.cancelled} {
		f.record(finish(f.sized(300, a)[0]))
		f.record(finish(f.retry(f.sized(400, a)[0], time.Hour)))
		f.record(finish(f.sized(600, b)[0]))
	}
	f.sized(111, b)
	f.repeatTotals(totals{}.of(b, 111))
}

func testTotalsReplayed(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicB, "b")
	want := totals{}
	for i, finish := range []func(delivery.PendingDelivery) delivery.Outcome{f.delivered, f.failed, f.cancelled} {
		for _, sub := range []delivery.Subscription{a, b} {
			size := 200 + 100*i
			d := f.sized(size, sub)[0]
			f.record(finish(d))
			f.clock.Advance(3 * time.Hour)
			f.replay(sub.Tenant, d.ID)
			want.of(sub, size)
		}
	}
	f.repeatTotals(want)
	f.record(f.delivered(f.pending(a)[0]))
	f.same("deliveries once one is delivered again", int64(2), f.totals()[a.Key].Deliveries)
}

func testTotalsOrdered(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicA, "b")
	a.Ordered = true
	first := f.sizedOrder(150, 7, a, b)
	f.sizedOrder(250, 7, a, b)
	f.sizedOrder(350, 8, a)
	want := totals{}.of(a, 150, 250, 350).of(b, 150, 250)
	f.same("totals", want, f.totals())
	f.record(f.delivered(first[0]), f.cancelled(first[1]))
	f.repeatTotals(totals{}.of(a, 250, 350).of(b, 250))
}

// testTotalsEverywhere has subscriptions in every shard, and so in the first and in the last.
func testTotalsEverywhere(f *fixture) {
	var subs []delivery.Subscription
	for i := range 256 {
		sub := subscription([]string{clinicA, clinicB}[i%2], fmt.Sprintf("sub-%d", i))
		sub.Key[0] = byte(i)
		subs = append(subs, sub)
	}
	for _, edge := range []byte{0x00, 0xff} {
		sub := subscription(clinicA, fmt.Sprintf("edge-%x", edge))
		for i := range sub.Key {
			sub.Key[i] = edge
		}
		subs = append(subs, sub)
	}
	want := totals{}
	for i, sub := range subs {
		f.sized(100+i, sub)
		want.of(sub, 100+i)
	}
	f.repeatTotals(want)
}

// testTotalsOneMoment writes while the totals are read: the writers go on, and what they do does not show.
func testTotalsOneMoment(f *fixture) {
	var subs []delivery.Subscription
	want := totals{}
	pending := map[event.SubscriptionKey]delivery.PendingDelivery{}
	for i := range 10 {
		sub := subscription(clinicA, fmt.Sprintf("sub-%d", i))
		subs = append(subs, sub)
		pending[sub.Key] = f.sized(100+i, sub)[0]
		f.sized(200, sub)
		want.of(sub, 100+i, 200)
	}
	newest := subscription(clinicB, "new")
	got, later := totals{}, totals{}
	err := f.Totals(f.ctx, func(sub event.SubscriptionKey, deliveries, bytes int64) error {
		if len(got) == 0 {
			for i, other := range subs {
				f.sized(1000, other)
				f.record([]delivery.Outcome{f.delivered(pending[other.Key]), f.cancelled(pending[other.Key])}[i%2])
				later.of(other, 200, 1000)
			}
			f.sized(1000, newest)
			later.of(newest, 1000)
		}
		got[sub] = total{deliveries, bytes}
		return nil
	})
	if err != nil {
		f.Errorf("Totals: %v", err)
	}
	f.same("totals of the moment", want, got)
	f.same("totals of a later moment", later, f.totals())
}

var errEnough = errors.New("enough")

// few are three subscriptions, each with something pending.
func (f *fixture) few() {
	f.Helper()
	for _, name := range []string{"a", "b", "c"} {
		f.sized(100, subscription(clinicA, name), subscription(clinicA, name+name))
	}
}

// interrupt calls Totals, and expects it to end with want after the first of three yields, which does what is given.
func (f *fixture) interrupt(ctx context.Context, want error, first func() error) {
	f.Helper()
	yields := 0
	err := f.Totals(ctx, func(event.SubscriptionKey, int64, int64) error {
		yields++
		return first()
	})
	if !errors.Is(err, want) || yields != 1 {
		f.Errorf("Totals gave %v after %d yields, want %v after 1", err, yields, want)
	}
}

func testTotalsYieldFails(f *fixture) {
	f.few()
	f.interrupt(f.ctx, errEnough, func() error { return errEnough })
	f.same("subscriptions at the next call", 6, len(f.totals()))
}

func testTotalsContext(f *fixture) {
	f.few()
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	err := f.Totals(ctx, func(event.SubscriptionKey, int64, int64) error {
		f.Error("a total came after the context had ended")
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		f.Errorf("Totals gave %v, want the context's error", err)
	}
}

func testTotalsContextEnds(f *fixture) {
	f.few()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	f.interrupt(ctx, context.Canceled, func() error { cancel(); return nil })
	f.same("subscriptions at the next call", 6, len(f.totals()))
}

func testTotalsClosed(f *fixture) {
	f.few()
	f.close()
	err := f.Totals(f.ctx, func(event.SubscriptionKey, int64, int64) error { return nil })
	if !errors.Is(err, store.ErrClosed) {
		f.Errorf("Totals of a closed store gave %v", err)
	}
	f.open()
}

// testTotalsClosedMeanwhile: a store that closes does not wait until all is read.
func testTotalsClosedMeanwhile(f *fixture) {
	f.few()
	closed := make(chan struct{})
	f.interrupt(f.ctx, store.ErrClosed, func() error {
		go func() { f.close(); close(closed) }()
		tick, timeout := time.NewTicker(time.Millisecond), time.NewTimer(ownTimeout)
		defer tick.Stop()
		defer timeout.Stop()
		for !errors.Is(f.Ready(), store.ErrClosed) {
			select {
			case <-tick.C:
			case <-timeout.C:
				return errors.New("the store does not close")
			}
		}
		return nil
	})
	<-closed
	f.open()
}

// checkTotals compares the totals to what the model knows to be pending.
func (m *model) checkTotals() {
	m.Helper()
	want := totals{}
	for _, k := range m.deliveries {
		if k.standing.state == delivery.Pending {
			want.of(m.subs[k.sub], k.standing.pending.Size)
		}
	}
	if got := m.totals(); !maps.Equal(want, got) {
		m.same("totals", want, got)
	}
}
