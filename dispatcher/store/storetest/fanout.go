package storetest

import (
	"fmt"
	"slices"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// testAppendManyDeliveries appends more deliveries than an implementation sends, or holds, at a time.
func testAppendManyDeliveries(f *fixture) {
	const subscriptions, events = 700, 40
	var subs []*delivery.Subscription
	for i := range subscriptions {
		sub := subscription(clinicA, fmt.Sprint("sub-", i))
		sub.Ordered = i%2 == 0
		subs = append(subs, &sub)
	}
	var all []store.NewEvent
	for i := range events {
		e := newEvent(clinicA, fmt.Sprint("evt-", i), "x")
		e.Subscriptions, e.Order = subs, 7
		all = append(all, e)
	}
	answers, fanouts, err := f.Store.Append(f.ctx, all)
	if err != nil {
		f.Fatal(err)
	}
	if len(answers) != events || len(fanouts) != events || answers[events-1].Deliveries != subscriptions {
		f.Fatalf("%d answers, %d fan-outs; the last answer is %+v", len(answers), len(fanouts), answers[len(answers)-1])
	}
	for i := range fanouts {
		if !store.SameSubscriptions(fanouts[i].Subscriptions, subs) {
			f.Fatalf("fan-out %d has subscriptions of its own", i)
		}
	}
	order := fanouts[0].Order
	if order == 0 {
		f.Error("the fan-outs have no order")
	}
	f.reopen()
	for _, sub := range subs {
		var want, got []event.DeliveryID
		for i := range fanouts {
			want = append(want, fanouts[i].Delivery(sub).ID)
		}
		for _, d := range f.pending(*sub) {
			got = append(got, d.ID)
			if (d.Order == order) != sub.Ordered {
				f.Errorf("%s has order %d", d.ID, d.Order)
			}
		}
		if !slices.Equal(want, got) {
			f.Fatalf("%d are pending: %v; want %d: %v", len(got), got, len(want), want)
		}
	}
}

// Deliveries are the deliveries of fan-outs as a store returns them, without their events.
func Deliveries(fanouts []delivery.Fanout) []delivery.PendingDelivery {
	var all []delivery.PendingDelivery
	for i := range fanouts {
		for _, sub := range fanouts[i].Subscriptions {
			d := fanouts[i].Delivery(sub)
			d.Event = nil
			all = append(all, d)
		}
	}
	return all
}
