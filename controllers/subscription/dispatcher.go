package subscription

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// dispatcherOf returns a subscription's dispatcher from the cache, nil if there is none.
func (r *Reconciler) dispatcherOf(ctx context.Context, sub *v1alpha1.WebhookSubscription) (*v1alpha1.WebhookDispatcher, error) {
	d := &v1alpha1.WebhookDispatcher{}
	key := client.ObjectKey{Namespace: sub.Spec.DispatcherRef.Namespace, Name: sub.Spec.DispatcherRef.Name}
	err := r.Client.Get(ctx, key, d)
	if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get dispatcher: %w", err)
	}
	if err != nil {
		return nil, nil
	}
	return d, nil
}
