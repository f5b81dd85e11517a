package deliveriesapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
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
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/backoff"
	"github.com/clinikapi/eventflow/controllers/certificates"
	"github.com/clinikapi/eventflow/controllers/names"
	"github.com/clinikapi/eventflow/controllers/status"
)

// fieldOwner owns the condition DeliveriesAPIReady, and nothing else.
const fieldOwner = names.FieldOwner + "-deliveries"

// Reconciler registers the deliveries API and takes it back. There is one API, so that each request is the same.
type Reconciler struct {
	// Client reads from the cache.
	Client client.Client
	// Reader reads from the API server.
	Reader client.Reader
	// Allowed lets the API be registered. Without, what is registered is taken back.
	Allowed bool
	// Home is the namespace that the manager is installed in.
	Home string
	// Scoped is of a manager with Roles alone, which cannot watch namespaces.
	Scoped bool
	// Timing is how often to look.
	Timing Timing
	// Dial connects to the pods; nil is a dialer of package net.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	prober  *prober
	history history
	said    string // of what was logged last
}

// SetupWithManager starts the reconciler with the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.Timing = r.Timing.complete()
	if r.Now == nil {
		r.Now = time.Now
	}
	if r.Dial == nil {
		r.Dial = (&net.Dialer{Timeout: probeTimeout}).DialContext
	}
	cluster, err := kubernetes.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	r.prober = &prober{cluster: cluster, dial: r.Dial}
	request := reconcile.Request{NamespacedName: client.ObjectKey{Name: Name}}
	one := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{request} })
	// Without any dispatcher, there may still be what an earlier manager registered.
	first := source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(request)
		return nil
	})
	made := ctrl.NewControllerManagedBy(mgr).
		Named("deliveriesapi").
		Watches(&v1alpha1.WebhookDispatcher{}, one, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(first).
		WithOptions(controller.Options{RateLimiter: backoff.RateLimiter()})
	if !r.Scoped {
		made.Watches(&corev1.Namespace{}, one, builder.OnlyMetadata, builder.WithPredicates(predicate.Funcs{
			CreateFunc: func(event.CreateEvent) bool { return false },
			UpdateFunc: func(e event.UpdateEvent) bool {
				return e.ObjectOld.GetDeletionTimestamp().IsZero() && !e.ObjectNew.GetDeletionTimestamp().IsZero()
			},
			DeleteFunc: func(event.DeleteEvent) bool { return false },
		}))
	}
	return made.Complete(r)
}

// Reconcile looks at everything once. A failure does not make it look later: the next look may have to take the API back.
func (r *Reconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	list := &v1alpha1.WebhookDispatcherList{}
	if err := r.Client.List(ctx, list); err != nil {
		return reconcile.Result{}, fmt.Errorf("list dispatchers: %w", err)
	}
	asks, began := asking(list.Items), r.Now()
	answers, err := r.serve(ctx, asks, began)
	if len(asks) == 0 && !r.Allowed && apierrors.IsForbidden(err) { // nothing was ever asked for
		err = nil
	}
	errs := []error{err}
	if err == nil || answers != nil {
		for i := range list.Items {
			errs = append(errs, r.say(ctx, &list.Items[i], answers))
		}
	}
	err = errors.Join(errs...)
	switch {
	case len(asks) == 0:
		return reconcile.Result{}, err
	case err != nil:
		log.FromContext(ctx).Error(err, "Looking at the deliveries API failed; it is tried again")
	}
	return reconcile.Result{RequeueAfter: r.history.next(r.Now(), r.Timing)}, nil
}

// serve registers the API of the dispatcher that it belongs to, or takes it back, and returns what each dispatcher is told.
func (r *Reconciler) serve(ctx context.Context, asks []*v1alpha1.WebhookDispatcher, began time.Time) (map[client.ObjectKey]answer, error) {
	chosen, answers := choose(asks, r.Allowed, r.ending(ctx))
	found, err := r.registration(ctx)
	if apierrors.IsForbidden(err) && r.Allowed {
		tell(answers, chosen, rightsMissing)
		return answers, nil
	}
	if apierrors.IsForbidden(err) { // it could have registered nothing
		return answers, nil
	}
	if err != nil {
		return nil, err
	}
	if found.own && (chosen == nil || !found.is(client.ObjectKeyFromObject(chosen))) {
		if err := r.takeBack(ctx, found); err != nil {
			return nil, err // what was said before stays: the pods must go on to answer
		}
		log.FromContext(ctx).Info("Took the deliveries API back: nobody asks for it, or another dispatcher", "dispatcher", found.of)
		found = registration{}
	}
	binding := &rbacv1.ClusterRoleBinding{}
	err = r.Reader.Get(ctx, client.ObjectKey{Name: names.DeliveriesRole}, binding)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		binding = nil
	case err != nil:
		return nil, fmt.Errorf("get ClusterRoleBinding: %w", err)
	default:
		err = r.bind(ctx, binding, asks)
	}
	switch {
	case chosen == nil:
		r.history = history{}
		if binding == nil {
			err = nil
		}
		return answers, err
	case found.foreign():
		tell(answers, chosen, no(v1alpha1.ReasonRegisteredByOthers, "APIService "+Name+" is not the manager's: delete it, and the manager registers its own"))
		return answers, err
	case binding == nil: // who may not bind has no right to register, but cannot leave a dead API, either
		err = nil
		if found.own {
			err = r.takeBack(ctx, found)
		}
		tell(answers, chosen, rightsMissing)
		return answers, err
	}
	a, stepErr := r.step(ctx, chosen, found, binding, began)
	tell(answers, chosen, a)
	return answers, errors.Join(err, stepErr)
}

// rightsMissing says what to do where config/components/deliveries-api was not applied.
var rightsMissing = no(v1alpha1.ReasonRightsMissing, "the manager may not register the API: apply config/components/deliveries-api")

func tell(answers map[client.ObjectKey]answer, d *v1alpha1.WebhookDispatcher, a answer) {
	if d != nil {
		answers[client.ObjectKeyFromObject(d)] = a
	}
}

// ending reports whether a namespace, or the manager's own, is being deleted, as far as the cache knows.
func (r *Reconciler) ending(ctx context.Context) func(namespace string) bool {
	is := func(namespace string) bool {
		found := &metav1.PartialObjectMetadata{}
		found.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
		return r.Client.Get(ctx, client.ObjectKey{Name: namespace}, found) == nil && !found.DeletionTimestamp.IsZero()
	}
	if r.Scoped {
		return func(string) bool { return false }
	}
	home := is(r.Home)
	return func(namespace string) bool { return home || is(namespace) }
}

// step looks at the API of one dispatcher, and does what follows. An answer is given even if that failed.
func (r *Reconciler) step(ctx context.Context, d *v1alpha1.WebhookDispatcher, found registration, binding *rbacv1.ClusterRoleBinding, began time.Time) (answer, error) {
	if r.history.of != d.UID {
		r.history = history{of: d.UID}
	}
	key := client.ObjectKeyFromObject(d)
	bundle, err := r.bundle(ctx, key)
	if err != nil {
		return r.unsure(found), err
	}
	s := seen{registered: found.own}
	var reason, message string
	var probeErr error
	switch {
	case found.own:
		s.available = found.available()
		reason, message, probeErr = r.prober.reached(ctx, key)
	case len(bundle) == 0:
		reason, message = v1alpha1.ReasonCertificatePending, "Secret "+names.Deliveries(d.Name)+" is being made"
	default:
		reason, message, probeErr = r.prober.preflight(ctx, key, bundle)
	}
	s.reached = reason == ""
	r.log(ctx, reason, probeErr)
	if ctx.Err() != nil { // the manager ends: that nobody answered says nothing
		return r.unsure(found), ctx.Err()
	}
	switch r.history.judge(s, began, r.Timing) {
	case register:
		if err := r.put(ctx, found, r.wanted(key, bundle, binding.UID)); err != nil {
			return no(v1alpha1.ReasonRightsMissing, "the API server refuses the APIService: see the manager's log"), err
		}
		log.FromContext(ctx).Info("Registered the deliveries API", "dispatcher", key)
		return registering, nil
	case keep:
		if len(bundle) == 0 { // somebody deleted it, and a new one is on its way
			return served, nil
		}
		return served, r.put(ctx, found, r.wanted(key, bundle, binding.UID))
	case doubt:
		err := error(nil)
		if len(bundle) > 0 { // a bundle that lacks the pods' certificate may be the cause
			err = r.put(ctx, found, r.wanted(key, bundle, binding.UID))
		}
		if reason == "" {
			return registering, err
		}
		return answer{metav1.ConditionUnknown, reason, message}, err
	case wait:
	case remove:
		if err := r.takeBack(ctx, found); err != nil {
			return r.unsure(found), err
		}
		r.history.removed(r.Now(), r.Timing)
		log.FromContext(ctx).Info("Took the deliveries API back: its pods are out of reach", "dispatcher", key)
	}
	if reason == "" {
		reason, message = v1alpha1.ReasonUnreachable, "the API server did not say that it reaches the pods: the API comes back by itself"
	}
	return no(reason, message), nil
}

var (
	served      = answer{metav1.ConditionTrue, v1alpha1.ReasonServed, "the cluster serves the dispatcher's deliveries"}
	registering = answer{metav1.ConditionUnknown, v1alpha1.ReasonRegistering, "the API is registered; the API server has not said that it reaches the pods"}
)

// unsure is what is known when looking failed.
func (r *Reconciler) unsure(found registration) answer {
	if found.own {
		return registering
	}
	return no(v1alpha1.ReasonUnreachable, "looking at the pods failed: see the manager's log")
}

// bundle reads what the pods' certificate is verified by; nothing if there is no certificate yet.
func (r *Reconciler) bundle(ctx context.Context, d client.ObjectKey) ([]byte, error) {
	secret := &corev1.Secret{}
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: names.Deliveries(d.Name)}, secret)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get the certificate of the deliveries API: %w", err)
	}
	return secret.Data[certificates.BundleKey], nil
}

// log says once why the pods do not answer.
func (r *Reconciler) log(ctx context.Context, reason string, err error) {
	if reason != r.said && err != nil {
		log.FromContext(ctx).Info("The pods of the deliveries API do not answer", "reason", reason, "error", err.Error())
	}
	r.said = reason
}

// say writes the condition of one dispatcher, or removes it.
func (r *Reconciler) say(ctx context.Context, d *v1alpha1.WebhookDispatcher, answers map[client.ObjectKey]answer) error {
	a, asked := answers[client.ObjectKeyFromObject(d)]
	existing := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionDeliveriesAPIReady)
	if !asked && existing == nil || !d.DeletionTimestamp.IsZero() {
		return nil
	}
	var fields struct {
		Conditions []metav1.Condition `json:"conditions,omitempty"`
	}
	if asked {
		fields.Conditions = status.Conditions(d, d.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionDeliveriesAPIReady, Status: a.status, Reason: a.reason, Message: a.message,
		})
	}
	if status.Stands(d.Status.Conditions, fields.Conditions, v1alpha1.ConditionDeliveriesAPIReady) {
		return nil
	}
	return status.Apply(ctx, r.Client, d, fieldOwner, &fields)
}
