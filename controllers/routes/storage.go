package routes

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// listPage is how many Secrets of a table are read with one request: up to 64 MiB of them.
const listPage = 64

// stored is a Secret of a routing table as it is.
type stored struct {
	resourceVersion string
	content
	// misplaced tells that it is not labelled, or not owned, as it should be.
	misplaced bool
}

// content is what a Secret of a routing table holds: the bytes of an index or of a shard, and the digests of a shard's sources.
type content struct{ data, sources []byte }

// storage is where a table is written.
type storage interface {
	// list calls each for every Secret that is labelled as one of this table.
	list(ctx context.Context, each func(name string, secret *stored)) error
	// read returns one Secret, nil if there is no such Secret.
	read(ctx context.Context, name string) (*stored, error)
	// write sets all of a Secret and returns the Secret's resource version.
	write(ctx context.Context, name string, wanted content) (resourceVersion string, err error)
	// remove deletes a Secret that may not be there any more.
	remove(ctx context.Context, name string) error
}

// secrets is the storage in a dispatcher's namespace.
type secrets struct {
	client     client.Client
	reader     client.Reader
	dispatcher client.ObjectKey
	uid        types.UID
}

func (s *secrets) list(ctx context.Context, each func(name string, secret *stored)) error {
	options := []client.ListOption{client.InNamespace(s.dispatcher.Namespace), client.MatchingLabels(s.labels()), client.Limit(listPage)}
	next := ""
	for {
		page := &corev1.SecretList{}
		if err := s.reader.List(ctx, page, append(options, client.Continue(next))...); err != nil {
			return fmt.Errorf("list the Secrets of a routing table: %w", err)
		}
		for i := range page.Items {
			each(page.Items[i].Name, s.stored(&page.Items[i]))
		}
		if next = page.Continue; next == "" {
			return nil
		}
	}
}

func (s *secrets) read(ctx context.Context, name string) (*stored, error) {
	secret := &corev1.Secret{}
	err := s.reader.Get(ctx, client.ObjectKey{Namespace: s.dispatcher.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", name, err)
	}
	return s.stored(secret), nil
}

func (s *secrets) stored(secret *corev1.Secret) *stored {
	found := content{data: secret.Data[routing.ShardKey], sources: secret.Data[routing.SourcesKey]}
	if secret.Name == routing.IndexName(s.dispatcher.Name) {
		found = content{data: secret.Data[routing.IndexKey]}
	}
	return &stored{resourceVersion: secret.ResourceVersion, content: found, misplaced: !s.inPlace(secret)}
}

func (s *secrets) inPlace(secret *corev1.Secret) bool {
	for key, value := range s.labels() {
		if secret.Labels[key] != value {
			return false
		}
	}
	for key := range secret.Data {
		if key != routing.IndexKey && key != routing.ShardKey && key != routing.SourcesKey {
			return false
		}
	}
	return slices.ContainsFunc(secret.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == s.uid })
}

func (s *secrets) labels() map[string]string { return names.Labels(names.RoutingTable, s.dispatcher) }

func (s *secrets) write(ctx context.Context, name string, wanted content) (string, error) {
	data := map[string][]byte{routing.ShardKey: wanted.data, routing.SourcesKey: wanted.sources}
	if name == routing.IndexName(s.dispatcher.Name) {
		data = map[string][]byte{routing.IndexKey: wanted.data}
	}
	secret := corev1ac.Secret(name, s.dispatcher.Namespace).
		WithLabels(s.labels()).
		WithOwnerReferences(metav1ac.OwnerReference().
			WithAPIVersion(v1alpha1.GroupVersion.String()).
			WithKind("WebhookDispatcher").
			WithName(s.dispatcher.Name).
			WithUID(s.uid).
			WithController(true)).
		WithType(corev1.SecretTypeOpaque).
		WithData(data)
	err := s.client.Apply(ctx, secret, client.FieldOwner(names.FieldOwner), client.ForceOwnership)
	if apierrors.IsInvalid(err) { // someone made it immutable, or of another type: it can only be made anew
		err = s.remove(ctx, name)
		if err == nil {
			secret.ResourceVersion, secret.UID = nil, nil
			err = s.client.Apply(ctx, secret, client.FieldOwner(names.FieldOwner), client.ForceOwnership)
		}
	}
	if err != nil {
		return "", fmt.Errorf("write Secret %s: %w", name, err)
	}
	return *secret.ResourceVersion, nil
}

func (s *secrets) remove(ctx context.Context, name string) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.dispatcher.Namespace, Name: name}}
	if err := s.client.Delete(ctx, secret); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete Secret %s: %w", name, err)
	}
	return nil
}
