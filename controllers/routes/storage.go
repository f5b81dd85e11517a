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
)

// stored is a Secret of a routing table as it is.
type stored struct {
	resourceVersion string
	data            []byte
	// misplaced tells that it is not labelled, or not owned, as it should be.
	misplaced bool
}

// storage is where a table is written.
type storage interface {
	// read returns what one key of a Secret holds, nil if there is no such Secret.
	read(ctx context.Context, name, key string) (*stored, error)
	// write sets one key of a Secret and returns the Secret's resource version.
	write(ctx context.Context, name, key string, data []byte) (resourceVersion string, err error)
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

func (s *secrets) read(ctx context.Context, name, key string) (*stored, error) {
	secret := &corev1.Secret{}
	err := s.reader.Get(ctx, client.ObjectKey{Namespace: s.dispatcher.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", name, err)
	}
	return &stored{resourceVersion: secret.ResourceVersion, data: secret.Data[key], misplaced: !s.inPlace(secret)}, nil
}

func (s *secrets) inPlace(secret *corev1.Secret) bool {
	for key, value := range s.labels() {
		if secret.Labels[key] != value {
			return false
		}
	}
	return len(secret.Data) == 1 && slices.ContainsFunc(secret.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == s.uid })
}

func (s *secrets) labels() map[string]string { return names.Labels(names.RoutingTable, s.dispatcher) }

func (s *secrets) write(ctx context.Context, name, key string, data []byte) (string, error) {
	secret := corev1ac.Secret(name, s.dispatcher.Namespace).
		WithLabels(s.labels()).
		WithOwnerReferences(metav1ac.OwnerReference().
			WithAPIVersion(v1alpha1.GroupVersion.String()).
			WithKind("WebhookDispatcher").
			WithName(s.dispatcher.Name).
			WithUID(s.uid).
			WithController(true)).
		WithType(corev1.SecretTypeOpaque).
		WithData(map[string][]byte{key: data})
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
