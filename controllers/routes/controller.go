package routes

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/backoff"
	"github.com/clinikapi/eventflow/controllers/names"
	"github.com/clinikapi/eventflow/controllers/status"
)

// FieldOwner owns the count of subscriptions in a dispatcher's status.
const FieldOwner = "eventflow-manager-routes"

const (
	// flushInterval is the least time between two writes of a table.
	flushInterval = time.Second
	// flushPause bounds the time after a slow flush, which otherwise is as long as the flush was, so that a large table
	// that changes all the time takes half of the time at most.
	flushPause = 5 * time.Second
)

// Reconciler writes routing tables.
type Reconciler struct {
	Client client.Client
	Tables *Tables
}

// SetupWithManager starts the reconciler with the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("routes").
		For(&v1alpha1.WebhookDispatcher{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Secret{}, r.secretEvents(), builder.OnlyMetadata).
		WatchesRawSource(r.Tables.Changed.Source()).
		WithOptions(controller.Options{RateLimiter: backoff.RateLimiter()}).
		Complete(r)
}

// secretEvents notes which Secrets of a table someone else may have written. It queues nothing itself.
func (r *Reconciler) secretEvents() handler.EventHandler {
	note := func(object client.Object, resourceVersion string) {
		if key, ok := names.Dispatcher(object); ok && key.Namespace == object.GetNamespace() {
			r.Tables.suspect(key, object.GetName(), resourceVersion)
		}
	}
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, _ queue) { note(e.Object, e.Object.GetResourceVersion()) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, _ queue) {
			note(e.ObjectOld, e.ObjectNew.GetResourceVersion()) // its labels may be gone
			note(e.ObjectNew, e.ObjectNew.GetResourceVersion())
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, _ queue) { note(e.Object, "") },
	}
}

// Reconcile writes what changed in one dispatcher's table.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	d := &v1alpha1.WebhookDispatcher{}
	err := r.Client.Get(ctx, req.NamespacedName, d)
	switch {
	case apierrors.IsNotFound(err):
		r.Tables.drop(req.NamespacedName)
		return reconcile.Result{}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("get dispatcher: %w", err)
	case !d.DeletionTimestamp.IsZero(): // the Secrets are being collected
		return reconcile.Result{}, nil
	}
	table, err := r.Tables.Of(ctx, d)
	if err != nil {
		return reconcile.Result{}, err
	}
	now := time.Now()
	if wait := table.next.Sub(now); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if wait := table.gather(now); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if err := table.paced(ctx, r.Tables.storage(d)); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, r.updateStatus(ctx, d, table.Len())
}

// paced flushes, and says when the table may be flushed again.
func (t *Table) paced(ctx context.Context, to storage) error {
	before, start := t.written, time.Now()
	err := t.flush(ctx, to)
	if t.written != before {
		t.next = time.Now().Add(max(min(max(flushInterval, time.Since(start)), flushPause), t.pause(time.Now())))
	}
	return err
}

// updateStatus counts the subscriptions in the dispatcher's status.
func (r *Reconciler) updateStatus(ctx context.Context, d *v1alpha1.WebhookDispatcher, n int) error {
	ShowTable(d.Namespace, d.Name, n)
	if d.Status.Subscriptions != nil && int(*d.Status.Subscriptions) == n {
		return nil
	}
	count := int32(n)
	return status.Apply(ctx, r.Client, d, client.FieldOwner(FieldOwner), &v1alpha1.WebhookDispatcherStatus{Subscriptions: &count})
}
