package subscription

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
	"github.com/clinikapi/eventflow/controllers/routes"
	"github.com/clinikapi/eventflow/controllers/status"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhooksubscriptions,verbs=get;list;watch
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhooksubscriptions/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get
// +kubebuilder:rbac:groups="",resources=services,verbs=list;watch
//
// In each namespace that a manager with Roles alone works on, the same, and its one namespace in place of all:
//
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhooksubscriptions,verbs=get;list;watch,roleName=eventflow-tenant-namespace
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhooksubscriptions/status,verbs=patch,roleName=eventflow-tenant-namespace
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get,roleName=eventflow-tenant-namespace
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch,roleName=eventflow-tenant-namespace
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get,roleName=eventflow-tenant-namespace
// +kubebuilder:rbac:groups="",resources=services,verbs=list;watch,roleName=eventflow-tenant-namespace

// Reconciler reconciles WebhookSubscriptions.
type Reconciler struct {
	// Client reads from the cache, of Secrets and Namespaces metadata alone.
	Client client.Client
	// Reader reads from the API server.
	Reader client.Reader
	// Tables is where accepted subscriptions go.
	Tables *routes.Tables
	// Namespaces knows what namespaces are.
	Namespaces Namespaces
	// SecretLabel is what Secrets must have.
	SecretLabel SecretLabel

	decided             sync.Map // client.ObjectKey → decision
	awaits              awaits
	secrets, configMaps *valueReader
}

// configMapsChecked is how often a ConfigMap that a subscription names is looked at: it is not watched, because clusters have
// many ConfigMaps that change all the time.
const configMapsChecked = 2 * time.Minute

// forbiddenChecked is how often it is asked for a subscription that the manager may not read any more.
const forbiddenChecked = 10 * time.Minute

// decision is a verdict with what it follows from.
type decision struct {
	inputs  inputs
	verdict verdict
}

// Reconcile brings one subscription's entry in the routing table, and its status, up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	sub := &v1alpha1.WebhookSubscription{}
	err := r.Client.Get(ctx, req.NamespacedName, sub)
	switch {
	case apierrors.IsNotFound(err):
		return r.gone(ctx, req.NamespacedName)
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("get subscription: %w", err)
	case !sub.DeletionTimestamp.IsZero():
		r.forget(req.NamespacedName)
		return reconcile.Result{}, nil
	}
	v, takeover, err := r.decide(ctx, sub)
	if err != nil {
		return reconcile.Result{}, err
	}
	d, err := r.dispatcherOf(ctx, sub)
	if err != nil {
		return reconcile.Result{}, err
	}
	awaited := awaited(sub, v, d, takeover)
	result := reconcile.Result{}
	if sub.Spec.TLS.CAConfigMapRef != nil {
		result.RequeueAfter = configMapsChecked
	}
	if wait := r.awaits.put(sub, v, awaited, takeover.Written, time.Now()); wait > 0 {
		result.RequeueAfter = wait
		return result, nil
	}
	return result, r.updateStatus(ctx, sub, observe(sub, v, d, awaited, time.Now()), signing(sub, v, d, takeover, time.Now()))
}

// gone takes a deleted subscription out of its table. That cancels its deliveries for good, so the API server is asked:
// a cache may not yet show what the table holds already.
func (r *Reconciler) gone(ctx context.Context, key client.ObjectKey) (reconcile.Result, error) {
	err := r.Reader.Get(ctx, key, &v1alpha1.WebhookSubscription{})
	switch {
	case apierrors.IsNotFound(err):
		r.forget(key)
		return reconcile.Result{}, nil
	case apierrors.IsForbidden(err): // in a namespace that is not worked on any more: nobody says that it is gone
		return reconcile.Result{RequeueAfter: forbiddenChecked}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("make sure that a subscription is gone: %w", err)
	}
	return reconcile.Result{}, nil // the cache will tell of it
}

func (r *Reconciler) forget(key client.ObjectKey) {
	r.decided.Delete(key)
	r.awaits.forget(key)
	r.Tables.Clear(key, nil)
}

// decide finds what becomes of a subscription, and how far its dispatcher is with that.
func (r *Reconciler) decide(ctx context.Context, sub *v1alpha1.WebhookSubscription) (verdict, routes.Takeover, error) {
	in, err := r.gather(ctx, sub)
	if err != nil {
		return verdict{}, routes.Takeover{}, err
	}
	v, err := r.settle(ctx, sub, in)
	if err != nil || in.table == nil {
		return v, routes.Takeover{}, err
	}
	return v, in.table.Takeover(routing.Identity(sub)), nil
}

// settle finds the verdict, and brings the table up to date. If nothing changed that matters, it is what it was.
func (r *Reconciler) settle(ctx context.Context, sub *v1alpha1.WebhookSubscription, in circumstances) (v verdict, err error) {
	key := client.ObjectKeyFromObject(sub)
	if known, found := r.decided.Load(key); found && known.(decision).inputs == in.inputs {
		return known.(decision).verdict, nil
	}
	home := client.ObjectKey{Namespace: sub.Spec.DispatcherRef.Namespace, Name: sub.Spec.DispatcherRef.Name}
	r.Tables.Clear(key, &home)
	v, kept := keep(sub, in)
	if !kept {
		v, err = r.place(ctx, sub, in)
	}
	if err != nil {
		return verdict{}, err
	}
	if in.table != nil { // it is one that does not fit, or is not one any more
		in.misfit = in.table.Misfit(routing.Identity(sub), routing.Generation(sub))
	}
	r.decided.Store(key, decision{inputs: in.inputs, verdict: v})
	return v, nil
}

// keep finds the verdict on a subscription whose entry in the table was compiled from what is there now, by an earlier
// manager: its Secrets need not be read.
func keep(sub *v1alpha1.WebhookSubscription, in circumstances) (verdict, bool) {
	if in.table == nil || !in.selected {
		return verdict{}, false
	}
	entry := in.table.Keep(client.ObjectKeyFromObject(sub), routing.Identity(sub), routing.Generation(sub), in.sources)
	if entry == nil {
		return verdict{}, false
	}
	return verdict{endpoint: entry.Origin(), hint: in.hint(entry), keys: entry.SigningKeys()}, true
}

// place compiles a subscription and puts it into its table; if it is not accepted, its last valid entry stays there.
func (r *Reconciler) place(ctx context.Context, sub *v1alpha1.WebhookSubscription, in circumstances) (verdict, error) {
	entry, rejection, err := r.compile(ctx, sub, in)
	if err != nil {
		return verdict{}, err
	}
	if entry != nil {
		in.granted.apply(entry)
		entry.Sources = in.sources
		entry.Salt(in.table.Get(entry.Identity))
		err := in.table.Put(entry, in.granted.limits(sub))
		if err == nil {
			return verdict{endpoint: entry.Origin(), hint: in.hint(entry), keys: entry.SigningKeys()}, nil
		}
		refused, ok := errors.AsType[*routing.Rejection](err)
		if !ok {
			return verdict{}, err
		}
		rejection = refused
	}
	rejection = completed(rejection, in.lacking(sub.Namespace, sub.Spec.URL))
	if in.table != nil {
		if err := hold(in, sub, rejection.Reason); err != nil {
			return verdict{}, err
		}
	}
	return verdict{rejection: rejection, endpoint: routing.Origin(sub)}, nil
}

// compile returns an entry, or why there is none.
func (r *Reconciler) compile(ctx context.Context, sub *v1alpha1.WebhookSubscription, in circumstances) (*routing.Entry, *routing.Rejection, error) {
	d := in.dispatcher
	if rejection := admit(sub, d, in.selected); rejection != nil {
		return nil, rejection, nil
	}
	rules, err := policy(d)
	if err != nil {
		return nil, &routing.Rejection{
			Reason:  v1alpha1.ReasonDispatcherNotFound,
			Message: fmt.Sprintf("WebhookDispatcher %s in namespace %s is not valid; see its conditions", d.Name, d.Namespace),
		}, nil
	}
	rules.Bounds = in.granted.bounds
	return routing.Compile(sub, r.sources(ctx, sub.Namespace), rules)
}

// admit tells why a dispatcher, nil if there is none, does not take a subscription.
func admit(sub *v1alpha1.WebhookSubscription, d *v1alpha1.WebhookDispatcher, selected bool) *routing.Rejection {
	ref := sub.Spec.DispatcherRef
	switch {
	case d == nil:
		return &routing.Rejection{
			Reason:  v1alpha1.ReasonDispatcherNotFound,
			Message: fmt.Sprintf("WebhookDispatcher %q not found in namespace %q: create it, or create the subscription anew with another spec.dispatcherRef", ref.Name, ref.Namespace),
		}
	case !selected:
		return &routing.Rejection{
			Reason: v1alpha1.ReasonNamespaceNotSelected,
			Message: fmt.Sprintf("WebhookDispatcher %q in namespace %q does not take subscriptions of namespace %q: label the namespace as spec.subscriptions.namespaceSelector of the dispatcher says, or change that",
				ref.Name, ref.Namespace, sub.Namespace),
		}
	}
	return nil
}

// hold keeps a subscription's last valid entry in the table, its deliveries waiting.
func hold(in circumstances, sub *v1alpha1.WebhookSubscription, reason string) error {
	identity := routing.Identity(sub)
	held := routing.Hold(in.table.Get(identity), routing.Generation(sub), reason)
	if held == nil {
		in.table.Clear(client.ObjectKeyFromObject(sub), identity)
		return nil
	}
	in.granted.apply(held)
	return in.table.Put(held, routes.Limits{})
}

// updateStatus writes the manager's part of the status, if it is not there already.
func (r *Reconciler) updateStatus(ctx context.Context, sub *v1alpha1.WebhookSubscription, o observation, keys v1alpha1.SigningStatus) error {
	wanted := v1alpha1.WebhookSubscriptionStatus{
		ObservedGeneration: sub.Generation,
		Endpoint:           o.verdict.endpoint,
		Signing:            keys,
		Conditions:         status.Conditions(sub, sub.Status.Conditions, decide(o)...),
	}
	if sub.Status.ObservedGeneration == wanted.ObservedGeneration && sub.Status.Endpoint == wanted.Endpoint && sameSigning(sub.Status.Signing, keys) && status.Stands(sub.Status.Conditions, wanted.Conditions, decided...) {
		return nil
	}
	return status.Apply(ctx, r.Client, sub, names.FieldOwner, &wanted)
}
