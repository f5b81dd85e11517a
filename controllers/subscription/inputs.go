package subscription

import (
	"context"
	"fmt"
	"strconv"
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
	subscription types.UID // another one may have taken its name
	generation   int64
	dispatcher   types.UID // "" if there is none
	selected     bool
	// sources stands for the spec, what the dispatcher allows, the namespace's terms, the versions of all Secrets and
	// ConfigMaps, and what the Service is, as far as the cache knows: for what an entry is compiled from.
	sources routing.SourcesDigest
	table   *routes.Table
	misfit  bool
}

// compilation is part of every digest of sources: it is raised when the same sources are compiled to another entry, so that
// the manager that does so compiles all of them anew. TestCompilationIsPinned says when.
const compilation = "2"

// circumstances are the inputs, and what they are of.
type circumstances struct {
	inputs
	dispatcher *v1alpha1.WebhookDispatcher // nil if there is none
	granted    *terms                      // nil without a dispatcher
}

// gather finds a subscription's circumstances, but for a ConfigMap from the cache alone.
func (r *Reconciler) gather(ctx context.Context, sub *v1alpha1.WebhookSubscription) (circumstances, error) {
	in := circumstances{inputs: inputs{subscription: sub.UID, generation: sub.Generation}}
	d := &v1alpha1.WebhookDispatcher{}
	key := client.ObjectKey{Namespace: sub.Spec.DispatcherRef.Namespace, Name: sub.Spec.DispatcherRef.Name}
	if err := r.Client.Get(ctx, key, d); client.IgnoreNotFound(err) != nil {
		return in, fmt.Errorf("get dispatcher: %w", err)
	} else if err != nil || !d.DeletionTimestamp.IsZero() {
		return in, nil
	}
	in.dispatcher, in.inputs.dispatcher = d, d.UID
	var err error
	if in.selected, in.granted, err = r.standing(ctx, d, sub.Namespace); err != nil {
		return in, err
	}
	versions, err := r.secretVersions(ctx, sub)
	if err != nil {
		return in, err
	}
	in.sources = routing.NewSourcesDigest(compilation, string(sub.UID), strconv.FormatInt(sub.Generation, 10),
		strings.Join(d.Spec.EventResources, " "), strconv.FormatBool(d.Spec.Egress.AllowHTTP != nil && *d.Spec.Egress.AllowHTTP),
		in.granted.fingerprint(), versions, labelsRead(sub))
	if in.table, err = r.Tables.Of(ctx, d); err != nil {
		return in, err
	}
	in.misfit = in.table.Misfit(routing.Identity(sub), routing.Generation(sub))
	return in, nil
}

// labelsRead is what an expression of the subscription may read of its labels.
func labelsRead(sub *v1alpha1.WebhookSubscription) string {
	if !routing.ReadsLabels(&sub.Spec) {
		return ""
	}
	return labels.Set(sub.Labels).String() // sorted
}

// standing is how a dispatcher treats a namespace: whether it takes the namespace's subscriptions, and on which terms.
func (r *Reconciler) standing(ctx context.Context, d *v1alpha1.WebhookDispatcher, name string) (bool, *terms, error) {
	namespace, err := r.Namespaces.Get(ctx, name)
	if err != nil {
		return false, nil, fmt.Errorf("get namespace: %w", err)
	}
	set := labels.Set(namespace.Labels)
	granted := termsOf(d, string(namespace.UID), set)
	return selects(&d.Spec.Subscriptions.NamespaceSelector, set), granted, r.approvals(ctx, d, set, granted)
}

// selects reports whether a selector takes a namespace with the given labels. One that is no selector takes none.
func selects(by *metav1.LabelSelector, set labels.Set) bool {
	selector, err := metav1.LabelSelectorAsSelector(by)
	return err == nil && selector.Matches(set)
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
	if ref := sub.Spec.TLS.CAConfigMapRef; ref != nil {
		_, _, version, err := r.configMaps.get(ctx, client.ObjectKey{Namespace: sub.Namespace, Name: ref.Name}, "")
		if err != nil {
			return "", fmt.Errorf("read ConfigMap %s: %w", ref.Name, err)
		}
		fmt.Fprintf(&versions, "ConfigMap %s=%s\n", ref.Name, version)
	}
	if ref := sub.Spec.ServiceRef; ref.Name != "" {
		service, err := r.service(ctx, client.ObjectKey{Namespace: sub.Namespace, Name: ref.Name})
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&versions, "Service %s=%s\n", ref.Name, routing.ServiceVersion(service))
	}
	return versions.String(), nil
}

// service returns a Service from the cache, nil if there is none. It is not to be modified.
func (r *Reconciler) service(ctx context.Context, key client.ObjectKey) (*corev1.Service, error) {
	service := &corev1.Service{}
	err := r.Client.Get(ctx, key, service)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get Service %s: %w", key.Name, err)
	}
	if err != nil {
		return nil, nil
	}
	return service, nil
}

// secretVersion is what the cache knows of a Secret.
func (r *Reconciler) secretVersion(ctx context.Context, key client.ObjectKey) (string, error) {
	secret := metadata("Secret")
	if err := r.Client.Get(ctx, key, secret); client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("get metadata of Secret %s: %w", key.Name, err)
	}
	return r.SecretLabel.version(secret), nil
}

func metadata(kind string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return object
}

// sources read the Secrets and ConfigMaps of a namespace from the API server: beyond a few seconds, what they hold is kept
// nowhere but in the table. Services come from the cache.
func (r *Reconciler) sources(ctx context.Context, namespace string) routing.Sources {
	return routing.Sources{
		Secrets: func(name string) (map[string][]byte, bool, error) {
			key := client.ObjectKey{Namespace: namespace, Name: name}
			version, err := r.secretVersion(ctx, key)
			if err != nil {
				return nil, false, err
			}
			values, found, _, err := r.secrets.get(ctx, key, version)
			return values, found, err
		},
		ConfigMaps: func(name string) (map[string][]byte, bool, error) {
			values, found, _, err := r.configMaps.get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, "")
			return values, found, err
		},
		Services: func(name string) (*corev1.Service, error) {
			return r.service(ctx, client.ObjectKey{Namespace: namespace, Name: name})
		},
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
