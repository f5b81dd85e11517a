package fair

import (
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// queue is a work queue whose order is that of a storage.
type queue struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	order *storage
}

var _ priorityqueue.PriorityQueue[reconcile.Request] = (*queue)(nil)

// NewQueue returns a controller's queue, to be used as controller.Options.NewQueue.
func NewQueue(controller string, limiter workqueue.TypedRateLimiter[reconcile.Request]) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	order := newStorage()
	return &queue{
		order: order,
		TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[reconcile.Request]{
			Name: controller,
			DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[reconcile.Request]{
				Name: controller,
				Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[reconcile.Request]{
					Name:  controller,
					Queue: order,
				}),
			}),
		}),
	}
}

// AddWithOpts adds items. A priority below zero is that of what was listed, and not changed; others are the same.
func (q *queue) AddWithOpts(o priorityqueue.AddOpts, items ...reconcile.Request) {
	for _, item := range items {
		switch {
		case o.RateLimited:
			q.AddRateLimited(item)
		case o.After > 0:
			q.AddAfter(item, o.After)
		default:
			if o.Priority != nil && *o.Priority < 0 {
				q.order.mark(item)
			}
			q.Add(item)
		}
	}
}

// GetWithPriority waits for the next item. The priority is always 0: an item that is tried again is news.
func (q *queue) GetWithPriority() (item reconcile.Request, priority int, shutdown bool) {
	item, shutdown = q.Get()
	return item, 0, shutdown
}
