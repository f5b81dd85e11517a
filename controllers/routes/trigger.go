package routes

import (
	"context"
	"sync"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Trigger asks a controller to reconcile objects for a reason that is not an event of the API server. It never blocks,
// and objects that wait already are not queued twice.
type Trigger struct {
	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[reconcile.Request]
	early []client.ObjectKey
}

// Source is what a controller watches to be triggered.
func (t *Trigger) Source() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		t.mu.Lock()
		t.queue = queue
		early := t.early
		t.early = nil
		t.mu.Unlock()
		t.Add(early...)
		return nil
	})
}

// Add asks for the objects with the given keys.
func (t *Trigger) Add(keys ...client.ObjectKey) {
	t.mu.Lock()
	queue := t.queue
	if queue == nil {
		t.early = append(t.early, keys...)
	}
	t.mu.Unlock()
	if queue == nil {
		return
	}
	for _, key := range keys {
		queue.Add(reconcile.Request{NamespacedName: key})
	}
}
