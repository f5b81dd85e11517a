//go:build unix

package sealed_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/seeds/seedstest"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/sealed"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

// workload is one way to append.
type workload struct {
	name          string
	events, subs  int
	writers, body int
}

var workloads = []workload{
	{"one by one", 1, 1, 1, 1 << 10},
	{"one by one, 64 producers", 1, 1, 64, 1 << 10},
	{"batches of 100, 4 producers", 100, 1, 4, 1 << 10},
	{"fan-out to 50, 8 producers", 1, 50, 8, 1 << 10},
	{"64 KiB bodies, 8 producers", 1, 1, 8, 64 << 10},
}

// BenchmarkAppend appends on a real disk, in the clear and encrypted by turns, so that both see the same machine. It reports
// the rate with encryption as a part of that without, and the processor's time that each takes for an event.
func BenchmarkAppend(b *testing.B) {
	for _, w := range workloads {
		b.Run(w.name, func(b *testing.B) {
			below, err := pebble.Open(b.TempDir(), pebble.Options{FreeReserve: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := below.Close(); err != nil {
					b.Error(err)
				}
			}()
			stores := [2]store.Store{sealed.New(below, nil), storetest.Seal(below, &seedstest.Memory{}, storetest.KeyRing(b))}
			var took, cpu [2]time.Duration
			const rounds = 10 // of each, by turns
			calls := max(b.N/(2*rounds), 1)
			for round := range 2 * rounds {
				i := round % 2
				wall, used := time.Now(), processorTime()
				w.run(b, stores[i], calls, fmt.Sprint("r", round))
				took[i] += time.Since(wall)
				cpu[i] += processorTime() - used
			}
			events := float64(rounds * calls * w.events)
			b.ReportMetric(float64(took[0])/float64(took[1]), "of-plain")
			b.ReportMetric(float64(cpu[0])/float64(cpu[1]), "cpu-of-plain")
			b.ReportMetric(events/took[0].Seconds(), "plain-events/s")
			b.ReportMetric(events/took[1].Seconds(), "sealed-events/s")
			b.ReportMetric(float64(cpu[1]-cpu[0])/events/1e3, "more-cpu-µs/event")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// run appends so many calls, by so many writers. Bodies are random: both stores compress alike.
func (w *workload) run(b *testing.B, s store.Store, calls int, prefix string) {
	tenant := "clinic-a"
	var subs []*delivery.Subscription
	for i := range w.subs {
		subs = append(subs, &delivery.Subscription{Key: event.NewSubscriptionKey(fmt.Sprint(i)), Tenant: tenant, Name: fmt.Sprint("s", i)})
	}
	random := make([]byte, w.body)
	_, _ = rand.Read(random)
	work := make(chan int)
	done := make(chan error, w.writers)
	for range w.writers {
		go func() {
			var failed error
			for call := range work {
				events := make([]store.NewEvent, w.events)
				for i := range events {
					events[i] = store.NewEvent{Fanout: delivery.Fanout{
						Event: &delivery.Event{
							Tenant: tenant, ID: fmt.Sprintf("evt_%s_%020d", prefix, call*w.events+i), Type: "patient.created",
							Body: bytes.Clone(random),
						},
						Subscriptions: subs,
					}}
				}
				if _, _, err := s.Append(b.Context(), events); err != nil {
					failed = err
				}
			}
			done <- failed
		}()
	}
	for call := range calls {
		work <- call
	}
	close(work)
	for range w.writers {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkEvent reads events of a stored kind.
func BenchmarkEvent(b *testing.B) {
	below, err := pebble.Open(b.TempDir(), pebble.Options{FreeReserve: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := below.Close(); err != nil {
			b.Error(err)
		}
	}()
	for i, s := range []store.Store{sealed.New(below, nil), storetest.Seal(below, &seedstest.Memory{}, storetest.KeyRing(b))} {
		e := newEvent(fmt.Sprint("evt-", i))
		e.Event.Tenant, e.Event.Body = fmt.Sprint("clinic-", i), make([]byte, 1<<10)
		if _, _, err := s.Append(b.Context(), []store.NewEvent{e}); err != nil {
			b.Fatal(err)
		}
		b.Run([]string{"plain", "sealed"}[i], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Event(b.Context(), e.Event.Key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
