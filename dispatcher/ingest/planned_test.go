package ingest

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

func (m *memory) Cancel(_ context.Context, tenant string, id event.DeliveryID) error {
	r, err := m.pendingOne(tenant, id)
	if err == nil {
		r.State, r.Reason = delivery.Cancelled, delivery.ReasonByUser
	}
	return err
}

func (m *memory) SendNow(_ context.Context, tenant string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	r, err := m.pendingOne(tenant, id)
	if err != nil {
		return delivery.PendingDelivery{}, err
	}
	r.Due = noon
	return delivery.PendingDelivery{ID: id, Due: noon, Planned: r.Planned}, nil
}

func (m *memory) pendingOne(tenant string, id event.DeliveryID) (*store.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.deliveries[id]
	switch {
	case m.fail != nil:
		return nil, m.fail
	case !ok || r.Tenant != tenant:
		return nil, store.ErrNotFound
	case r.State != delivery.Pending:
		return nil, store.ErrNotPending
	}
	return r, nil
}

// plannedFixture has one delivery that is planned for an hour after noon.
func plannedFixture(t *testing.T) (f *fixture, path string) {
	t.Helper()
	f = newFixture(t, func(o *Options) { o.Now = func() time.Time { return noon } })
	id := event.DeliveryID{Event: event.NewKey(noon, "clinic-a", "evt-1"), Subscription: event.NewSubscriptionKey("u")}
	f.store.deliveries[id] = &store.Record{
		ID: id, EventID: "evt-1", Type: "lab.created", Tenant: "clinic-a", Subscription: "labs", State: delivery.Pending,
		Created: noon, Due: noon.Add(time.Hour), Planned: noon.Add(time.Hour),
	}
	return f, deliveriesPath + "/" + id.String()
}

func TestCancelADelivery(t *testing.T) {
	t.Parallel()
	f, path := plannedFixture(t)
	if got := decode[deliveryView](t, f.do("GET", path, ""), http.StatusOK); got.State != "Scheduled" || got.PlannedTime != "2026-01-15T13:00:00.000Z" {
		t.Errorf("got %+v", got)
	}
	wantProblem(t, f.do("GET", path+"/cancel", ""), methodNotAllowed)
	got := decode[deliveryView](t, f.do("POST", path+"/cancel", ""), http.StatusOK)
	if got.State != "Cancelled" || got.Reason != "ByUser" || got.NextAttemptTime != "" {
		t.Errorf("got %+v", got)
	}
	wantProblem(t, f.do("POST", path+"/cancel", ""), notPending)
	wantProblem(t, f.do("POST", path+"/sendnow", ""), notPending)
	wantProblem(t, f.do("POST", deliveriesPath+"/dlv_x/cancel", ""), notFound)
	wantProblem(t, f.do("POST", "/v1/namespaces/clinic-b/deliveries/"+got.ID+"/cancel", ""), notFound)
}

func TestSendADeliveryNow(t *testing.T) {
	t.Parallel()
	f, path := plannedFixture(t)
	got := decode[deliveryView](t, f.do("POST", path+"/sendnow", ""), http.StatusAccepted)
	if got.State != "Pending" || got.PlannedTime != "2026-01-15T13:00:00.000Z" || got.NextAttemptTime != "2026-01-15T12:00:00.000Z" {
		t.Errorf("got %+v", got)
	}
	if handed := f.handed(); len(handed) != 1 || handed[0].ID.String() != got.ID {
		t.Errorf("the engine got %+v", handed)
	}
	wantProblem(t, f.do("POST", deliveriesPath+"/dlv_x/sendnow", ""), notFound)
}

func TestQueryOfSchedules(t *testing.T) {
	t.Parallel()
	got, _, err := parseQuery("subscription=labs&state=scheduled&key=a+b", "clinic-a")
	want := query.Selection{Tenant: "clinic-a", Subscription: "labs", State: "scheduled", Key: "a b"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	f, _ := plannedFixture(t)
	wantProblem(t, f.do("GET", deliveriesPath+"?key=a", ""), malformed, "name the subscription")
}
