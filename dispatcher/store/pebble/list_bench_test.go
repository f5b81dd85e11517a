package pebble_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// listed is how many deliveries a list chooses from, and listPage how many it answers with.
const (
	listed   = 1_000_000
	listPage = 500
	listSubs = 100
)

// fillForLists stores deliveries to many subscriptions of one tenant: nine of ten are delivered, the others failed. It returns one in
// the middle.
func fillForLists(b *testing.B, s store.Store) (middle event.DeliveryID) {
	b.Helper()
	subs := make([]*delivery.Subscription, listSubs)
	for i := range subs {
		name := fmt.Sprint("sub-", i)
		subs[i] = &delivery.Subscription{Key: event.NewSubscriptionKey(name), Tenant: "clinic-a", Name: name}
	}
	attempt := &delivery.Attempt{Number: 1, Started: s.Now(), Duration: time.Millisecond, StatusCode: 204}
	for done := 0; done < listed; {
		events := benchEvents(100)
		for i := range events {
			events[i].Subscriptions = subs
		}
		_, fanouts, err := s.Append(b.Context(), events)
		if err != nil {
			b.Fatal(err)
		}
		for i := range fanouts {
			outcomes := make([]delivery.Outcome, listSubs)
			for j, sub := range subs {
				outcomes[j] = delivery.Outcome{Delivery: fanouts[i].Delivery(sub), Attempt: attempt, State: delivery.Delivered}
				if j%10 == 0 {
					outcomes[j].State = delivery.Failed
				}
			}
			if err := s.Record(b.Context(), outcomes); err != nil {
				b.Fatal(err)
			}
			if done += listSubs; done == listed/2 {
				middle = outcomes[0].Delivery.ID
			}
		}
	}
	return middle
}

// BenchmarkList lists 500 of a million deliveries of one tenant: at the beginning and in the middle, of a state, and of a subscription
// that has one in a hundred.
func BenchmarkList(b *testing.B) {
	s := benchStore(b)
	middle := fillForLists(b, s)
	for _, query := range []struct {
		name string
		store.Query
	}{
		{"any", store.Query{}},
		{"any/middle", store.Query{Before: middle}},
		{"failed", store.Query{State: delivery.Failed}},
		{"failed/middle", store.Query{State: delivery.Failed, Before: middle}},
		{"subscription", store.Query{Subscription: "sub-7"}},
		{"subscription/failed", store.Query{Subscription: "sub-10", State: delivery.Failed}},
	} {
		b.Run(query.name, func(b *testing.B) {
			q := query.Query
			q.Tenant, q.Limit, q.LastAttempt = "clinic-a", listPage, true
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				found, err := s.List(b.Context(), q)
				if err != nil || len(found) != listPage {
					b.Fatal(len(found), err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
		})
	}
}
