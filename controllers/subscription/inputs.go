package subscription

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/routes"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// inputs is all that a verdict follows from. Equal inputs make equal verdicts.
type inputs struct {
	subscription         types.UID // another one may have taken its name
	generation           int64
	dispatcher           types.UID // "" if there is none
	dispatcherGeneration int64
	selected             bool
	secrets              string // names and resource versions, as far as the cache knows
	table                *routes.Table
	misfit               bool
}

// gather finds a subscription's inputs, and the dispatcher they are of, from the cache alone.
func (r *Reconciler) gather(ctx context.Context, sub *v1alpha1.WebhookSubscription) (inputs, *v1alpha1.WebhookDispatcher, error) {
	in := inputs{subscription: sub.UID, generation: sub.Generation}
	d := &v1alpha1.WebhookDispatcher{}
	key := client.ObjectKey{Namespace: sub.Spec.DispatcherRef.Namespace, Name: sub.Spec.DispatcherRef.Name}
	if err := r.Client.Get(ctx, key, d); client.IgnoreNotFound(err) != nil {
		return in, nil, fmt.Errorf("get dispatcher: %w", err)
	} else if err != nil || !d.DeletionTimestamp.IsZero() {
		return in, nil, nil
	}
	in.dispatcher, in.dispatcherGeneration = d.UID, d.Generation
	var err error
	if in.selected, err = r.selects(ctx, d, sub.Namespace); err != nil {
		return in, nil, err
	}
	if in.secrets, err = r.secretVersions(ctx, sub); err != nil {
		return in, nil, err
	}
	if in.table, err = r.Tables.Of(ctx, d); err != nil {
		return in, nil, err
	}
	in.misfit = in.table.Misfit(routing.Identity(sub), routing.Generation(sub))
	return in, d, nil
}

// selects tells whether a dispatcher takes subscriptions of a namespace. A selector that is no selector selects none.
func (r *Reconciler) selects(ctx context.Context, d *v1alpha1.WebhookDispatcher, namespace string) (bool, error) {
	selector, err := metav1.LabelSelectorAsSelector(&d.Spec.Subscriptions.NamespaceSelector)
	if err != nil {
		return false, nil
	}
	if selector.Empty() {
		return true, nil
	}
	object := metadata("Namespace")
	if err := r.Client.Get(ctx, client.ObjectKey{Name: namespace}, object); err != nil {
		return false, fmt.Errorf("get namespace: %w", err)
	}
	return selector.Matches(labels.Set(object.Labels)), nil
}

func (r *Reconciler) secretVersions(ctx context.Context, sub *v1alpha1.WebhookSubscription) (string, error) {
	var versions strings.Builder
	for _, name := range routing.SecretNames(sub) {
		version, err := r.secretVersion(ctx, client.ObjectKey{Namespace: sub.Namespace, Name: name})
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&versions, "%s=%s\n", name, version)
	}
	return versions.String(), nil
}

// secretVersion is what the cache knows of a Secret.
func (r *Reconciler) secretVersion(ctx context.Context, key client.ObjectKey) (string, error) {
	secret := metadata("Secret")
	if err := r.Client.Get(ctx, key, secret); client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("get metadata of Secret %s: %w", key.Name, err)
	}
	return versionOf(secret), nil
}

func metadata(kind string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return object
}

// readSecret reads a Secret of a namespace from the API server: beyond a few seconds, what it holds is kept nowhere but in
// the table.
func (r *Reconciler) readSecret(ctx context.Context, namespace string) routing.Secrets {
	return func(name string) (map[string][]byte, bool, error) {
		key := client.ObjectKey{Namespace: namespace, Name: name}
		version, err := r.secretVersion(ctx, key)
		if err != nil {
			return nil, false, err
		}
		return r.secrets.get(ctx, key, version)
	}
}

// policy is what a dispatcher allows.
func policy(d *v1alpha1.WebhookDispatcher) (routing.Policy, error) {
	catalog, err := event.NewCatalog(d.Spec.EventResources...)
	if err != nil {
		return routing.Policy{}, err
	}
	allow := d.Spec.Egress.AllowHTTP
	return routing.Policy{Catalog: catalog, AllowHTTP: allow != nil && *allow}, nil
}
