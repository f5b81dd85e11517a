package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	apiclient "github.com/clinikapi/eventflow/api/client"
	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// apiClient is package client on a fixture's API.
func newClient(t *testing.T, f *fixture) *apiclient.Client {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	c, err := apiclient.New(apiclient.Config{URL: server.URL, Transport: server.Client().Transport, RetryFor: -1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestClientPublishes: what package client sends is what this API takes, also if it is sent again.
func TestClientPublishes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c, at := newClient(t, f), time.Date(2026, 1, 15, 9, 15, 0, 123_456_789, time.UTC)
	one := apiclient.Event{ID: "one", Type: "patient.created", Timestamp: at, Data: []byte(`{ "n": "<1>" }`), Previous: []byte(`{"n":0}`)}
	for _, repeated := range []bool{false, true} {
		got, err := c.Publish(t.Context(), "clinic-a", one)
		if want := (apiclient.Accepted{ID: "one", Deliveries: 2, Repeated: repeated}); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if body := string(f.store.events[0].Event.Body); !strings.HasSuffix(body, `"timestamp":"2026-01-15T09:15:00.123Z","data":{ "n": "<1>" }}`) {
		t.Errorf("the event's body is %s", body)
	}
	all, err := c.PublishAll(t.Context(), "clinic-a", []apiclient.Event{{Type: "lab.created", Data: []byte(`{}`)}, {Type: "note.created", Data: []byte(`{}`)}})
	if err != nil || len(all) != 2 || all[0].Deliveries != 2 || all[1].Deliveries != 1 || !strings.HasPrefix(all[0].ID, "evt_") || all[0].Repeated {
		t.Errorf("got %+v, %v", all, err)
	}
	one.Data = []byte(`{"other":1}`)
	for want, err := range map[string]error{
		apiclient.EventIDConflict:   second(c.Publish(t.Context(), "clinic-a", one)),
		apiclient.UnknownEventType:  second(c.PublishAll(t.Context(), "clinic-a", []apiclient.Event{one, {ID: "b", Type: "patient.exploded", Data: []byte(`{}`)}})),
		apiclient.MalformedRequest:  second(c.Publish(t.Context(), "clinic-a", apiclient.Event{Type: "lab.created", Data: []byte(`[]`)})),
		apiclient.NamespaceNotFound: second(c.Publish(t.Context(), "Clinic_A", one)),
		apiclient.NotFound:          second(c.Delivery(t.Context(), "clinic-a", "dlv_1")),
	} {
		p, ok := errors.AsType[*apiclient.Problem](err)
		if !ok || p.Kind() != want || p.Title == "" || p.Detail == "" || (p.Index == 1) != (want == apiclient.UnknownEventType) {
			t.Errorf("got %+v (%v), want %s", p, err, want)
		}
	}
	f.store.fail = store.ErrFull
	if p, ok := errors.AsType[*apiclient.Problem](second(c.Publish(t.Context(), "clinic-a", one))); !ok || p.RetryAfter != 10*time.Second || p.Kind() != apiclient.Unavailable {
		t.Errorf("a full store is %+v", p)
	}
}

func second[T any](_ T, err error) error { return err }

// TestClientAsks: each field of a delivery, and each parameter, means the same on both sides.
func TestClientAsks(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c, at := newClient(t, f), time.Date(2026, 1, 15, 9, 15, 0, 123_000_000, time.UTC)
	id := event.DeliveryID{Event: event.NewKey(at, "clinic-a", "evt-1"), Subscription: event.NewSubscriptionKey("u")}
	before := event.DeliveryID{Event: event.NewKey(at.Add(-time.Hour), "clinic-a", "evt-1"), Subscription: id.Subscription}
	f.store.deliveries[id] = &store.Record{
		ID: id, EventID: "evt-1", Type: "lab.created", Tenant: "clinic-a", Subscription: "labs", State: delivery.Pending, Created: at,
		AttemptCount: 2, Due: at.Add(2 * time.Minute), Planned: at.Add(time.Minute), ReplayOf: before, Reason: delivery.ReasonPast,
		Attempts: []delivery.Attempt{{Number: 2, Started: at, Duration: 1500 * time.Millisecond, StatusCode: 500, Reason: delivery.ReasonStatusCode}},
	}
	got, err := c.Delivery(t.Context(), "clinic-a", id.String())
	if err != nil {
		t.Fatal(err)
	}
	want := apiclient.Delivery{
		ID: id.String(), Subscription: "labs", State: apiclient.State(delivery.Pending.String()), AttemptCount: 2, CreatedTime: at,
		NextAttemptTime: at.Add(2 * time.Minute), PlannedTime: at.Add(time.Minute), Reason: string(delivery.ReasonPast), ReplayOf: before.String(),
		Attempts: []apiclient.Attempt{{Number: 2, StartedTime: at, Duration: 1500 * time.Millisecond, StatusCode: 500, Error: "StatusCode"}},
	}
	want.Event.ID, want.Event.Type, want.State = "evt-1", "lab.created", got.State
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || !slices.Contains([]apiclient.State{apiclient.Pending, apiclient.Scheduled}, got.State) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	page, err := c.Deliveries(t.Context(), "clinic-a", apiclient.Query{
		Subscription: "labs", State: apiclient.Pending, Since: at.Add(-time.Millisecond), Until: at.Add(time.Millisecond), Limit: 1,
	})
	if err != nil || len(page.Items) != 1 || page.Items[0].ID != id.String() || page.Items[0].Attempts != nil {
		t.Errorf("got %+v, %v", page, err)
	}
	if page, err = c.Deliveries(t.Context(), "clinic-a", apiclient.Query{Until: at.Add(-time.Millisecond)}); err != nil || len(page.Items) > 0 {
		t.Errorf("before it was accepted there is %+v, %v", page, err)
	}
	if _, err := c.Deliveries(t.Context(), "clinic-a", apiclient.Query{Limit: apiclient.MaxLimit}); err != nil {
		t.Error(err)
	}
	if p, ok := errors.AsType[*apiclient.Problem](second(c.Deliveries(t.Context(), "clinic-a", apiclient.Query{Limit: apiclient.MaxLimit + 1}))); !ok || p.Status != http.StatusBadRequest {
		t.Errorf("a longer page than MaxLimit: %v", p)
	}
	if p, ok := errors.AsType[*apiclient.Problem](second(c.Replay(t.Context(), "clinic-a", id.String()))); !ok || p.Kind() != apiclient.DeliveryPending {
		t.Errorf("a replay of a pending one: %v", p)
	}
}

// TestClientGoesThroughPages, and replays what it found.
func TestClientGoesThroughPages(t *testing.T) {
	t.Parallel()
	f := withDeliveries(t, 5)
	c, n := newClient(t, f), 0
	for d, err := range c.All(t.Context(), "clinic-a", apiclient.Query{Limit: 3}) {
		if n++; err != nil || d.State != apiclient.Pending {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	if n != 10 {
		t.Errorf("it finds %d deliveries, want 10", n)
	}
	for id := range f.store.deliveries {
		f.store.deliveries[id].State = delivery.Failed
	}
	replayed, err := c.ReplayMany(t.Context(), "clinic-a", apiclient.Query{Subscription: "patients", State: apiclient.Failed, Since: time.Unix(0, 0)})
	if err != nil || replayed != (apiclient.Replayed{Count: 5}) {
		t.Errorf("got %+v, %v", replayed, err)
	}
}
