package query

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

func (m *memory) Append(_ context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var fanouts []delivery.Fanout
	for _, e := range events {
		m.clock = m.clock.Add(1)
		e.Event.Key = event.NewKey(m.clock, e.Event.Tenant, e.Event.ID)
		for _, sub := range e.Subscriptions {
			id := event.DeliveryID{Event: e.Event.Key, Subscription: sub.Key}
			m.records[id] = &store.Record{ID: id, EventID: e.Event.ID, Tenant: sub.Tenant, State: delivery.Pending}
		}
		fanouts = append(fanouts, e.Fanout)
	}
	return make([]store.Accepted, len(events)), fanouts, nil
}

func (m *memory) Record(_ context.Context, outcomes []delivery.Outcome) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range outcomes {
		m.records[o.Delivery.ID].State = o.State
	}
	return nil
}

// newFeed returns a feed over a store of one failed delivery of clinic-a.
func newFeed(t *testing.T) (*Feed, event.DeliveryID) {
	t.Helper()
	f, ids := newFixture(t, 1, delivery.Failed)
	feed := NewFeed(f.store, func(event.SubscriptionKey) (string, bool) { return "", false })
	t.Cleanup(feed.CloseFeed)
	return feed, ids[0]
}

func (f *Feed) publish(t *testing.T, tenant string) event.DeliveryID {
	t.Helper()
	sub := &delivery.Subscription{Key: event.NewSubscriptionKey(tenant), Tenant: tenant}
	e := store.NewEvent{Fanout: delivery.Fanout{Event: &delivery.Event{Tenant: tenant}, Subscriptions: []*delivery.Subscription{sub}}}
	if _, _, err := f.Append(t.Context(), []store.NewEvent{e}); err != nil {
		t.Fatal(err)
	}
	return event.DeliveryID{Event: e.Event.Key, Subscription: sub.Key}
}

// TestFeedTellsEveryChange: what the store did is seen once each, in order, by the tenant's watchers alone.
func TestFeedTellsEveryChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed, failed := newFeed(t)
		w, err := feed.Watch("clinic-a", feed.Revision("clinic-a"))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		last := w.revision
		see := func(id event.DeliveryID, state delivery.State, before Before) {
			t.Helper()
			found, revision, err := w.Next(t.Context(), nil)
			if err != nil || len(found) != 1 || found[0].Record.ID != id || found[0].Record.State != state || found[0].Before != before || revision <= last {
				t.Fatalf("got %+v at %d after %d, %v", found, revision, last, err)
			}
			last = revision
		}
		if _, err := feed.Replay(t.Context(), "clinic-a", failed); err != nil {
			t.Fatal(err)
		}
		see(failed, delivery.Pending, wasFinished)
		feed.publish(t, "clinic-b")
		created := feed.publish(t, "clinic-a")
		see(created, delivery.Pending, wasNew)
		if err := feed.Record(t.Context(), []delivery.Outcome{{Delivery: delivery.PendingDelivery{ID: created}, State: delivery.Delivered}}); err != nil {
			t.Fatal(err)
		}
		see(created, delivery.Delivered, wasPending)
		if err := feed.Cancel(t.Context(), "clinic-a", failed); err != nil {
			t.Fatal(err)
		}
		see(failed, delivery.Cancelled, wasPending)
		if found, _, err := w.Next(t.Context(), time.After(time.Second)); err != nil || found != nil {
			t.Errorf("got %+v, %v", found, err)
		}
	})
}

func TestFeedExpires(t *testing.T) {
	t.Parallel()
	for name, expire := range map[string]func(t *testing.T, f *Feed){
		"the watcher is too slow": func(t *testing.T, f *Feed) {
			for range maxLogEntries + 1 {
				f.publish(t, "clinic-a")
			}
			synctest.Wait()
			<-time.After(time.Second)
		},
		"too many at once": func(t *testing.T, f *Feed) {
			for range maxNotices + 1 {
				f.publish(t, "clinic-a")
			}
		},
		"an hour has passed": func(_ *testing.T, f *Feed) { f.now = func() time.Time { return time.Now().Add(logAge) } },
		"the feed ended":     func(_ *testing.T, f *Feed) { f.CloseFeed() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				feed, _ := newFeed(t)
				w, err := feed.Watch("clinic-a", feed.Revision("clinic-a"))
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				expire(t, feed)
				if found, _, err := w.Next(t.Context(), nil); !errors.Is(err, ErrExpired) {
					t.Errorf("got %d changes, %v", len(found), err)
				}
			})
		})
	}
}

func TestWatchRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		feed, _ := newFeed(t)
		now := feed.Revision("clinic-a")
		for name, revision := range map[string]uint64{"before all": 1, "not yet given": now + 1} {
			if _, err := feed.Watch("clinic-a", revision); !errors.Is(err, ErrExpired) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		var all []*Watch
		for range maxTenantWatchers {
			w, err := feed.Watch("clinic-a", now)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, w)
		}
		if _, err := feed.Watch("clinic-a", now); !errors.Is(err, ErrTooManyWatchers) {
			t.Errorf("one too many: got %v", err)
		}
		other, err := feed.Watch("clinic-b", feed.Revision("clinic-b"))
		if err != nil {
			t.Errorf("another tenant: %v", err)
		} else {
			other.Close()
		}
		for _, w := range all {
			w.Close()
			w.Close()
		}
		if len(feed.watching) != 0 {
			t.Errorf("%v are left", feed.watching)
		}
	})
}

// TestWatchersAreShared: tenants that watch as much as they can leave places for another one.
func TestWatchersAreShared(t *testing.T) {
	t.Parallel()
	feed, _ := newFeed(t)
	watch := func(tenant string) error {
		_, err := feed.Watch(tenant, feed.Revision(tenant))
		return err
	}
	for i := range maxLogs / 2 {
		for n := 0; watch(fmt.Sprint("greedy-", i)) == nil; n++ {
			if n == maxTenantWatchers {
				t.Fatal("a tenant watches without end")
			}
		}
	}
	for n := range ownWatchers {
		if err := watch("another"); err != nil {
			t.Fatalf("its watch %d: %v", n, err)
		}
	}
}

// TestNothingBeginsAfterTheEnd: a request that outlives the feed starts no reader of a store that is being closed.
func TestNothingBeginsAfterTheEnd(t *testing.T) {
	t.Parallel()
	feed, _ := newFeed(t)
	feed.CloseFeed()
	revision := feed.Revision("clinic-a")
	if _, err := feed.Watch("clinic-a", revision); !errors.Is(err, ErrTooManyWatchers) {
		t.Errorf("watch: %v, want %v", err, ErrTooManyWatchers)
	}
	if len(feed.logs) > 0 {
		t.Error("a log began after the end")
	}
}
