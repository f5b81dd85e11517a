package ingest

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/quota"
)

// TestQuotas: a namespace that has used its quota up is refused by name, and another is not; what was repeated is not charged.
func TestQuotas(t *testing.T) {
	t.Parallel()
	now := func() time.Time { return time.Unix(1_000_000, 0) }
	keeper := quota.New(func(tenant string) quota.Limits {
		if tenant == "clinic-a" {
			return quota.Limits{PendingDeliveries: 5}
		}
		return quota.Limits{}
	}, now)
	f := newFixture(t, func(o *Options) { o.Quota = keeper })
	const event = `{"id":"one","type":"patient.created","data":{}}` // matches two of clinic-a's
	for range 4 {
		if w := f.publish(event); w.Code != http.StatusAccepted && w.Code != http.StatusOK {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
	if used := keeper.Largest(1); len(used) != 1 || used[0].Deliveries != 2 {
		t.Errorf("pending are %v, want the two of one event", used)
	}
	if w := f.publish(`{"id":"two","type":"patient.created","data":{}}`); w.Code != http.StatusAccepted {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	w := f.publish(`{"id":"three","type":"patient.created","data":{}}`)
	wantProblem(t, w, quotaExceeded)
	if w.Header().Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	wantProblem(t, f.publish(`[{"type":"patient.created","data":{}},{"type":"patient.created","data":{}},{"type":"patient.created","data":{}}]`), tooLarge)
	if w := f.do("POST", "/v1/namespaces/clinic-b/events", event, "Content-Type: application/json"); w.Code != http.StatusAccepted {
		t.Errorf("another namespace got %d %s", w.Code, w.Body)
	}
	f.store.failing(context.Canceled)
	f.publish(`{"id":"four","type":"lab.updated","data":{}}`)
	f.store.failing(nil)
	if used := keeper.Largest(1); used[0].Deliveries != 4 {
		t.Errorf("pending are %v after the store failed, want 4", used)
	}
	keeper.Add("clinic-a", -2, 0)
	if w := f.publish(`{"id":"three","type":"patient.created","data":{}}`); w.Code != http.StatusAccepted {
		t.Errorf("after two ended: got %d %s", w.Code, w.Body)
	}
}

// TestTenantsAreNotNames: events, ids and deliveries belong to the tenant that a namespace is, whatever its name.
func TestTenantsAreNotNames(t *testing.T) {
	t.Parallel()
	uid := "uid-1"
	f := newFixture(t, func(o *Options) {
		o.Tenant = func(context.Context, string, string) (string, bool, error) { return uid, true, nil }
	})
	if w := f.publish(`{"id":"a","type":"patient.created","data":{"n":1}}`); w.Code != http.StatusAccepted {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	uid = "uid-2" // the namespace was deleted and made again
	if w := f.publish(`{"id":"a","type":"patient.created","data":{"n":2}}`); w.Code != http.StatusAccepted {
		t.Errorf("the id of the namespace's predecessor is taken: got %d %s", w.Code, w.Body)
	}
	stored := f.store.stored()
	if len(stored) != 2 || stored[0].Event.Tenant != "uid-1" || stored[1].Event.Tenant != "uid-2" {
		t.Fatalf("stored %+v", stored)
	}
	for _, e := range stored {
		if len(e.Subscriptions) != 0 {
			t.Error("an event matched the subscriptions of another tenant")
		}
	}
}
