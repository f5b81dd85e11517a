package virtual

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/clinikapi/eventflow/test/kit/fakes"
)

// TestHandshake: an endpoint of CloudEvents that does not agree gets nothing; once it agrees, it gets what waited, and is not
// asked again before its URL is another.
func TestHandshake(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, p place) {
		c := &clinic{T: t, clock: &clock{begin: local(t, "2026-01-12 10:00")}}
		c.Clinic = fakes.NewClinic(t, c.clock.now)
		var mu sync.Mutex
		var got []string
		agrees := false
		endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, r.Method+" "+r.Header.Get("WebHook-Request-Origin")+" "+r.Header.Get("Content-Type"))
			if r.Method == http.MethodOptions && agrees {
				w.Header().Set("WebHook-Allowed-Origin", "*")
			}
		}))
		defer endpoint.Close()
		manifest := fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: clinic-a}
stringData: {current: a signing key of plain text}
---
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: cloud, namespace: clinic-a}
spec:
  url: %s/hook
  events: [lab.created]
  payload: {format: CloudEvents}
  handshake: {origin: eventflow.clinic.example}
  signing: {secretRef: {name: key, key: current}}`, endpoint.URL)
		c.apply(manifest)
		p.begin(c)
		expect := func(want ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, want) {
				t.Errorf("the endpoint got %v, want %v", got, want)
			}
			got = nil
		}
		const asked, event = "OPTIONS eventflow.clinic.example ", "POST eventflow.clinic.example application/cloudevents+json"
		c.event("lab.created", map[string]any{"id": "lab_1"})
		expect(asked)
		var full struct{ Attempts []struct{ Error string } }
		c.ask(c.nodes[0], http.MethodGet, "/deliveries/"+c.list("cloud", "Pending")[0].ID, "", http.StatusOK, &full)
		if len(full.Attempts) != 1 || full.Attempts[0].Error != "HandshakeRefused" {
			t.Errorf("the attempts are %+v", full.Attempts)
		}
		mu.Lock()
		agrees = true
		mu.Unlock()
		c.until("2026-01-12 10:05")
		expect(asked, event)
		c.event("lab.created", map[string]any{"id": "lab_2"})
		expect(event)
		c.apply(strings.ReplaceAll(manifest, "/hook", "/other"))
		for _, n := range c.nodes {
			n.engine.Use(endpoints{c.table}, true)
		}
		c.event("lab.created", map[string]any{"id": "lab_3"})
		expect(asked, event)
	})
}
