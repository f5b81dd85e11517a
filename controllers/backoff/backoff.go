// Package backoff is when a controller tries again what failed.
package backoff

import (
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	first = 50 * time.Millisecond
	// longest is short enough that everything is as it should be half a minute after the API server came back.
	longest = 30 * time.Second
)

// RateLimiter delays an object that failed by first, and then by twice the delay before, at most longest, until it
// succeeds.
func RateLimiter() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](first, longest)
}
