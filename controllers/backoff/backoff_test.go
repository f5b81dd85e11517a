package backoff

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestRateLimiter(t *testing.T) {
	t.Parallel()
	limiter, request := RateLimiter(), reconcile.Request{}
	last := time.Duration(0)
	for range 20 {
		delay := limiter.When(request)
		if delay < last || delay > longest {
			t.Fatalf("%v after %v", delay, last)
		}
		last = delay
	}
	if last != longest {
		t.Errorf("it ends at %v, want %v", last, longest)
	}
	limiter.Forget(request)
	if delay := limiter.When(request); delay != first {
		t.Errorf("%v after a success, want %v", delay, first)
	}
}
