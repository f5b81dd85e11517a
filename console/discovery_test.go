package console

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/clinikapi/eventflow/console/deliveries"
)

// TestDiscoveryChooses: the aggregated API is used where the cluster has it. Discovery that fails changes nothing, and is not
// asked by each page.
func TestDiscoveryChooses(t *testing.T) {
	t.Parallel()
	var status, asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/deliveries.webhooks.clinikapi.com/v1alpha1" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		asked.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(server.Close)
	api, err := deliveries.NewAPI(&rest.Config{Host: server.URL}, server.Client(), deliveries.None{})
	if err != nil {
		t.Fatal(err)
	}
	c := clocktesting.NewFakePassiveClock(time.Now())
	d := &discovery{clock: c}
	for i, step := range []struct {
		status    int64
		after     time.Duration
		want      bool
		wantAsked int64
	}{
		{404, 0, false, 1},
		{200, discoveredFor / 2, false, 1},
		{200, discoveredFor, true, 2},
		{503, discoveredFor, true, 3},
		{503, discoveredFor / 2, true, 3},
		{401, discoveredFor, true, 4},
		{404, 0, false, 5}, // what was said to one user did not count
	} {
		status.Store(step.status)
		c.SetTime(c.Now().Add(step.after))
		_, got := d.choose(t.Context(), api, deliveries.None{}).(*deliveries.API)
		if got != step.want || asked.Load() != step.wantAsked {
			t.Errorf("step %d: chosen %v after %d requests, want %v after %d", i, got, asked.Load(), step.want, step.wantAsked)
		}
	}
}
