package replay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
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
	"github.com/clinikapi/eventflow/controllers/names"
	"github.com/clinikapi/eventflow/controllers/status"
)

// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookreplays,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookreplays/status,verbs=patch
//
// In each namespace that a manager with Roles alone works on, the same:
//
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookreplays,verbs=get;list;watch;delete,roleName=eventflow-tenant-namespace
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookreplays/status,verbs=patch,roleName=eventflow-tenant-namespace
//
// A dispatcher finds those with a part of its own, and writes how far that is:
//
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookreplays,verbs=list;watch,roleName=eventflow-dispatcher-status
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookreplays/status,verbs=get;patch,roleName=eventflow-dispatcher-status

const (
	// maxSubscriptions is how many one replay may be about, as the schema says.
	maxSubscriptions = 256
	// looked is how often a replay whose dispatcher is missing is looked at.
	looked = 30 * time.Second
	// concurrency is how many are reconciled at once.
	concurrency = 2
)

// Reconciler reconciles WebhookReplays.
type Reconciler struct {
	// Client reads from the cache.
	Client client.Client
	// Reader reads from the API server.
	Reader client.Reader
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// SetupWithManager starts the reconciler with the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	if r.Now == nil {
		r.Now = time.Now
	}
	created := predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(event.DeleteEvent) bool { return false },
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("replay").
		For(&v1alpha1.WebhookReplay{}).
		Watches(&v1alpha1.WebhookSubscription{}, handler.EnqueueRequestsFromMapFunc(r.awaiting), builder.WithPredicates(created)).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency, RateLimiter: backoff.RateLimiter(), NewQueue: fair.NewQueue}).
		Complete(r)
}

// awaiting finds the replays that a new subscription may be the first for.
func (r *Reconciler) awaiting(ctx context.Context, subscription client.Object) (requests []reconcile.Request) {
	list := &v1alpha1.WebhookReplayList{}
	if err := r.Client.List(ctx, list, client.InNamespace(subscription.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "could not list the replays that await a subscription")
		return nil
	}
	for i := range list.Items {
		if len(list.Items[i].Status.Subscriptions) == 0 {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// Reconcile brings one replay's status up to date, or deletes it.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	replay := &v1alpha1.WebhookReplay{}
	if err := r.Client.Get(ctx, req.NamespacedName, replay); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !replay.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil
	}
	o, err := r.observe(ctx, replay)
	if err != nil {
		return reconcile.Result{}, err
	}
	wanted := wantedOf(o)
	if err := r.update(ctx, replay, wanted); err != nil {
		return reconcile.Result{}, err
	}
	if wanted.CompletionTime != nil {
		return r.expire(ctx, replay, wanted.CompletionTime.Time)
	}
	return reconcile.Result{RequeueAfter: again(o)}, nil
}

// observe looks at what the status of a replay follows from.
func (r *Reconciler) observe(ctx context.Context, replay *v1alpha1.WebhookReplay) (*observation, error) {
	o := &observation{replay: replay, subscriptions: replay.Status.Subscriptions, now: r.Now()}
	if len(o.subscriptions) == 0 && !ptr.Deref(replay.Spec.Suspend, false) {
		if err := r.choose(ctx, o); err != nil {
			return nil, err
		}
	}
	for _, name := range dispatchersOf(o.subscriptions) {
		namespace, name, _ := strings.Cut(name, "/")
		key := client.ObjectKey{Namespace: namespace, Name: name}
		err := r.Client.Get(ctx, key, &v1alpha1.WebhookDispatcher{})
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("get dispatcher: %w", err)
		}
		if err != nil {
			o.missing = append(o.missing, key.String())
		}
	}
	return o, nil
}

// choose selects the subscriptions that a replay is about. It asks the API server whether that was done before: a cache may not show
// it yet, and it is done once.
func (r *Reconciler) choose(ctx context.Context, o *observation) error {
	list := &v1alpha1.WebhookSubscriptionList{}
	if err := r.Client.List(ctx, list, client.InNamespace(o.replay.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list subscriptions: %w", err)
	}
	o.subscriptions, o.tooMany = selected(&o.replay.Spec, list.Items)
	if len(o.subscriptions) == 0 {
		return nil
	}
	now := &v1alpha1.WebhookReplay{}
	if err := r.Reader.Get(ctx, client.ObjectKeyFromObject(o.replay), now); err != nil {
		return fmt.Errorf("get replay: %w", err)
	}
	if now.UID != o.replay.UID {
		return fmt.Errorf("get replay: another one has its name") // the cache will tell of it
	}
	if len(now.Status.Subscriptions) > 0 {
		now.ManagedFields = nil
		o.replay, o.subscriptions, o.tooMany = now, now.Status.Subscriptions, false
	}
	return nil
}

// selected returns the subscriptions that a spec is about, by name, each with its dispatcher; none if there are too many.
func selected(spec *v1alpha1.WebhookReplaySpec, all []v1alpha1.WebhookSubscription) (found []v1alpha1.ReplaySubscription, tooMany bool) {
	for i := range all {
		sub := &all[i]
		if !selects(spec, sub) {
			continue
		}
		ref := sub.Spec.DispatcherRef
		found = append(found, v1alpha1.ReplaySubscription{Name: sub.Name, Dispatcher: ref.Namespace + "/" + ref.Name})
	}
	if len(found) > maxSubscriptions {
		return nil, true
	}
	slices.SortFunc(found, func(a, b v1alpha1.ReplaySubscription) int { return strings.Compare(a.Name, b.Name) })
	return found, false
}

func selects(spec *v1alpha1.WebhookReplaySpec, sub *v1alpha1.WebhookSubscription) bool {
	if spec.SubscriptionRef.Name != "" {
		return sub.Name == spec.SubscriptionRef.Name
	}
	for key, value := range spec.Selector.MatchLabels {
		if has, ok := sub.Labels[key]; !ok || has != string(value) {
			return false
		}
	}
	return true
}

// wantedOf is the manager's part of the status.
func wantedOf(o *observation) fields {
	was := &o.replay.Status
	wanted := fields{
		ObservedGeneration: o.replay.Generation, Conditions: status.Conditions(o.replay, was.Conditions, decide(o)...),
		Subscriptions: o.subscriptions, StartTime: was.StartTime, CompletionTime: was.CompletionTime,
	}
	if len(was.Subscriptions) > 0 {
		wanted.Subscriptions = was.Subscriptions
	}
	wanted.Selected, wanted.Done, wanted.PassedOver, wanted.Remaining = sum(was, wanted.Subscriptions)
	if len(wanted.Subscriptions) > 0 && wanted.StartTime == nil {
		wanted.StartTime = ptr.To(metav1.NewTime(o.now))
	}
	if finished(o) {
		wanted.Remaining = ptr.To(int64(0))
		if wanted.CompletionTime == nil {
			wanted.CompletionTime = ptr.To(metav1.NewTime(o.now))
		}
	}
	return wanted
}

// update writes what is to be in the status, if it is not there.
func (r *Reconciler) update(ctx context.Context, replay *v1alpha1.WebhookReplay, wanted fields) error {
	was := &replay.Status
	stands := fields{
		ObservedGeneration: was.ObservedGeneration, Conditions: wanted.Conditions, Subscriptions: was.Subscriptions, Selected: was.Selected, Done: was.Done,
		PassedOver: was.PassedOver, Remaining: was.Remaining, StartTime: was.StartTime, CompletionTime: was.CompletionTime,
	}
	if equality.Semantic.DeepEqual(stands, wanted) && status.Stands(was.Conditions, wanted.Conditions, decided...) {
		return nil
	}
	return status.Apply(ctx, r.Client, replay, names.FieldOwner, &wanted)
}

// again is when a replay is to be looked at although nothing changed; 0 if not.
func again(o *observation) time.Duration {
	switch left := o.replay.CreationTimestamp.Add(awaited).Sub(o.now); {
	case len(o.missing) > 0:
		return looked
	case len(o.subscriptions) == 0 && left > 0:
		return left
	}
	return 0
}

// expire deletes a replay that is finished for as long as its TTL, unless it is in Git.
func (r *Reconciler) expire(ctx context.Context, replay *v1alpha1.WebhookReplay, finished time.Time) (reconcile.Result, error) {
	if replay.Spec.TTLSecondsAfterFinished == nil {
		return reconcile.Result{}, nil
	}
	ttl := time.Duration(*replay.Spec.TTLSecondsAfterFinished) * time.Second
	if left := finished.Add(ttl).Sub(r.Now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	now := &v1alpha1.WebhookReplay{} // the cache has no annotations
	if err := r.Reader.Get(ctx, client.ObjectKeyFromObject(replay), now); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if now.UID != replay.UID || now.Status.CompletionTime == nil || fromGit(now) {
		return reconcile.Result{}, nil
	}
	err := r.Client.Delete(ctx, now, client.Preconditions{UID: &now.UID, ResourceVersion: &now.ResourceVersion})
	return reconcile.Result{}, client.IgnoreNotFound(err)
}

// fromGit reports whether Argo CD or Flux would make the object again, by the marks that they leave.
func fromGit(o client.Object) bool {
	if o.GetAnnotations()["argocd.argoproj.io/tracking-id"] != "" {
		return true
	}
	for _, label := range []string{"argocd.argoproj.io/instance", "kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"} {
		if o.GetLabels()[label] != "" {
			return true
		}
	}
	return false
}
