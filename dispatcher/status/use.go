package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// ErrAbandoned says that the manager is replacing the store, which never held an event. The store must accept none.
var ErrAbandoned = errors.New("the store is being replaced")

// errAnotherStore: the status is of another store, because this one was replaced, or was not announced yet.
var errAnotherStore = errors.New("the dispatcher's status is of another store")

// useAttempts bounds how often a write is tried again because somebody else wrote in between.
const useAttempts = 8

// StoreUse says in a WebhookDispatcher's status whether its store ever held an event. Each write is over the state that was
// read, so that the manager and a dispatcher never decide against each other.
type StoreUse struct {
	dispatcher dynamic.ResourceInterface
	name, id   string
}

// NewStoreUse returns what speaks for the store with the given id.
func NewStoreUse(config *rest.Config, namespace, name, id string) (*StoreUse, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for statuses: %w", err)
	}
	dispatchers := client.Resource(v1alpha1.GroupVersion.WithResource("webhookdispatchers"))
	return &StoreUse{dispatcher: dispatchers.Namespace(namespace), name: name, id: id}, nil
}

// Announce makes the status one of this store. It returns whether the store counts as used, which may be known of it from
// before, and ErrAbandoned if the manager is replacing a store.
func (u *StoreUse) Announce(ctx context.Context, used bool) (bool, error) {
	err := u.change(ctx, func(now v1alpha1.VolumeStatus) (v1alpha1.StoreUse, error) {
		switch {
		case now.Use == v1alpha1.StoreAbandoned && !used:
			return "", ErrAbandoned
		case used || now.ID == u.id && now.Use == v1alpha1.StoreUsed:
			used = true
			return v1alpha1.StoreUsed, nil
		}
		return v1alpha1.StoreUnused, nil
	})
	return used, err
}

// Use makes the store Used, before it accepts its first event.
func (u *StoreUse) Use(ctx context.Context) error {
	return u.change(ctx, func(now v1alpha1.VolumeStatus) (v1alpha1.StoreUse, error) {
		switch {
		case now.Use == v1alpha1.StoreAbandoned:
			return "", ErrAbandoned
		case now.ID != u.id:
			return "", errAnotherStore
		}
		return v1alpha1.StoreUsed, nil
	})
}

func (u *StoreUse) change(ctx context.Context, decide func(now v1alpha1.VolumeStatus) (v1alpha1.StoreUse, error)) error {
	for attempt := 1; ; attempt++ {
		object, err := u.dispatcher.Get(ctx, u.name, metav1.GetOptions{}, "status")
		if err != nil {
			return fmt.Errorf("read the use of the store: %w", err)
		}
		var found v1alpha1.WebhookDispatcher
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &found); err != nil {
			return fmt.Errorf("decode the dispatcher: %w", err)
		}
		use, err := decide(found.Status.Volume)
		wanted := v1alpha1.VolumeStatus{ID: u.id, Use: use}
		if err != nil || found.Status.Volume == wanted {
			return err
		}
		err = u.write(ctx, &found, wanted)
		if !apierrors.IsConflict(err) || attempt == useAttempts {
			return err
		}
	}
}

func (u *StoreUse) write(ctx context.Context, over *v1alpha1.WebhookDispatcher, wanted v1alpha1.VolumeStatus) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": over.UID, "resourceVersion": over.ResourceVersion},
		"status":   map[string]any{"volume": wanted},
	})
	if err != nil {
		return fmt.Errorf("encode the use of the store: %w", err)
	}
	_, err = u.dispatcher.Patch(ctx, u.name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldOwner}, "status")
	if err != nil {
		return fmt.Errorf("write the use of the store: %w", err)
	}
	return nil
}
