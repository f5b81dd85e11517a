package dispatcher

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// DefaultName is the dispatcher that subscriptions use if they name none.
const DefaultName = "default"

// marker is a ConfigMap beside the default dispatcher that says it was taken care of: who deletes the dispatcher does
// not want it back.
const marker = "eventflow-default-dispatcher"

// createdBy is an annotation on what the manager made for the start, and leaves to others.
const createdBy = "webhooks.clinikapi.com/created-by"

// tryAgain is how long to wait after a failure: the namespace may still be on its way.
const tryAgain = 2 * time.Second

// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookdispatchers,verbs=create;patch,resourceNames=default,namespace=eventflow-system
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=create,namespace=eventflow-system
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get,resourceNames=eventflow-default-dispatcher,namespace=eventflow-system

// Default creates the dispatcher that an installation starts with: once, and only if there is none at all.
type Default struct {
	// Client writes.
	Client client.Client
	// Reader reads from the API server.
	Reader client.Reader
	// Namespace that the dispatcher is created in.
	Namespace string
	// Alone makes dispatchers of other namespaces not count, where the manager may not look for them.
	Alone bool
}

// NeedLeaderElection makes one manager of several do it.
func (d *Default) NeedLeaderElection() bool { return true }

// Start creates the dispatcher, or finds that there is nothing to do. It tries again until it could tell.
func (d *Default) Start(ctx context.Context) error {
	logger := log.FromContext(ctx).WithValues("namespace", d.Namespace, "dispatcher", DefaultName)
	err := wait.PollUntilContextCancel(ctx, tryAgain, true, func(ctx context.Context) (bool, error) {
		if err := d.ensure(ctx); err != nil && ctx.Err() == nil {
			logger.Error(err, "could not create the default dispatcher, trying again")
			return false, nil
		}
		return true, nil
	})
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (d *Default) ensure(ctx context.Context) error {
	mark := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: marker}}
	err := d.Reader.Get(ctx, client.ObjectKeyFromObject(mark), mark)
	if !apierrors.IsNotFound(err) {
		return err
	}
	existing := &v1alpha1.WebhookDispatcherList{}
	options := []client.ListOption{client.Limit(1)}
	if d.Alone {
		options = append(options, client.InNamespace(d.Namespace))
	}
	if err := d.Reader.List(ctx, existing, options...); err != nil {
		return fmt.Errorf("list dispatchers: %w", err)
	}
	if len(existing.Items) == 0 {
		if err := d.create(ctx); err != nil {
			return err
		}
	}
	mark.Labels = map[string]string{names.ManagedByLabel: names.ManagedBy}
	mark.Data = map[string]string{"about": "The manager has taken care of the dispatcher \"" + DefaultName + "\". Delete this and restart the manager to have it created again."}
	if err := d.Client.Create(ctx, mark); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("remember that the default dispatcher was created: %w", err)
	}
	return nil
}

// create applies a dispatcher with no spec, so that no field of the spec has an owner: whoever applies a manifest of it
// later takes nothing from anybody. The annotation is there to own something: the API server takes the fields of an object
// that has no owner at all for somebody's. A dispatcher that was made in the meantime stays as it is.
func (d *Default) create(ctx context.Context) error {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("WebhookDispatcher"))
	object.SetNamespace(d.Namespace)
	object.SetName(DefaultName)
	object.SetAnnotations(map[string]string{createdBy: names.FieldOwner})
	if err := d.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(names.FieldOwner)); err != nil {
		return fmt.Errorf("create dispatcher: %w", err)
	}
	return nil
}
