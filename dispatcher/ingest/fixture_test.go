package ingest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// memory is a store in memory, as far as ingest uses one. The embedded interface is nil: what is not here panics.
type memory struct {
	store.Store

	mu         sync.Mutex
	clock      time.Time // the last acceptance; never the same twice
	events     []store.NewEvent
	accepted   map[string]store.Accepted
	digests    map[string][16]byte
	deliveries map[event.DeliveryID]*store.Record
	fail       error // of every method, if set
	replays    int
}

func newMemory() *memory {
	return &memory{
		clock:      time.Date(2026, 1, 15, 9, 0, 0, 0, time.UTC),
		accepted:   make(map[string]store.Accepted),
		digests:    make(map[string][16]byte),
		deliveries: make(map[event.DeliveryID]*store.Record),
	}
}

func (m *memory) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(m.fail, ctx.Err()); err != nil {
		return nil, nil, err
	}
	fresh := make(map[string][16]byte)
	for i, e := range events {
		name := e.Event.Tenant + "/" + e.Event.ID
		before, known := m.digests[name]
		if !known {
			before, known = fresh[name]
		}
		if known && before != e.Digest {
			return nil, nil, &store.ConflictError{Index: i, ID: e.Event.ID}
		}
		fresh[name] = e.Digest
	}
	var answers []store.Accepted
	var fanouts []delivery.Fanout
	for _, e := range events {
		name := e.Event.Tenant + "/" + e.Event.ID
		if first, known := m.accepted[name]; known {
			first.Repeated = true
			answers = append(answers, first)
			continue
		}
		m.digests[name] = e.Digest
		m.clock = m.clock.Add(time.Millisecond)
		e.Event.Key = event.NewKey(m.clock, e.Event.Tenant, e.Event.ID)
		e.Due = m.clock
		m.events = append(m.events, e)
		m.accepted[name] = store.Accepted{ID: e.Event.ID, Deliveries: len(e.Subscriptions) + len(e.Plans)}
		answers = append(answers, m.accepted[name])
		for _, sub := range e.Subscriptions {
			id := event.DeliveryID{Event: e.Event.Key, Subscription: sub.Key}
			m.deliveries[id] = &store.Record{ID: id, EventID: e.Event.ID, Type: e.Event.Type, Tenant: sub.Tenant, Subscription: sub.Name, State: delivery.Pending, Created: m.clock, Due: m.clock}
		}
		if len(e.Subscriptions) > 0 {
			fanouts = append(fanouts, e.Fanout)
		}
	}
	return answers, fanouts, nil
}

func (m *memory) Get(_ context.Context, namespace string, id event.DeliveryID) (store.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.deliveries[id]
	if m.fail != nil || !ok || r.Tenant != namespace {
		return store.Record{}, cmp.Or(m.fail, store.ErrNotFound)
	}
	return *r, nil
}

func (m *memory) List(_ context.Context, q store.Query) ([]store.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	var found []store.Record
	for id, r := range m.deliveries {
		at := id.Event.Accepted()
		if r.Tenant == q.Tenant && (q.Subscription == "" || q.Subscription == r.Subscription) && (q.State == 0 || q.State == r.State) &&
			(q.Since.IsZero() || !at.Before(q.Since)) && (q.Until.IsZero() || at.Before(q.Until)) &&
			(q.Before == event.DeliveryID{} || compareIDs(id, q.Before) < 0) {
			found = append(found, *r)
		}
	}
	slices.SortFunc(found, func(a, b store.Record) int { return compareIDs(b.ID, a.ID) })
	return found[:min(len(found), q.Limit)], nil
}

func compareIDs(a, b event.DeliveryID) int {
	return cmp.Or(bytes.Compare(a.Event[:], b.Event[:]), bytes.Compare(a.Subscription[:], b.Subscription[:]))
}

func (m *memory) Replay(_ context.Context, namespace string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.deliveries[id]
	switch {
	case m.fail != nil:
		return delivery.PendingDelivery{}, m.fail
	case !ok || r.Tenant != namespace:
		return delivery.PendingDelivery{}, store.ErrNotFound
	case r.State == delivery.Pending:
		return delivery.PendingDelivery{}, store.ErrStillPending
	}
	m.replays++
	if r.State == delivery.Delivered {
		m.clock = m.clock.Add(time.Millisecond)
		again := *r
		again.ID.Event = event.NewKey(m.clock, namespace, r.EventID)
		again.ReplayOf = r.ID
		r = &again
		m.deliveries[again.ID] = r
	}
	r.State = delivery.Pending
	return delivery.PendingDelivery{ID: r.ID, Due: m.clock, Since: m.clock}, nil
}

// setStates puts every delivery into a state.
func (m *memory) setStates(state delivery.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.deliveries {
		r.State = state
	}
}

// failing makes every method fail with err, nil: no longer.
func (m *memory) failing(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// stored are the events that were appended so far.
func (m *memory) stored() []store.NewEvent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events)
}

// fixture is a Handler with all that it works with.
type fixture struct {
	*Handler
	store    *memory
	registry *prometheus.Registry

	mu       sync.Mutex
	accepted []delivery.PendingDelivery
}

func (f *fixture) handed() []delivery.PendingDelivery {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.accepted)
}

// newFixture returns a Handler for a table in which clinic-a has a subscription to all, one to patient.* and one to
// lab.created, and clinic-b one to all.
func newFixture(t testing.TB, adjust ...func(*Options)) *fixture {
	t.Helper()
	catalog, err := event.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{store: newMemory(), registry: prometheus.NewRegistry()}
	table := newTable(t, "clinic-a/everything=*", "clinic-a/patients=patient.*", "clinic-a/labs=lab.created", "clinic-b/everything=*")
	options := Options{
		Store:      f.store,
		Routes:     func() *routing.Table { return table },
		Catalog:    catalog,
		Authorizer: None{},
		Logger:     logr.Discard(),
		Registerer: f.registry,
		Accept: func(fanouts []delivery.Fanout) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for i := range fanouts {
				for _, sub := range fanouts[i].Subscriptions {
					f.accepted = append(f.accepted, fanouts[i].Delivery(sub))
				}
			}
		},
	}
	for _, change := range adjust {
		change(&options)
	}
	options.Deliveries, err = query.New(query.Options{
		Store: options.Store, Quota: options.Quota, Now: options.Now,
		Resume: func(pending []delivery.PendingDelivery) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.accepted = append(f.accepted, pending...)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.Handler, err = New(options); err != nil {
		t.Fatal(err)
	}
	return f
}

// newTable returns the table of subscriptions written as namespace/name=pattern.
func newTable(t testing.TB, subscriptions ...string) *routing.Table {
	t.Helper()
	var routes []*routing.Route
	for _, text := range subscriptions {
		identity, pattern, _ := strings.Cut(text, "=")
		namespace, name, _ := strings.Cut(identity, "/")
		routes = append(routes, &routing.Route{
			Identity: identity, Namespace: namespace, Name: name, Key: event.NewSubscriptionKey(identity),
			Patterns: []event.Pattern{event.Pattern(pattern)}, Endpoint: &engine.Endpoint{},
		})
	}
	table, err := routing.NewTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// do serves a request; headers are "Name: value".
func (f *fixture) do(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, reader)
	r.Host = "127.0.0.1:8080"
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

// publish posts a JSON body to clinic-a.
func (f *fixture) publish(body string, headers ...string) *httptest.ResponseRecorder {
	return f.do(http.MethodPost, "/v1/namespaces/clinic-a/events", body, append([]string{"Content-Type: application/json"}, headers...)...)
}

// gotProblem is a problem document as a client reads it.
type gotProblem struct {
	Type, Title, Detail string
	Status              int
	Index               *int
}

// wantProblem checks that an answer is a problem document of the given kind, and returns it.
func wantProblem(t *testing.T, w *httptest.ResponseRecorder, want *kind, details ...string) gotProblem {
	t.Helper()
	var got gotProblem
	decoder := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil {
		t.Fatalf("answer %d %q is not a problem document: %v", w.Code, w.Body, err)
	}
	if w.Code != want.status || got.Status != want.status || got.Type != problemBase+want.name || got.Title != want.title {
		t.Errorf("got %d %+v, want %d %s", w.Code, got, want.status, want.name)
	}
	if contentType := w.Header().Get("Content-Type"); contentType != "application/problem+json" {
		t.Errorf("content type is %q", contentType)
	}
	for _, detail := range details {
		if !strings.Contains(got.Detail, detail) {
			t.Errorf("detail %q does not say %q", got.Detail, detail)
		}
	}
	return got
}
