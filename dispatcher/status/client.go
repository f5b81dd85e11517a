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
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// FieldOwner is the dispatcher's name among the writers of a subscription's status.
const FieldOwner = "eventflow-dispatcher"

// errAnother: the subscription was deleted, and another one bears its name.
var errAnother = errors.New("another subscription bears this name")

type apiClient struct {
	subscriptions dynamic.NamespaceableResourceInterface
}

// NewClient returns a Client that speaks to the API server.
func NewClient(config *rest.Config) (Client, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = -1, 0 // the Writer keeps a budget of its own
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for statuses: %w", err)
	}
	return apiClient{client.Resource(v1alpha1.GroupVersion.WithResource("webhooksubscriptions"))}, nil
}

func (c apiClient) Get(ctx context.Context, route *routing.Route) (v1alpha1.WebhookSubscriptionStatus, error) {
	object, err := c.subscriptions.Namespace(route.Namespace).Get(ctx, route.Name, metav1.GetOptions{}, "status")
	if err != nil {
		return v1alpha1.WebhookSubscriptionStatus{}, err
	}
	var subscription v1alpha1.WebhookSubscription
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &subscription); err != nil {
		return v1alpha1.WebhookSubscriptionStatus{}, fmt.Errorf("decode the subscription: %w", err)
	}
	return subscription.Status, nil
}

func (c apiClient) Apply(ctx context.Context, route *routing.Route, status v1alpha1.WebhookSubscriptionStatus) error {
	patch, err := json.Marshal(v1alpha1.WebhookSubscription{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "WebhookSubscription"},
		// The uid keeps the status of one subscription from another that took its name.
		ObjectMeta: metav1.ObjectMeta{Namespace: route.Namespace, Name: route.Name, UID: types.UID(route.Identity)},
		Status:     status,
	})
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	force := true
	_, err = c.subscriptions.Namespace(route.Namespace).Patch(ctx, route.Name, types.ApplyPatchType, patch,
		metav1.PatchOptions{FieldManager: FieldOwner, Force: &force}, "status")
	if apierrors.IsConflict(err) { // forced, so only the uid can conflict
		return errAnother
	}
	return err
}
