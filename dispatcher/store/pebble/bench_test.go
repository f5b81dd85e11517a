package pebble_test

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// benchStore is on a real disk, with fsync.
func benchStore(b *testing.B) *pebble.Store {
	b.Helper()
	s, err := pebble.Open(b.TempDir(), pebble.Options{FreeReserve: -1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

var (
	benchSub  = delivery.Subscription{Key: event.NewSubscriptionKey("bench"), Tenant: "clinic-a", Name: "bench"}
	benchBody = bytes.Repeat([]byte("0123456789abcdef"), 64)
	benchNext atomic.Int64
)

func benchEvents(n int) []store.NewEvent {
	events := make([]store.NewEvent, n)
	for i := range events {
		events[i] = store.NewEvent{Fanout: delivery.Fanout{
			Event: &delivery.Event{
				Tenant: "clinic-a", ID: fmt.Sprintf("evt_%022d", benchNext.Add(1)), Type: "patient.created", Body: benchBody,
			},
			Subscriptions: []*delivery.Subscription{&benchSub},
		}}
	}
	return events
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 100} {
		b.Run(fmt.Sprintf("events=%d/serial", size), func(b *testing.B) {
			s := benchStore(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := s.Append(b.Context(), benchEvents(size)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "events/s")
		})
		b.Run(fmt.Sprintf("events=%d/parallel=32", size), func(b *testing.B) {
			s := benchStore(b)
			b.ReportAllocs()
			b.SetParallelism(16) // times two processors
			synced := pebble.Syncs(s)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, _, err := s.Append(b.Context(), benchEvents(size)); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(pebble.Syncs(s)-synced)/float64(b.N), "syncs/op")
		})
	}
}

// benchPending appends n deliveries.
func benchPending(b *testing.B, s *pebble.Store, n int) []delivery.PendingDelivery {
	b.Helper()
	all := make([]delivery.PendingDelivery, 0, n)
	for len(all) < n {
		_, fanouts, err := s.Append(b.Context(), benchEvents(min(1000, n-len(all))))
		if err != nil {
			b.Fatal(err)
		}
		for i := range fanouts {
			all = append(all, fanouts[i].Delivery(&benchSub))
		}
	}
	return all
}

func benchAttempt(d *delivery.PendingDelivery, status int, reason delivery.Reason) *delivery.Attempt {
	return &delivery.Attempt{Number: d.Attempts + 1, Started: time.Now(), Duration: time.Millisecond, StatusCode: status, Reason: reason}
}

// BenchmarkRecord records outcomes, 100 in a call; an operation is one outcome.
func BenchmarkRecord(b *testing.B) {
	const batch = 100
	for name, state := range map[string]delivery.State{"delivered": delivery.Delivered, "retried": delivery.Pending} {
		b.Run(name, func(b *testing.B) {
			s := benchStore(b)
			all := benchPending(b, s, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			outcomes := make([]delivery.Outcome, 0, batch)
			for i := range all {
				o := delivery.Outcome{Delivery: all[i], State: state, Attempt: benchAttempt(&all[i], 200, "")}
				if state == delivery.Pending {
					o.Attempt, o.Due = benchAttempt(&all[i], 500, delivery.ReasonStatusCode), time.Now().Add(time.Hour)
				}
				if outcomes = append(outcomes, o); len(outcomes) < batch && i < len(all)-1 {
					continue
				}
				if err := s.Record(b.Context(), outcomes); err != nil {
					b.Fatal(err)
				}
				outcomes = outcomes[:0]
			}
		})
	}
}

// BenchmarkDue reads pages of 100 out of 100,000; an operation is one page.
func BenchmarkDue(b *testing.B) {
	s := benchStore(b)
	benchPending(b, s, 100_000)
	b.ReportAllocs()
	var into []delivery.PendingDelivery
	from := delivery.Position{}
	for b.Loop() {
		found, next, more, err := s.Due(b.Context(), benchSub.Key, from, time.Now(), 100, into[:0])
		if err != nil || len(found) != 100 {
			b.Fatal(len(found), err)
		}
		if into, from = found, next; !more {
			from = delivery.Position{}
		}
	}
}

// BenchmarkEvent reads events at random places.
func BenchmarkEvent(b *testing.B) {
	s := benchStore(b)
	all := benchPending(b, s, 50_000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i += 7919 {
		if _, err := s.Event(b.Context(), all[i%len(all)].ID.Event); err != nil {
			b.Fatal(err)
		}
	}
}
