package replay

import (
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// TestCallsAreBounded: however many tenants replay at once, and whatever the dispatcher's other clients may, the API server is asked
// so often and no more.
func TestCallsAreBounded(t *testing.T) {
	t.Parallel()
	client, err := NewClient(&rest.Config{Host: "127.0.0.1:1", QPS: 200, Burst: 400, RateLimiter: flowcontrol.NewFakeAlwaysRateLimiter()}, "eventflow-system/default")
	if err != nil {
		t.Fatal(err)
	}
	limiter, accepted := client.(*apiClient).plain.GetRateLimiter(), 0
	for range 1000 {
		if limiter.TryAccept() {
			accepted++
		}
	}
	if limiter.QPS() != callsPerSecond || accepted > callBurst+1 {
		t.Errorf("%v requests a second, %d at once", limiter.QPS(), accepted)
	}
}
