package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestOperationalEvents: a team that asks for them hears of its endpoint that is gone, of a delivery that is given up and of a
// key that it rotated; the subscription to all does not, and nobody publishes one.
func TestOperationalEvents(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	r, monitor := newReceiver(t, always(http.StatusInternalServerError)), newReceiver(t, always(http.StatusOK))
	n.subscribe("a", r.URL, `"*"`, "retry: {initialDelay: 1s, maxAttempts: 1}")
	n.subscribe("monitor", monitor.URL, `eventflow.*`)
	n.ready("a", "monitor")
	told := func(want ...string) {
		t.Helper()
		n.eventually(func() error {
			var got []string
			for _, a := range monitor.all() {
				var e struct {
					Type string
					Data struct{ Namespace, Subscription, Reason, EventType string }
				}
				if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Data.Namespace != n.namespace {
					return fmt.Errorf("body %s: %w", a.body, err)
				}
				got = append(got, strings.TrimSpace(e.Type+" "+e.Data.Subscription+" "+e.Data.Reason))
			}
			for _, one := range want {
				if strings.Count(strings.Join(got, "\n")+"\n", one+"\n") != 1 {
					return fmt.Errorf("told of %q, want %q", got, one)
				}
			}
			return nil
		})
	}
	n.publish(`{"type":"patient.created","data":{"secret":"PHI"}}`)
	told("eventflow.delivery.failed a StatusCode")
	r.answer(always(http.StatusGone))
	n.publish(`{"type":"patient.created","data":{"secret":"PHI"}}`)
	told("eventflow.endpoint.gone a StatusCode")
	n.condition("a", "EndpointHealthy", "False", "Gone")
	r.answer(always(http.StatusOK))
	n.secret("key", map[string]string{"current": "another signing key of plain text"})
	told("eventflow.key.rotated a")
	n.publish(`{"type":"patient.created","data":{"secret":"PHI"}}`)
	told("eventflow.endpoint.recovered a")
	for _, a := range r.all() {
		if strings.Contains(a.body, "eventflow.") {
			t.Errorf("a subscription to all got %s", a.body)
		}
	}
	for _, a := range monitor.all() {
		if strings.Contains(a.body, "PHI") || strings.Contains(a.body, strings.TrimPrefix(r.URL, "http://")) {
			t.Errorf("told too much: %s", a.body)
		}
	}
	if code, _, body := n.request(http.MethodPost, "/events", "application/json", `{"type":"eventflow.endpoint.gone","data":{}}`); code != http.StatusUnprocessableEntity {
		t.Errorf("a user published one: %d %s", code, body)
	}
}
