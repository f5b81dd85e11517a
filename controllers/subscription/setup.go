package subscription

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/backoff"
	"github.com/clinikapi/eventflow/controllers/fair"
	"github.com/clinikapi/eventflow/controllers/routes"
	"github.com/clinikapi/eventflow/controllers/status"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// secretField indexes subscriptions by the names of the Secrets that they name.
const secretField = "spec.secrets"

// serviceField indexes those that have one by the name of their Service.
const serviceField = "spec.serviceRef"

// concurrency is how many subscriptions are reconciled at once: most of the time goes into waiting for the API server. What
// they may ask of it is bounded by the requests of the whole manager.
const concurrency = 32

// SetupWithManager starts the reconciler with the manager.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	r.secrets, r.configMaps = newValueReader(r.SecretLabel.only(fetchSecrets(r.Reader))), newValueReader(fetchConfigMaps(r.Reader))
	for field, extract := range map[string]client.IndexerFunc{
		routes.DispatcherField: func(o client.Object) []string {
			return []string{routes.Key(o.(*v1alpha1.WebhookSubscription).Spec.DispatcherRef)}
		},
		serviceField: func(o client.Object) []string {
			if ref := o.(*v1alpha1.WebhookSubscription).Spec.ServiceRef; ref.Name != "" {
				return []string{ref.Name}
			}
			return nil
		},
		secretField: func(o client.Object) []string { return routing.SecretNames(o.(*v1alpha1.WebhookSubscription)) },
	} {
		if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.WebhookSubscription{}, field, extract); err != nil {
			return fmt.Errorf("index subscriptions by %s: %w", field, err)
		}
	}
	controlled := ctrl.NewControllerManagedBy(mgr).
		Named("subscription").
		For(&v1alpha1.WebhookSubscription{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: matters})).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.naming), builder.OnlyMetadata).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(r.leadingTo), builder.WithPredicates(predicate.Funcs{UpdateFunc: leadsElsewhere})).
		Watches(&v1alpha1.WebhookDispatcher{}, handler.EnqueueRequestsFromMapFunc(r.deliveredBy), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.WebhookDispatcher{}, handler.Funcs{UpdateFunc: r.reported}).
		WatchesRawSource(r.Tables.Review.Source()).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency, RateLimiter: backoff.RateLimiter(), NewQueue: fair.NewQueue})
	if !r.alone() {
		controlled.Watches(&v1alpha1.WebhookDestination{}, handler.EnqueueRequestsFromMapFunc(r.approving), builder.WithPredicates(predicate.GenerationChangedPredicate{}))
	}
	if polled, ok := r.Namespaces.(*PolledNamespaces); ok {
		polled.changed = func(ctx context.Context, namespace client.Object) {
			r.Tables.Review.Add(keys(r.within(ctx, namespace))...)
		}
		if err := mgr.Add(polled); err != nil {
			return fmt.Errorf("add what looks at namespaces: %w", err)
		}
	} else {
		controlled.Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.within), builder.OnlyMetadata, builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	return controlled.Complete(r)
}

// reported has those subscriptions looked at that waited for what a dispatcher reports. It queues nothing itself.
func (r *Reconciler) reported(_ context.Context, e event.UpdateEvent, _ workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	r.Tables.Report(e.ObjectNew.(*v1alpha1.WebhookDispatcher))
}

// keys are those that requests are for.
func keys(requests []reconcile.Request) []client.ObjectKey {
	found := make([]client.ObjectKey, len(requests))
	for i := range requests {
		found[i] = requests[i].NamespacedName
	}
	return found
}

// matters reports whether the status, or the entry in the table, may follow from an update. Counts of deliveries do not:
// they change all the time.
func matters(e event.UpdateEvent) bool {
	before, after := e.ObjectOld.(*v1alpha1.WebhookSubscription), e.ObjectNew.(*v1alpha1.WebhookSubscription)
	return before.Generation != after.Generation ||
		before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() ||
		!maps.Equal(before.Labels, after.Labels) && routing.ReadsLabels(&after.Spec) ||
		before.Status.ObservedGeneration != after.Status.ObservedGeneration ||
		before.Status.ProgrammedGeneration != after.Status.ProgrammedGeneration ||
		before.Status.Endpoint != after.Status.Endpoint ||
		len(before.Status.Conditions) != len(after.Status.Conditions) ||
		!status.Contains(before.Status.Conditions, after.Status.Conditions)
}

// naming finds the subscriptions that name a Secret.
func (r *Reconciler) naming(ctx context.Context, secret client.Object) []reconcile.Request {
	return r.find(ctx, client.InNamespace(secret.GetNamespace()), client.MatchingFields{secretField: secret.GetName()})
}

// leadingTo finds the subscriptions that name a Service.
func (r *Reconciler) leadingTo(ctx context.Context, service client.Object) []reconcile.Request {
	return r.find(ctx, client.InNamespace(service.GetNamespace()), client.MatchingFields{serviceField: service.GetName()})
}

// leadsElsewhere reports whether an update of a Service matters to subscriptions.
func leadsElsewhere(e event.UpdateEvent) bool {
	return routing.ServiceVersion(e.ObjectOld.(*corev1.Service)) != routing.ServiceVersion(e.ObjectNew.(*corev1.Service))
}

// within finds the subscriptions of a namespace.
func (r *Reconciler) within(ctx context.Context, namespace client.Object) []reconcile.Request {
	return r.find(ctx, client.InNamespace(namespace.GetName()))
}

// deliveredBy finds the subscriptions that name a dispatcher.
func (r *Reconciler) deliveredBy(ctx context.Context, d client.Object) []reconcile.Request {
	ref := v1alpha1.DispatcherReference{Namespace: d.GetNamespace(), Name: d.GetName()}
	return r.find(ctx, client.MatchingFields{routes.DispatcherField: routes.Key(ref)})
}

func (r *Reconciler) find(ctx context.Context, options ...client.ListOption) []reconcile.Request {
	list := &v1alpha1.WebhookSubscriptionList{}
	if err := r.Client.List(ctx, list, slices.Concat(options, []client.ListOption{client.UnsafeDisableDeepCopy})...); err != nil {
		log.FromContext(ctx).Error(err, "could not list the subscriptions that an event concerns")
		return nil
	}
	requests := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		requests[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return requests
}
