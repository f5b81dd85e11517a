package trigger

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// waitingAPI takes each event, and has a delivery of it to each subscription, which nobody attempts.
func waitingAPI(t *testing.T, event string, subscriptions ...string) *httptest.Server {
	t.Helper()
	delivery := func(subscription string) map[string]any {
		return map[string]any{"id": "dlv_" + subscription, "event": map[string]any{"id": event, "type": "lab.created"}, "subscription": subscription,
			"state": "Pending", "nextAttemptTime": "2026-01-15T09:15:00Z"}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/namespaces/clinic-a/events", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(map[string]any{"id": event, "deliveries": len(subscriptions)})
	})
	mux.HandleFunc("GET /v1/namespaces/clinic-a/deliveries", func(w http.ResponseWriter, _ *http.Request) {
		var items []any
		for _, name := range subscriptions {
			items = append(items, delivery(name))
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"items": items})
	})
	mux.HandleFunc("GET /v1/namespaces/clinic-a/deliveries/{id}", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(delivery(strings.TrimPrefix(r.PathValue("id"), "dlv_")))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

// pulling is an API server that knows one subscription, "billing", by its mode.
func pulling(t *testing.T, mode v1alpha1.DeliveryMode) *httptest.Server {
	t.Helper()
	const group = "/apis/webhooks.clinikapi.com/v1alpha1/namespaces/clinic-a/webhooksubscriptions"
	sub := v1alpha1.WebhookSubscription{}
	sub.APIVersion, sub.Kind, sub.Name, sub.Namespace = v1alpha1.GroupVersion.String(), "WebhookSubscription", "billing", "clinic-a"
	sub.Spec.Delivery.Mode = mode
	list := v1alpha1.WebhookSubscriptionList{Items: []v1alpha1.WebhookSubscription{sub}}
	list.APIVersion, list.Kind = sub.APIVersion, "WebhookSubscriptionList"
	mux := http.NewServeMux()
	for path, answer := range map[string]any{"/billing": sub, "": list} {
		mux.HandleFunc("GET "+group+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			text, err := json.Marshal(answer)
			if err != nil {
				t.Error(err)
			}
			_, _ = w.Write(text)
		})
	}
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	return server
}

// TestPulledIsNotFollowed: what waits for its consumer is no failure, and nothing to wait for. Anything else without an attempt
// is waited for, and the error names what may be the cause.
func TestPulledIsNotFollowed(t *testing.T) {
	t.Parallel()
	const left, unattempted = "Pending: it waits until the consumer pulls, and is not followed", "a delivery was not attempted within 2s: see whether its subscription is suspended, or its consumer pulls"
	for name, test := range map[string]struct {
		mode          v1alpha1.DeliveryMode
		subscriptions []string
		args          []string
		timeout       string
		says, wantErr string
	}{
		"pulled":                {v1alpha1.DeliveryPull, []string{"billing"}, []string{"billing"}, "1m", left, ""},
		"of all that match":     {v1alpha1.DeliveryPull, []string{"billing"}, nil, "1m", left, ""},
		"beside one with a URL": {v1alpha1.DeliveryPull, []string{"billing", "other"}, nil, "2s", left, unattempted},
		"not pulled":            {v1alpha1.DeliveryPush, []string{"billing"}, []string{"billing"}, "2s", "Pending", unattempted},
		"without a cluster":     {v1alpha1.DeliveryPull, []string{"billing"}, []string{"billing"}, "2s", "Pending", unattempted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := waitingAPI(t, "evt-1", test.subscriptions...)
			kube := pulling(t, test.mode)
			if name == "without a cluster" {
				kube.Close()
			}
			args := append([]string{"--type", "lab.created", "--id", "evt-1", "--server", server.URL, "--timeout", test.timeout, "--kubeconfig", kubeconfig(t, kube.URL)}, test.args...)
			out, err := call(t, args...)
			if !strings.Contains(out, test.says) {
				t.Errorf("the output lacks %q:\n%s", test.says, out)
			}
			if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(err.Error(), test.wantErr)) {
				t.Errorf("the error is %v, want %q", err, test.wantErr)
			}
		})
	}
}
