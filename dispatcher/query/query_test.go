package query

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var noon = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)

// memory is a store in memory, as far as query uses one. The embedded interface is nil: what is not here panics.
type memory struct {
	store.Store

	mu      sync.Mutex
	records map[event.DeliveryID]*store.Record
	clock   time.Time
	failing func(call int) error // of List
	lists   int
}

func (m *memory) List(_ context.Context, q store.Query) ([]store.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lists++
	if m.failing != nil {
		if err := m.failing(m.lists); err != nil {
			return nil, err
		}
	}
	var found []store.Record
	for id, r := range m.records {
		if r.Tenant == q.Tenant && (q.State == 0 || q.State == r.State) && (q.Before == event.DeliveryID{} || compareIDs(id, q.Before) < 0) {
			found = append(found, *r)
		}
	}
	slices.SortFunc(found, func(a, b store.Record) int { return compareIDs(b.ID, a.ID) })
	return found[:min(len(found), q.Limit)], nil
}

func compareIDs(a, b event.DeliveryID) int {
	return cmp.Or(bytes.Compare(a.Event[:], b.Event[:]), bytes.Compare(a.Subscription[:], b.Subscription[:]))
}

func (m *memory) Get(_ context.Context, tenant string, id event.DeliveryID) (store.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.records[id]; ok && r.Tenant == tenant {
		return *r, nil
	}
	return store.Record{}, store.ErrNotFound
}

// change does something to a delivery that is pending, or is not.
func (m *memory) change(tenant string, id event.DeliveryID, pending bool, f func(*store.Record)) (delivery.PendingDelivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[id]
	switch {
	case !ok || r.Tenant != tenant:
		return delivery.PendingDelivery{}, store.ErrNotFound
	case pending && r.State != delivery.Pending:
		return delivery.PendingDelivery{}, store.ErrNotPending
	case !pending && r.State == delivery.Pending:
		return delivery.PendingDelivery{}, store.ErrStillPending
	}
	f(r)
	return delivery.PendingDelivery{ID: r.ID, Size: 7}, nil
}

func (m *memory) Replay(_ context.Context, tenant string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	again := id
	d, err := m.change(tenant, id, false, func(r *store.Record) {
		if r.State != delivery.Delivered {
			r.State = delivery.Pending
			return
		}
		m.clock = m.clock.Add(1)
		again.Event = event.NewKey(m.clock, tenant, "")
		repeated := *r
		repeated.ID, repeated.State, repeated.ReplayOf = again, delivery.Pending, id
		m.records[again] = &repeated
	})
	d.ID = again
	return d, err
}

func (m *memory) SendNow(_ context.Context, tenant string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	return m.change(tenant, id, true, func(r *store.Record) { r.Due = noon })
}

func (m *memory) Cancel(_ context.Context, tenant string, id event.DeliveryID) error {
	_, err := m.change(tenant, id, true, func(r *store.Record) { r.State, r.Reason = delivery.Cancelled, delivery.ReasonByUser })
	return err
}

// fixture are Deliveries with their store and what the engine got.
type fixture struct {
	*Deliveries
	store *memory

	mu      sync.Mutex
	resumed []event.DeliveryID
}

// newFixture returns n deliveries of clinic-a, newest first, all in the given state.
func newFixture(t testing.TB, n int, state delivery.State) (*fixture, []event.DeliveryID) {
	t.Helper()
	f := &fixture{store: &memory{records: map[event.DeliveryID]*store.Record{}, clock: noon.Add(time.Hour)}}
	ids := make([]event.DeliveryID, n)
	for i := range ids {
		id := event.DeliveryID{Event: event.NewKey(noon.Add(-time.Duration(i)), "clinic-a", ""), Subscription: event.SubscriptionKey{1}}
		f.store.records[id], ids[i] = &store.Record{ID: id, Tenant: "clinic-a", State: state}, id
	}
	var err error
	f.Deliveries, err = New(Options{Store: f.store, Now: func() time.Time { return noon }, Resume: func(pending []delivery.PendingDelivery) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, p := range pending {
			f.resumed = append(f.resumed, p.ID)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f, ids
}

func TestListGoesOn(t *testing.T) {
	t.Parallel()
	f, ids := newFixture(t, 5, delivery.Failed)
	var got []event.DeliveryID
	s := Selection{Tenant: "clinic-a"}
	for {
		page, err := f.List(t.Context(), s, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			got = append(got, r.ID)
		}
		if s.Continue = page.Continue; s.Continue == "" {
			break
		}
	}
	if !slices.Equal(got, ids) {
		t.Errorf("got %v, want %v", got, ids)
	}
}

func TestWhatBecomesPendingIsHandedOver(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		state   delivery.State
		do      func(f *fixture, id string) (store.Record, error)
		wantNew bool
	}{
		"replay of a failed one": {delivery.Failed, func(f *fixture, id string) (store.Record, error) {
			return f.Replay(context.Background(), "clinic-a", id)
		}, false},
		"replay of a delivered one": {delivery.Delivered, func(f *fixture, id string) (store.Record, error) {
			return f.Replay(context.Background(), "clinic-a", id)
		}, true},
		"send now": {delivery.Pending, func(f *fixture, id string) (store.Record, error) {
			return f.SendNow(context.Background(), "clinic-a", id)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, ids := newFixture(t, 1, tc.state)
			got, err := tc.do(f, ids[0].String())
			if err != nil || (got.ID != ids[0]) != tc.wantNew || got.State != delivery.Pending {
				t.Errorf("got %+v, %v", got, err)
			}
			if !slices.Equal(f.resumed, []event.DeliveryID{got.ID}) {
				t.Errorf("the engine got %v", f.resumed)
			}
		})
	}
}

func TestNothingOfAnotherTenant(t *testing.T) {
	t.Parallel()
	for state, calls := range map[delivery.State][]func(f *fixture, tenant, id string) (store.Record, error){
		delivery.Failed: {func(f *fixture, tenant, id string) (store.Record, error) {
			return f.Replay(context.Background(), tenant, id)
		}},
		delivery.Pending: {
			func(f *fixture, tenant, id string) (store.Record, error) {
				return f.Get(context.Background(), tenant, id)
			},
			func(f *fixture, tenant, id string) (store.Record, error) {
				return f.SendNow(context.Background(), tenant, id)
			},
			func(f *fixture, tenant, id string) (store.Record, error) {
				return f.Cancel(context.Background(), tenant, id)
			},
		},
	} {
		for _, call := range calls {
			f, ids := newFixture(t, 1, state)
			for _, id := range []string{ids[0].String(), "dlv_x", ""} {
				if got, err := call(f, "clinic-b", id); !errors.Is(err, store.ErrNotFound) || got.Tenant != "" {
					t.Errorf("%s: got %+v, %v", id, got, err)
				}
			}
			if len(f.resumed) > 0 {
				t.Errorf("the engine got %v", f.resumed)
			}
		}
	}
}

func TestReplayManyContinues(t *testing.T) {
	t.Parallel()
	const total = maxReplays + replayPageSize/2
	f, _ := newFixture(t, total, delivery.Delivered)
	s := Selection{Tenant: "clinic-a", State: "Delivered"}
	first, err := f.ReplayMany(t.Context(), s)
	if err != nil || first.Count > maxReplays || first.Continue == "" {
		t.Fatalf("got %+v, %v", first, err)
	}
	replayed := first.Count
	for token := first.Continue; token != ""; {
		s.Continue = token
		next, err := f.ReplayMany(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		replayed += next.Count
		token = next.Continue
	}
	if replayed != total || len(f.resumed) != total {
		t.Errorf("replayed %d, handed over %d of %d", replayed, len(f.resumed), total)
	}
	for name, other := range map[string]Selection{
		"another state":  {Tenant: "clinic-a", State: "Failed", Continue: first.Continue},
		"another tenant": {Tenant: "clinic-b", State: "Delivered", Continue: first.Continue},
	} {
		var refused *InvalidError
		if _, err := f.ReplayMany(t.Context(), other); !errors.As(err, &refused) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	var refused *InvalidError
	if _, err := f.List(t.Context(), Selection{Tenant: "clinic-a", State: "Delivered", Continue: first.Continue}, 1); !errors.As(err, &refused) {
		t.Errorf("a list takes a replay's token: %v", err)
	}
}

func TestReplayManyGoesOnAfterAFailure(t *testing.T) {
	t.Parallel()
	f, _ := newFixture(t, replayPageSize+1, delivery.Failed)
	broken := errors.New("broken")
	f.store.failing = func(call int) error {
		if call == 2 {
			return broken
		}
		return nil
	}
	first, err := f.ReplayMany(t.Context(), Selection{Tenant: "clinic-a"})
	if err != nil || first.Count != replayPageSize || first.Continue == "" {
		t.Fatalf("got %+v, %v", first, err)
	}
	second, err := f.ReplayMany(t.Context(), Selection{Tenant: "clinic-a", Continue: first.Continue})
	if err != nil || second.Count != 1 || second.Continue != "" {
		t.Errorf("got %+v, %v", second, err)
	}
}

func TestSelectionRefused(t *testing.T) {
	t.Parallel()
	f, _ := newFixture(t, 1, delivery.Failed)
	for name, s := range map[string]Selection{
		"state":         {State: "Lost"},
		"key alone":     {Key: "a"},
		"token":         {Continue: "x"},
		"pending":       {State: "pending"},
		"scheduled":     {State: "Scheduled"},
		"name too long": {Subscription: string(bytes.Repeat([]byte("a"), 254))},
	} {
		var refused *InvalidError
		if _, err := f.ReplayMany(t.Context(), s); !errors.As(err, &refused) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, limit := range []int{0, MaxLimit + 1} {
		var refused *InvalidError
		if _, err := f.List(t.Context(), Selection{}, limit); !errors.As(err, &refused) {
			t.Errorf("limit %d: got %v", limit, err)
		}
	}
}

func TestTokensOfSchedules(t *testing.T) {
	t.Parallel()
	key, err := plan.NewKey("a b")
	if err != nil {
		t.Fatal(err)
	}
	s := Selection{Tenant: "clinic-a", Subscription: "labs", State: "scheduled", Key: "a b"}
	query, err := s.query("list")
	if err != nil || !query.Scheduled || query.State != delivery.Pending || query.Key != key {
		t.Errorf("got %+v, %v", query, err)
	}
	token := continueToken("list", &query, event.DeliveryID{})
	for name, other := range map[string]store.Query{
		"another key":   {Tenant: "clinic-a", Subscription: "labs", State: delivery.Pending, Scheduled: true},
		"not scheduled": {Tenant: "clinic-a", Subscription: "labs", State: delivery.Pending, Key: key},
	} {
		if _, err := parseContinueToken("list", &other, token); err == nil {
			t.Errorf("%s: the token is taken", name)
		}
	}
}

func TestStateOf(t *testing.T) {
	t.Parallel()
	later := noon.Add(time.Hour)
	for name, tc := range map[string]struct {
		record store.Record
		want   string
	}{
		"waits":         {store.Record{State: delivery.Pending, Planned: later, Due: later}, StateScheduled},
		"not planned":   {store.Record{State: delivery.Pending, Due: later}, "Pending"},
		"sent now":      {store.Record{State: delivery.Pending, Planned: later, Due: noon}, "Pending"},
		"its time came": {store.Record{State: delivery.Pending, Planned: noon, Due: noon}, "Pending"},
		"retried":       {store.Record{State: delivery.Pending, Planned: later, Due: later, AttemptCount: 1}, "Pending"},
		"ended":         {store.Record{State: delivery.Cancelled, Planned: later, Due: later}, "Cancelled"},
	} {
		if got := StateOf(&tc.record, noon); got != tc.want {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
}

func FuzzContinueToken(f *testing.F) {
	query := store.Query{Tenant: "clinic-a", Subscription: "labs"}
	id := event.DeliveryID{Event: event.Key{1, 2, 3}, Subscription: event.SubscriptionKey{4}}
	f.Add(continueToken("list", &query, id))
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseContinueToken("list", &query, text)
		if err != nil {
			var refused *InvalidError
			if !errors.As(err, &refused) {
				t.Errorf("got %v", err)
			}
			return
		}
		if again := continueToken("list", &query, got); again != text {
			t.Errorf("token %q is taken for %q", text, again)
		}
	})
}

// TestByEvent: what the store has no order of is found all the same, and an event's deliveries stand together.
func TestByEvent(t *testing.T) {
	t.Parallel()
	f, _ := newFixture(t, 0, delivery.Failed)
	for i := range 4 {
		key := event.NewKey(noon.Add(time.Duration(i)), "clinic-a", "")
		for sub := range byte(2) {
			id := event.DeliveryID{Event: key, Subscription: event.SubscriptionKey{sub}}
			f.store.records[id] = &store.Record{ID: id, Tenant: "clinic-a", EventID: string(rune('a' + i)), Type: event.Type([]string{"x.created", "y.created"}[i%2])}
		}
	}
	page, err := f.List(t.Context(), Selection{Tenant: "clinic-a", EventType: "x.created"}, 3)
	if err != nil || len(page.Records) != 3 || page.Records[0].EventID != "c" || page.Records[2].EventID != "a" || page.Continue == "" {
		t.Fatalf("got %+v, %v", page, err)
	}
	rest, err := f.List(t.Context(), Selection{Tenant: "clinic-a", EventType: "x.created", Continue: page.Continue}, 3)
	if err != nil || len(rest.Records) != 1 || rest.Records[0].EventID != "a" || rest.Continue != "" {
		t.Errorf("got %+v, %v", rest, err)
	}
	events, err := f.Events(t.Context(), Selection{Tenant: "clinic-a"}, 3)
	if err != nil || len(events.Events) != 3 || events.Events[0].ID != "d" || len(events.Events[2].Matches) != 2 || events.Continue == "" {
		t.Fatalf("got %+v, %v", events, err)
	}
	last, err := f.Events(t.Context(), Selection{Tenant: "clinic-a", Continue: events.Continue}, 3)
	if err != nil || len(last.Events) != 1 || last.Events[0].ID != "a" || len(last.Events[0].Matches) != 2 {
		t.Errorf("got %+v, %v", last, err)
	}
	if e, err := f.Event(t.Context(), "clinic-a", "b"); err != nil || e.ID != "b" || len(e.Matches) != 2 {
		t.Errorf("got %+v, %v", e, err)
	}
	if _, err := f.Event(t.Context(), "clinic-b", "b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another tenant: got %v", err)
	}
}
