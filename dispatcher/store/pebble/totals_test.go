package pebble_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// TestTotalsSteps reads in steps that end within a subscription, between two, and at the end.
func TestTotalsSteps(t *testing.T) {
	t.Parallel()
	s, err := pebble.Open("data", pebble.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	type total struct{ deliveries, bytes int64 }
	want := map[event.SubscriptionKey]total{}
	for i, n := range []int64{1, 4, 2, 4, 5} {
		sub := &delivery.Subscription{Key: event.NewSubscriptionKey(fmt.Sprint(i)), Tenant: "clinic-a", Name: fmt.Sprint(i)}
		events := benchEvents(int(n))
		for j := range events {
			events[j].Subscriptions = []*delivery.Subscription{sub}
		}
		if _, _, err := s.Append(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		want[sub.Key] = total{n, n * int64(len(benchBody))}
	}
	for length := 1; length <= 18; length++ {
		got := map[event.SubscriptionKey]total{}
		yields := 0
		err := pebble.TotalsBy(t.Context(), s, length, func(sub event.SubscriptionKey, deliveries, bytes int64) error {
			got[sub] = total{deliveries, bytes}
			yields++
			return nil
		})
		if err != nil || !maps.Equal(want, got) || yields != len(want) {
			t.Errorf("steps of %d gave %v in %d yields, %v; want %v", length, got, yields, err, want)
		}
	}
}

// totalsDir holds a million pending deliveries of 200 subscriptions, with bodies of 64 bytes.
func totalsDir(b *testing.B) (dir string, bytes int64) {
	b.Helper()
	const events, each, body = 250_000, 4, 64
	dir = b.TempDir()
	s, err := pebble.Open(dir, pebble.Options{FreeReserve: -1})
	if err != nil {
		b.Fatal(err)
	}
	var subs [50][]*delivery.Subscription
	for i := range subs {
		for j := range each {
			name := fmt.Sprintf("sub-%d-%d", i, j)
			subs[i] = append(subs[i], &delivery.Subscription{Key: event.NewSubscriptionKey(name), Tenant: "clinic-a", Name: name})
		}
	}
	for n := 0; n < events; {
		call := benchEvents(1000)
		for i := range call {
			call[i].Event.Body, call[i].Subscriptions, call[i].Fresh = benchBody[:body], subs[n%len(subs)], true
			n++
		}
		if _, _, err := s.Append(b.Context(), call); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return dir, events * each * body
}

// BenchmarkTotals reads a million pending deliveries; an operation is one Totals. The first of a store that was just
// opened reads from the disk.
func BenchmarkTotals(b *testing.B) {
	dir, want := totalsDir(b)
	for name, reopen := range map[string]bool{"opened": true, "again": false} {
		b.Run(name, func(b *testing.B) {
			var s *pebble.Store
			open := func() {
				var err error
				if s, err = pebble.Open(dir, pebble.Options{FreeReserve: -1}); err != nil {
					b.Fatal(err)
				}
				<-pebble.Counted(s)
			}
			open()
			b.ReportAllocs()
			for b.Loop() {
				if got := sumTotals(b, s); got != want {
					b.Fatalf("%d bytes are pending, want %d", got, want)
				}
				if reopen {
					b.StopTimer()
					if err := s.Close(); err != nil {
						b.Fatal(err)
					}
					open()
					b.StartTimer()
				}
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func sumTotals(b *testing.B, s store.Store) (sum int64) {
	err := s.Totals(b.Context(), func(_ event.SubscriptionKey, _, bytes int64) error {
		sum += bytes
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return sum
}
