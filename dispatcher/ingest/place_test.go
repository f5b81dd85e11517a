package ingest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// gated is a store that lets one Append end when it is told to.
type gated struct {
	store.Store
	entered chan string // tenants
	gate    chan struct{}
}

func (g gated) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	g.entered <- events[0].Event.Tenant
	<-g.gate
	return g.Store.Append(ctx, events)
}

// ofSize returns an event of about that many bytes.
func ofSize(bytes int) string {
	return fmt.Sprintf(`{"type":"note.created","data":{"text":%q}}`, strings.Repeat("x", bytes))
}

// TestWhoPublishesSeldomGoesFirst: while a crowd of tenants publishes as fast as it is answered, one that publishes now and
// then is worked on next. It does not wait for a round of the crowd's.
func TestWhoPublishesSeldomGoesFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const crowd, turns = 40, 200
		g := gated{entered: make(chan string, 1000), gate: make(chan struct{})}
		f := newFixture(t, func(o *Options) {
			g.Store = o.Store
			o.Store = g
		})
		var publishers sync.WaitGroup
		publish := func(namespace, body string) {
			w := f.do(http.MethodPost, "/v1/namespaces/"+namespace+"/events", body, "Content-Type: application/json")
			if w.Code != http.StatusAccepted {
				t.Errorf("%s got %d %s", namespace, w.Code, w.Body)
			}
		}
		end := make(chan struct{})
		for i := range crowd {
			publishers.Go(func() {
				for {
					publish(fmt.Sprint("busy-", i), ofSize(12<<10))
					select {
					case <-end:
						return
					default:
					}
				}
			})
		}
		synctest.Wait()
		for turn := range turns {
			for len(g.entered) > 0 {
				<-g.entered
			}
			seldom := turn >= crowd && turn%crowd == 0
			if seldom {
				publishers.Go(func() { publish("seldom", oneEvent) })
				synctest.Wait()
			}
			g.gate <- struct{}{}
			synctest.Wait()
			if !seldom {
				continue
			}
			if first := <-g.entered; first != "seldom" {
				t.Errorf("at turn %d, %s was worked on before the tenant that publishes seldom", turn, first)
			}
		}
		close(end)
		close(g.gate)
		publishers.Wait()
	})
}

// TestPlacesOfAPublish: small publishes of one tenant share a sync of the disk, a few large ones fill the processors, and
// filters that take long hold none.
func TestPlacesOfAPublish(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[int]int{0: 1, 1024: 1, 4 << 10: 3, 100 << 10: mostPlaces, largePublish: mostPlaces, largePublish + 1: publishPlaces / 2} {
		if got := placesOf(bytes); got != want {
			t.Errorf("a body of %d bytes takes %d places, want %d", bytes, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		for size, want := range map[int]int64{100: publishPlaces / 2, 100 << 10: publishPlaces / 2, largePublish + 1: publishPlaces / 2} {
			g := gated{entered: make(chan string, 1000), gate: make(chan struct{})}
			f := newFixture(t, func(o *Options) {
				g.Store = o.Store
				o.Store = g
				o.MaxEventBytes = maxRequestBytes
			})
			var publishers sync.WaitGroup
			for range 40 {
				publishers.Go(func() {
					if w := f.publish(ofSize(size)); w.Code != http.StatusAccepted && w.Code != http.StatusTooManyRequests {
						t.Errorf("got %d %s", w.Code, w.Body)
					}
				})
			}
			synctest.Wait()
			if taken := f.places.Taken(); taken != want {
				t.Errorf("a tenant that publishes %d bytes many times holds %d places, want %d", size, taken, want)
			}
			close(g.gate)
			publishers.Wait()
			if f.places.Taken() != 0 || f.places.Waiting() != 0 {
				t.Errorf("%d places are taken after all, and %d wait", f.places.Taken(), f.places.Waiting())
			}
		}
	})
}

// TestFiltersHoldNoPlace: a publish that waits for its filters does not keep one without from being worked on.
func TestFiltersHoldNoPlace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	p := place{pool: f.places, tenant: "clinic-a", size: 3}
	if err := p.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	filters := turn{filters: f.filters, tenant: "clinic-a", place: &p}
	if err := filters.next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if taken := f.places.Taken(); taken != 0 || p.held {
		t.Errorf("%d places are held while filters are evaluated", taken)
	}
	filters.end()
	if err := p.take(t.Context()); err != nil || f.places.Taken() != 3 {
		t.Errorf("%d places are held afterwards (%v)", f.places.Taken(), err)
	}
	p.give()
}

// TestKeysHoldNoPlace: tenants whose encryption keys cannot be had wait for them, and keep no other from being worked on.
func TestKeysHoldNoPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := make(chan struct{})
		f := newFixture(t, func(o *Options) {
			o.Unlock = func(_ context.Context, tenant string) error {
				if tenant == "clinic-a" {
					return nil
				}
				<-keys
				return store.ErrKeys
			}
		})
		var publishers sync.WaitGroup
		for i := range 2 * publishPlaces {
			publishers.Go(func() {
				w := f.do(http.MethodPost, fmt.Sprintf("/v1/namespaces/locked-%d/events", i), oneEvent, "Content-Type: application/json")
				wantProblem(t, w, unavailable, "encryption key")
			})
		}
		synctest.Wait()
		if w := f.publish(oneEvent); w.Code != http.StatusAccepted {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		close(keys)
		publishers.Wait()
	})
}
