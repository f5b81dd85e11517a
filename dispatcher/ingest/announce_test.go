package ingest

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/quota"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// TestNobodyPublishesOperationalEvents: in no format, and the answer says whose they are.
func TestNobodyPublishesOperationalEvents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, typ := range []string{string(event.EndpointFailing), string(event.DeliveryFailed), "eventflow.created", "eventflow.later.type"} {
		wantProblem(t, f.publish(`{"type":"`+typ+`","data":{}}`), unknownType, "Event Flow's own", "eventflow.*")
		cloud := `{"specversion":"1.0","id":"1","source":"x","type":"` + typ + `","data":{}}`
		w := f.do(http.MethodPost, "/v1/namespaces/clinic-a/events", cloud, "Content-Type: application/cloudevents+json")
		wantProblem(t, w, unknownType, "Event Flow's own")
	}
	if n := len(f.store.stored()); n != 0 {
		t.Errorf("%d were stored", n)
	}
}

func announcement(about string) Announcement {
	return Announcement{
		Tenant: "clinic-a", About: event.NewSubscriptionKey("clinic-a/" + about), ID: "evt_1", Type: event.EndpointFailing,
		Timestamp: time.Date(2026, 1, 15, 9, 0, 0, 0, time.UTC), Data: []byte(`{"subscription":"` + about + `"}`),
	}
}

// announcing is a fixture in which clinic-a has a subscription to all, and two to operational events.
func announcing(t *testing.T, adjust ...func(*Options)) *fixture {
	t.Helper()
	table := newTable(t, "clinic-a/everything=*", "clinic-a/watch=eventflow.*", "clinic-a/pager=eventflow.endpoint.failing", "clinic-b/watch=eventflow.*")
	return newFixture(t, append([]func(*Options){func(o *Options) { o.Routes = func() *routing.Table { return table } }}, adjust...)...)
}

// TestAnnounce: an operational event is stored and handed on for those of its tenant who ask for it, and not for the
// subscription that it is about; the same one again is a repetition, whatever it says.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	for about, want := range map[string][]string{"everything": {"pager", "watch"}, "watch": {"pager"}, "pager": {"watch"}} {
		f := announcing(t)
		accepted, err := f.Announce(t.Context(), announcement(about))
		if err != nil || accepted.Deliveries != len(want) || accepted.Repeated {
			t.Fatalf("about %s: %+v, %v", about, accepted, err)
		}
		e := f.store.stored()[0]
		var got []string
		for _, sub := range e.Subscriptions {
			got = append(got, sub.Name)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") || len(f.handed()) != len(want) {
			t.Errorf("about %s: for %v, %d handed on, want %v", about, got, len(f.handed()), want)
		}
		var body event.Envelope
		if err := json.Unmarshal(e.Event.Body, &body); err != nil || body.Type != event.EndpointFailing || body.ID != "evt_1" || !body.Timestamp.Equal(announcement("").Timestamp) {
			t.Errorf("body %s, %v", e.Event.Body, err)
		}
		again := announcement(about)
		again.Data, again.Timestamp = []byte(`{"attempts":11}`), again.Timestamp.Add(time.Hour)
		if accepted, err = f.Announce(t.Context(), again); err != nil || !accepted.Repeated || len(f.handed()) != len(want) {
			t.Errorf("again: %+v, %v", accepted, err)
		}
	}
}

// TestAnnounceIsForSomebody: what only the subscription itself would get is not kept.
func TestAnnounceIsForSomebody(t *testing.T) {
	t.Parallel()
	f := announcing(t)
	a := announcement("watch")
	a.Type = event.KeyRotated
	if accepted, err := f.Announce(t.Context(), a); err != nil || accepted.ID != "" || len(f.store.stored()) != 0 {
		t.Errorf("%+v, %v, %d stored", accepted, err, len(f.store.stored()))
	}
}

// TestAnnounceIsCharged: the tenant's quotas count an operational event and its deliveries, and a full store refuses it.
func TestAnnounceIsCharged(t *testing.T) {
	t.Parallel()
	keeper := quota.New(func(string) quota.Limits { return quota.Limits{PendingDeliveries: 3} }, time.Now)
	f := announcing(t, func(o *Options) { o.Quota = keeper })
	a := announcement("everything")
	if _, err := f.Announce(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if largest := keeper.Largest(1); len(largest) != 1 || largest[0].Tenant != "clinic-a" || largest[0].Deliveries != 2 {
		t.Errorf("charged %+v", largest)
	}
	a.ID = "evt_2"
	if _, err := f.Announce(t.Context(), a); err == nil || len(f.store.stored()) != 1 {
		t.Errorf("beyond the quota: %v, %d stored", err, len(f.store.stored()))
	}
	keeper.Add("clinic-a", -2, 0)
	f.store.failing(store.ErrFull)
	if _, err := f.Announce(t.Context(), a); err == nil {
		t.Error("a full store took it")
	}
	if largest := keeper.Largest(1); len(largest) != 0 {
		t.Errorf("charged although it was not stored: %+v", largest)
	}
	if f.memory.budget.Used() != 0 {
		t.Errorf("%d bytes are still charged", f.memory.budget.Used())
	}
	f.store.failing(nil)
	f.options.Routes = func() *routing.Table { return nil }
	if _, err := f.Announce(t.Context(), a); !errors.Is(err, errNoTable) {
		t.Errorf("without a table: %v", err)
	}
}

// TestPreviewOfOperationalEvents: tools read them, and show that the subscription which one is about does not get it.
func TestPreviewOfOperationalEvents(t *testing.T) {
	t.Parallel()
	catalog, err := event.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	preview, err := NewPreview(PreviewOptions{Catalog: catalog})
	if err != nil {
		t.Fatal(err)
	}
	events, err := preview.Read("application/json", []byte(`{"type":"eventflow.key.rotated","data":{"subscription":"watch"}}`))
	if err != nil || len(events) != 1 {
		t.Fatalf("%+v, %v", events, err)
	}
	table := newTable(t, "clinic-a/everything=*", "clinic-a/watch=eventflow.*", "clinic-a/pager=eventflow.key.rotated", "clinic-b/watch=eventflow.*")
	e, err := preview.Decide(t.Context(), table, "clinic-a", events[0], time.Now())
	if err != nil || len(e.Subscriptions) != 1 || e.Subscriptions[0].Name != "pager" {
		t.Errorf("%+v, %v", e.Subscriptions, err)
	}
	if _, err := preview.Read("application/json", []byte(`{"type":"eventflow.later.type","data":{}}`)); err == nil {
		t.Error("a type that there is not was read")
	}
}

// TestGivenUpAsItIsStored: a delivery whose schedule fails is told of once, when it is stored.
func TestGivenUpAsItIsStored(t *testing.T) {
	t.Parallel()
	table := scheduledTable(t, routing.Entry{Schedule: &routing.Schedule{At: "event.data.at", IfPast: plan.SkipPast}}, routing.Entry{})
	var given []event.DeliveryID
	f := newFixture(t, func(o *Options) {
		o.Routes = func() *routing.Table { return table }
		o.GivenUp = func(id event.DeliveryID) { given = append(given, id) }
	})
	const good = `{"id":"evt-1","type":"appointment.created","data":{"at":"2100-01-15T13:00:00Z"}}`
	const bad = `{"id":"evt-2","type":"appointment.created","data":{"at":"tomorrow"}}`
	f.store.failing(store.ErrFull)
	f.publish(bad)
	f.store.failing(nil)
	for _, body := range []string{good, bad, bad} {
		f.publish(body)
	}
	stored := f.store.stored()
	if len(stored) != 2 || len(given) != 1 || given[0] != (event.DeliveryID{Event: stored[1].Event.Key, Subscription: stored[1].Plans[0].Subscription.Key}) {
		t.Errorf("%d stored, told of %v", len(stored), given)
	}
}
