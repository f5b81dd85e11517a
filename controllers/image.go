package controllers

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/controllers/dispatcher"
)

// managerContainer is the container of the manager's pod whose image dispatchers run.
const managerContainer = "manager"

// +kubebuilder:rbac:groups="",resources=pods,verbs=get,namespace=eventflow-system

// dispatcherImage is the image that was set, or the one that the manager runs itself: then dispatchers follow its
// upgrades.
func dispatcherImage(ctx context.Context, reader client.Reader, o Options) (dispatcher.Image, error) {
	if o.DispatcherImage != "" {
		return dispatcher.Image{Name: o.DispatcherImage}, nil
	}
	if o.Pod == "" {
		return dispatcher.Image{}, errors.New("find the image that dispatchers run: name it, or set POD_NAME and POD_NAMESPACE by the downward API")
	}
	pod := &corev1.Pod{}
	if err := reader.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: o.Pod}, pod); err != nil {
		return dispatcher.Image{}, fmt.Errorf("find the image that dispatchers run: %w", err)
	}
	for _, container := range pod.Spec.Containers {
		if container.Name == managerContainer {
			return dispatcher.Image{Name: container.Image, PullPolicy: container.ImagePullPolicy}, nil
		}
	}
	return dispatcher.Image{}, fmt.Errorf("find the image that dispatchers run: pod %s has no container %q", o.Pod, managerContainer)
}
