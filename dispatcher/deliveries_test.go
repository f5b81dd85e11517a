package dispatcher

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/apiserver"
	"github.com/clinikapi/eventflow/dispatcher/limits"
)

// TestDiscoveryNeedsNoStore: a dispatcher that waits for its store harms no cluster.
func TestDiscoveryNeedsNoStore(t *testing.T) {
	t.Parallel()
	s := &deliveriesServer{}
	s.watches, s.endWatches = context.WithCancel(t.Context())
	defer s.endWatches()
	s.handler.Store(apiserver.NewDiscovery(false))
	const group = "/apis/deliveries.webhooks.clinikapi.com"
	for path, want := range map[string]int{
		"/apis": http.StatusOK, group: http.StatusOK, group + "/v1alpha1": http.StatusOK, "/openapi/v2": http.StatusOK, "/readyz": http.StatusOK,
		group + "/v1alpha1/namespaces/a/webhookdeliveries":            http.StatusServiceUnavailable,
		group + "/v1alpha1/namespaces/a/webhookdeliveries?watch=true": http.StatusServiceUnavailable,
	} {
		answer := httptest.NewRecorder()
		s.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		if answer.Code != want {
			t.Errorf("%s: %d, want %d", path, answer.Code, want)
		}
	}
	if group != "/apis/"+v1alpha1.GroupVersion.Group {
		t.Error("the group has another name")
	}
}

// TestConnectionsAreSplit: what the deliveries API may hold, publishers may not, unless somebody says how many they may.
func TestConnectionsAreSplit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options                       Options
		connections                   int
		wantDeliveries, wantPublisher int
	}{
		"off":            {Options{}, 1000, 0, 1000},
		"a quarter":      {Options{DeliveriesListen: ":1"}, 1000, 250, 750},
		"at most":        {Options{DeliveriesListen: ":1"}, 100_000, deliveriesConnections, 100_000 - deliveriesConnections},
		"publishers set": {Options{DeliveriesListen: ":1", MaxConnections: 400}, 400, 100, 400},
		"small":          {Options{DeliveriesListen: ":1"}, 2, 1, 1},
	} {
		shares := limits.Limits{Connections: test.connections}
		if got := test.options.splitConnections(&shares); got != test.wantDeliveries || shares.Connections != test.wantPublisher {
			t.Errorf("%s: %d and %d, want %d and %d", name, got, shares.Connections, test.wantDeliveries, test.wantPublisher)
		}
	}
}
