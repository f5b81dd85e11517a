package dispatcher

import (
	"context"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	selection "k8s.io/apimachinery/pkg/labels"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// Workloads are the kinds that a dispatcher becomes in its namespace.
func Workloads() []client.Object {
	return []client.Object{
		&appsv1.Deployment{}, &corev1.PersistentVolumeClaim{}, &corev1.Service{}, &corev1.ServiceAccount{}, &corev1.ConfigMap{},
		&policyv1.PodDisruptionBudget{}, &rbacv1.Role{}, &rbacv1.RoleBinding{},
	}
}

// watches start the controller's watches: in the manager's own namespace at once, in another when a dispatcher is there
// that the manager may make. The manager could not watch all namespaces: it may not list there.
type watches struct {
	manager    ctrl.Manager
	controller controller.Controller

	mu         sync.Mutex
	namespaces map[string]cache.Cache
}

// of returns the cache of what dispatchers of a namespace become, nil if that is not watched.
func (w *watches) of(namespace string) cache.Cache {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.namespaces[namespace]
}

// byLabel enqueues the dispatcher that an object was made for.
func byLabel() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []reconcile.Request {
		key, ok := names.Dispatcher(object)
		if !ok {
			return nil
		}
		return []reconcile.Request{{NamespacedName: key}}
	})
}

// watch makes sure that what dispatchers of a namespace become is watched. A watch whose grant is taken back fails, and
// goes on when it is given again.
func (w *watches) watch(namespace string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, found := w.namespaces[namespace]; found {
		return nil
	}
	own := cache.Config{LabelSelector: selection.SelectorFromSet(selection.Set{names.ManagedByLabel: names.ManagedBy})}
	kinds, err := w.cache(cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: own}})
	if err != nil {
		return err
	}
	for _, kind := range Workloads() {
		if err := w.from(kinds, kind, byLabel()); err != nil {
			return err
		}
	}
	w.namespaces[namespace] = kinds
	return nil
}

// watchBindings watches the shared bindings, each by its name.
func (w *watches) watchBindings(bindings []sharedBinding, all handler.EventHandler) error {
	for _, binding := range bindings {
		var kind client.Object = &rbacv1.ClusterRoleBinding{}
		named := cache.ByObject{Field: fields.OneTermEqualSelector("metadata.name", binding.role)}
		if binding.namespace != "" {
			kind, named.Namespaces = &rbacv1.RoleBinding{}, map[string]cache.Config{binding.namespace: {}}
		}
		one, err := w.cache(cache.Options{ByObject: map[client.Object]cache.ByObject{kind: named}})
		if err != nil {
			return err
		}
		if err := w.from(one, kind, all); err != nil {
			return err
		}
	}
	return nil
}

// cache returns a cache that runs with the manager.
func (w *watches) cache(options cache.Options) (cache.Cache, error) {
	options.Scheme, options.Mapper, options.HTTPClient = w.manager.GetScheme(), w.manager.GetRESTMapper(), w.manager.GetHTTPClient()
	options.DefaultTransform = func(in any) (any, error) {
		if object, ok := in.(metav1.Object); ok {
			OwnFields(object)
		}
		return in, nil
	}
	made, err := cache.New(w.manager.GetConfig(), options)
	if err != nil {
		return nil, fmt.Errorf("make a cache: %w", err)
	}
	if err := w.manager.Add(made); err != nil {
		return nil, fmt.Errorf("start a cache: %w", err)
	}
	return made, nil
}

// from watches the metadata of a kind.
func (w *watches) from(c cache.Cache, kind client.Object, to handler.EventHandler) error {
	gvk, err := apiutil.GVKForObject(kind, w.manager.GetScheme())
	if err != nil {
		return fmt.Errorf("find the kind of an object: %w", err)
	}
	metadata := &metav1.PartialObjectMetadata{}
	metadata.SetGroupVersionKind(gvk)
	if err := w.controller.Watch(source.Kind[client.Object](c, metadata, to)); err != nil {
		return fmt.Errorf("watch %s: %w", gvk.Kind, err)
	}
	return nil
}

// every enqueues all dispatchers.
func (r *Reconciler) every(ctx context.Context, _ client.Object) []reconcile.Request {
	list := &v1alpha1.WebhookDispatcherList{}
	if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	requests := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		requests[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return requests
}
