package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
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
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// What the manager may do in all namespaces. What it may write beside statuses is said in grants.go and bindings.go. It
// creates no right that it has not itself, but for the two ClusterRoles that it may bind.
//
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookdispatchers,verbs=list;watch
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookdispatchers/status,verbs=get;patch
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookdispatchers,verbs=list;watch,roleName=eventflow-tenant-namespace
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookdispatchers/status,verbs=get;patch,roleName=eventflow-tenant-namespace

// growAgain is how long after a claim could not grow it is tried again: its class may allow it by then.
const growAgain = 5 * time.Minute

// Reconciler reconciles WebhookDispatchers.
type Reconciler struct {
	// Client reads from the cache.
	Client client.Client
	// Reader reads from the API server.
	Reader client.Reader
	// Image is what dispatchers run.
	Image Image
	// Version of Event Flow that is in the image; "" if that is not known.
	Version string
	// Grants knows where the manager may make dispatchers.
	Grants *Grants
	// Namespaces are those that the manager works on, with Roles alone; none if it works on all.
	Namespaces []string
	// DeliveriesAPI lets dispatchers that ask for it serve the deliveries API.
	DeliveriesAPI bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	watches *watches
	kept    keptCertificates
}

// SetupWithManager starts the reconciler with the manager.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	made, err := ctrl.NewControllerManagedBy(mgr).
		Named("dispatcher").
		For(&v1alpha1.WebhookDispatcher{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.Funcs{UpdateFunc: statusChanged}))).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.connecting), builder.OnlyMetadata).
		WithOptions(controller.Options{RateLimiter: backoff.RateLimiter()}).
		Build(r)
	if err != nil {
		return err
	}
	r.watches = &watches{manager: mgr, controller: made, namespaces: make(map[string]cache.Cache)}
	return errors.Join(
		r.watches.watch(r.Grants.home),
		r.watches.watchBindings(r.shared(), handler.EnqueueRequestsFromMapFunc(r.every)),
	)
}

// statusChanged reports whether the pods have something else to say, their count changed, or the deliveries API came or went: what was written from an older
// cache is made good when the cache shows it. The rest of the status is the manager's own.
func statusChanged(e event.UpdateEvent) bool {
	older, newer := &e.ObjectOld.(*v1alpha1.WebhookDispatcher).Status, &e.ObjectNew.(*v1alpha1.WebhookDispatcher).Status
	return older.Store != newer.Store || older.Volume != newer.Volume || older.Version != newer.Version ||
		older.SettingsGeneration != newer.SettingsGeneration ||
		deliveriesRegistered(e.ObjectOld.(*v1alpha1.WebhookDispatcher)) != deliveriesRegistered(e.ObjectNew.(*v1alpha1.WebhookDispatcher)) || !ptr.Equal(older.Replicas, newer.Replicas)
}

// Reconcile brings what one WebhookDispatcher becomes, and its status, up to date.
func (r *Reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	d := &v1alpha1.WebhookDispatcher{}
	err := r.Client.Get(ctx, req.NamespacedName, d)
	switch {
	case apierrors.IsNotFound(err):
		r.kept.forget(req.NamespacedName)
		_, err := r.bind(ctx)
		return reconcile.Result{}, err
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("get dispatcher: %w", err)
	case !d.DeletionTimestamp.IsZero(): // what it owns goes before it, and must not be made again
		return reconcile.Result{}, nil
	}
	granted, err := r.Grants.Granted(ctx, d.Namespace)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !granted { // nothing of it may be read, either
		o := observation{dispatcher: d, grant: r.Grants.command(d.Namespace)}
		return reconcile.Result{RequeueAfter: grantAwaited}, errors.Join(r.withdraw(ctx, d.Namespace), r.updateStatus(ctx, o))
	}
	if err := r.watches.watch(d.Namespace); err != nil {
		return reconcile.Result{}, err
	}
	return r.carryOut(ctx, d)
}

// carryOut makes what a dispatcher becomes, where the manager may.
func (r *Reconciler) carryOut(ctx context.Context, d *v1alpha1.WebhookDispatcher) (reconcile.Result, error) {
	r.settleDeliveries(d)
	o, err := r.observe(ctx, d)
	if err != nil {
		return reconcile.Result{}, err
	}
	if err := r.renew(ctx, &o); apierrors.IsConflict(err) { // the cache is behind, or somebody was faster
		return reconcile.Result{RequeueAfter: time.Second}, nil
	} else if err != nil {
		return reconcile.Result{}, err
	}
	if o.renewing {
		return reconcile.Result{RequeueAfter: renewalAwaited}, r.updateStatus(ctx, o)
	}
	again, certificateErr := r.ensureCertificates(ctx, &o)
	o.certificateMissing = certificateErr != nil
	applyErr := errors.Join(certificateErr, r.ensureKey(ctx, d), r.apply(ctx, &o), r.removeDeliveries(ctx, d))
	// As it is now: an older one would say that what was just applied is up already.
	if o.deployment, err = r.deployment(ctx, d); err != nil {
		return reconcile.Result{}, errors.Join(applyErr, err)
	}
	result := reconcile.Result{}
	if o.fixed != "" {
		result.RequeueAfter = growAgain
	}
	if until := again.Sub(r.now()); !again.IsZero() && (result.RequeueAfter == 0 || until < result.RequeueAfter) {
		result.RequeueAfter = max(until, time.Second)
	}
	return result, errors.Join(applyErr, r.updateStatus(ctx, o))
}

// observe reads what a dispatcher became, from the API server: an older claim or Deployment that the cache does not show
// yet must not be taken for none.
func (r *Reconciler) observe(ctx context.Context, d *v1alpha1.WebhookDispatcher) (observation, error) {
	o := observation{dispatcher: d, version: r.Version}
	var err error
	if o.claim, err = r.claim(ctx, d); err != nil {
		return o, err
	}
	if o.connection, err = r.connection(ctx, d); err != nil {
		return o, err
	}
	o.settings = settingsGeneration(d, r.secretMetadata(ctx, d.Namespace, settings.SecretName(d.Name)))
	if o.deployment, err = r.deployment(ctx, d); err == nil {
		settleIngest(&o)
	}
	return o, err
}

// claim returns the claim of a dispatcher's embedded store, nil if there is none. One that was left behind by another
// dispatcher of this name does not concern a dispatcher with a database.
func (r *Reconciler) claim(ctx context.Context, d *v1alpha1.WebhookDispatcher) (*corev1.PersistentVolumeClaim, error) {
	if d.Spec.Store.Postgres != nil {
		return nil, nil
	}
	found := &corev1.PersistentVolumeClaim{}
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: names.Claim(d.Name)}, found)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get claim: %w", err)
	}
	return found, nil
}

// deployment returns a dispatcher's Deployment, nil if there is none.
func (r *Reconciler) deployment(ctx context.Context, d *v1alpha1.WebhookDispatcher) (*appsv1.Deployment, error) {
	found := &appsv1.Deployment{}
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: names.Workload(d.Name)}, found)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get deployment: %w", err)
	}
	return found, nil
}

// apply writes all that the dispatcher becomes. One that is refused does not hold up the others.
func (r *Reconciler) apply(ctx context.Context, o *observation) error {
	wanted, err := objects(*o, r.Image)
	if err != nil {
		return fmt.Errorf("build the objects of a dispatcher: %w", err)
	}
	errs := []error{r.clearRollingUpdate(ctx, o)}
	for _, object := range wanted {
		err := r.applyOne(ctx, o.dispatcher.Namespace, object)
		if err == nil {
			continue
		}
		err = fmt.Errorf("apply %s %s: %w", object.kind, object.name, err)
		if apierrors.IsInvalid(err) && object.replaced != nil {
			err = errors.Join(err, r.remove(ctx, object.replaced, client.ObjectKey{Namespace: o.dispatcher.Namespace, Name: object.name}))
		} else if isRefusal(err) {
			if object.kind == "PersistentVolumeClaim" && o.claim != nil { // it cannot grow, and works as it is
				o.fixed = err.Error()
				continue
			}
			o.refused = cmp.Or(o.refused, err.Error())
		}
		errs = append(errs, err)
	}
	missing, err := r.bind(ctx)
	if o.refused == "" {
		o.refused = missing
	}
	return errors.Join(append(errs, err)...)
}

// applyOne applies an object that does not stand.
func (r *Reconciler) applyOne(ctx context.Context, namespace string, object object) error {
	wanted, err := digested(object.configuration)
	if err != nil || r.applied(ctx, namespace, wanted) {
		return err
	}
	return r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(wanted), client.FieldOwner(names.FieldOwner), client.ForceOwnership)
}

// isRefusal reports whether the API server will go on saying no.
func isRefusal(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) }

// clearRollingUpdate removes what strategy Recreate must not have and apply cannot take away: the parameters of a rolling
// update, which someone set.
func (r *Reconciler) clearRollingUpdate(ctx context.Context, o *observation) error {
	existing := o.deployment
	if o.dispatcher.Spec.Store.Postgres != nil || existing == nil || existing.Spec.Strategy.RollingUpdate == nil {
		return nil
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}`))
	if err := r.Client.Patch(ctx, existing, patch, client.FieldOwner(names.FieldOwner)); err != nil {
		return fmt.Errorf("set the strategy of a deployment back: %w", err)
	}
	return nil
}

// remove deletes an object that the API server may have already deleted.
func (r *Reconciler) remove(ctx context.Context, object client.Object, key client.ObjectKey) error {
	object.SetName(key.Name)
	object.SetNamespace(key.Namespace)
	if err := r.Client.Delete(ctx, object); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s: %w", key.Name, err)
	}
	return nil
}

func (r *Reconciler) updateStatus(ctx context.Context, o observation) error {
	d := o.dispatcher
	conditions := status.Conditions(d, d.Status.Conditions, decide(o)...)
	wanted := v1alpha1.WebhookDispatcherStatus{
		ObservedGeneration: d.Generation,
		PublishURL:         cmp.Or(o.publishURL, d.Status.PublishURL),
		PublishCA:          o.publishCA,
		Replicas:           ptr.To(pods(o.deployment)),
		Selector:           metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: names.Selector(d.Name)}),
		Conditions:         conditions,
	}
	if d.Status.ObservedGeneration == wanted.ObservedGeneration && d.Status.PublishURL == wanted.PublishURL && d.Status.PublishCA == wanted.PublishCA &&
		ptr.Equal(d.Status.Replicas, wanted.Replicas) && d.Status.Selector == wanted.Selector && status.Stands(d.Status.Conditions, conditions, decided...) {
		return nil
	}
	return status.Apply(ctx, r.Client, d, names.FieldOwner, &wanted)
}

// pods counts those of a Deployment, which may be nil.
func pods(deployment *appsv1.Deployment) int32 {
	if deployment == nil {
		return 0
	}
	return deployment.Status.Replicas
}
