package subscription

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/backoff"
	"github.com/clinikapi/eventflow/controllers/routes"
)

const (
	// marksAtOnce is how many subscriptions of a dispatcher are looked at each marksPause because the dispatcher became
	// available, or stopped being so. Each costs a write.
	marksAtOnce = 100
	marksPause  = time.Second
)

// Marks makes the subscriptions of a dispatcher that stopped being available say so, and those of one that is available
// again: once that lasted for the HoldOff, some at a time, one of each namespace in turn.
type Marks struct {
	// Client reads from the cache.
	Client client.Client
	// Review triggers the controller that reconciles subscriptions.
	Review *routes.Trigger
	// Now is the clock.
	Now func() time.Time
}

// SetupWithManager starts it with the manager.
func (m *Marks) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("availability").
		For(&v1alpha1.WebhookDispatcher{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: availabilityChanged})).
		WithOptions(controller.Options{RateLimiter: backoff.RateLimiter()}).
		Complete(m)
}

func availabilityChanged(e event.UpdateEvent) bool {
	before := meta.FindStatusCondition(e.ObjectOld.(*v1alpha1.WebhookDispatcher).Status.Conditions, v1alpha1.ConditionAvailable)
	after := meta.FindStatusCondition(e.ObjectNew.(*v1alpha1.WebhookDispatcher).Status.Conditions, v1alpha1.ConditionAvailable)
	if before == nil || after == nil {
		return before != after
	}
	return before.Status != after.Status || before.Reason != after.Reason
}

// Reconcile asks for the subscriptions of one dispatcher that say something else than the dispatcher is.
func (m *Marks) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	d := &v1alpha1.WebhookDispatcher{}
	err := m.Client.Get(ctx, req.NamespacedName, d)
	if apierrors.IsNotFound(err) { // its subscriptions are reconciled because it is gone
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("get dispatcher: %w", err)
	}
	does, wait := serviceOf(d, m.Now())
	if does == unsettled {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	list := &v1alpha1.WebhookSubscriptionList{}
	named := client.MatchingFields{routes.DispatcherField: routes.Key(v1alpha1.DispatcherReference{Namespace: d.Namespace, Name: d.Name})}
	if err := m.Client.List(ctx, list, named, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("list the subscriptions of a dispatcher: %w", err)
	}
	next := nextMarks(list.Items, does, marksAtOnce)
	if len(next) == 0 {
		return reconcile.Result{}, nil
	}
	m.Review.Add(next...)
	return reconcile.Result{RequeueAfter: marksPause}, nil
}

// nextMarks are up to n of the subscriptions that say something else than their dispatcher does: one of each namespace in
// turn.
func nextMarks(subscriptions []v1alpha1.WebhookSubscription, does service, n int) []client.ObjectKey {
	waiting := map[string][]client.ObjectKey{}
	var namespaces []string
	for i := range subscriptions {
		sub := &subscriptions[i]
		if !differs(sub, does) {
			continue
		}
		if waiting[sub.Namespace] == nil {
			namespaces = append(namespaces, sub.Namespace)
		}
		waiting[sub.Namespace] = append(waiting[sub.Namespace], client.ObjectKeyFromObject(sub))
	}
	var next []client.ObjectKey
	for round := 0; len(next) < n; round++ {
		before := len(next)
		for _, namespace := range namespaces {
			if keys := waiting[namespace]; round < len(keys) && len(next) < n {
				next = append(next, keys[round])
			}
		}
		if len(next) == before {
			break
		}
	}
	return next
}

// differs reports whether a subscription's condition Ready does not follow from what its dispatcher does.
func differs(sub *v1alpha1.WebhookSubscription, does service) bool {
	ready := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || sub.Status.ObservedGeneration != sub.Generation {
		return false // it is reconciled anyway
	}
	accepted := meta.IsStatusConditionTrue(sub.Status.Conditions, v1alpha1.ConditionAccepted)
	switch does {
	case down:
		programmed := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionProgrammed)
		claims := programmed != nil && programmed.ObservedGeneration == sub.Generation && programmed.Status == metav1.ConditionTrue
		return accepted && (claims && ready.Reason != v1alpha1.ReasonDispatcherUnavailable || ready.Reason == v1alpha1.ReasonDispatcherSuspended)
	case stopped:
		return accepted && ready.Reason != v1alpha1.ReasonDispatcherSuspended
	case serving:
		return marked(sub)
	default:
		return false
	}
}
