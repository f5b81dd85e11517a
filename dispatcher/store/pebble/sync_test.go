package pebble

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// TestOutcomesAreSyncedSoon: outcomes wait for the next event's sync, but not for long.
func TestOutcomesAreSyncedSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open("data", Options{FS: vfs.NewMem()})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		publish := func(id string) delivery.PendingDelivery {
			e := store.NewEvent{Fanout: delivery.Fanout{
				Event:         &delivery.Event{Tenant: "clinic", ID: id, Type: "patient.created"},
				Subscriptions: []*delivery.Subscription{{Key: event.NewSubscriptionKey("sub"), Tenant: "clinic", Name: "sub"}},
			}}
			_, fanouts, err := s.Append(t.Context(), []store.NewEvent{e})
			if err != nil {
				t.Fatal(err)
			}
			return fanouts[0].Delivery(fanouts[0].Subscriptions[0])
		}
		deliver := func(d delivery.PendingDelivery) {
			if err := s.Record(t.Context(), []delivery.Outcome{{Delivery: d, State: delivery.Delivered}}); err != nil {
				t.Fatal(err)
			}
		}
		// expect compares the syncs since the last call.
		last := Syncs(s)
		expect := func(want uint64, what string) {
			t.Helper()
			synctest.Wait()
			if got := Syncs(s) - last; got != want {
				t.Errorf("%s: %d syncs, want %d", what, got, want)
			}
			last = Syncs(s)
		}

		deliver(publish("alone"))
		expect(1, "an event and its outcome")
		<-time.After(2 * syncPause)
		expect(1, "the outcome, after a while")
		<-time.After(time.Hour)
		expect(0, "nothing more")

		for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			deliver(publish(id))
			<-time.After(syncPause / 2)
		}
		expect(8, "events, soon one after the other")
		<-time.After(2 * syncPause)
		expect(1, "the last outcome")
	})
}
