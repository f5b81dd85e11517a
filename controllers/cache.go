package controllers

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// cacheOptions keep in memory what the controllers look at, and no more: of what dispatchers become, only what the
// manager made itself; of Secrets and Namespaces, whose metadata alone is watched, no annotations (kubectl keeps whole
// Secrets in one); of subscriptions, no counts.
func cacheOptions() cache.Options {
	own := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{names.ManagedByLabel: names.ManagedBy})}
	return cache.Options{
		DefaultTransform: stripped,
		ByObject: map[client.Object]cache.ByObject{
			&appsv1.Deployment{}:            own,
			&corev1.Service{}:               own,
			&corev1.ServiceAccount{}:        own,
			&corev1.PersistentVolumeClaim{}: own,
			&policyv1.PodDisruptionBudget{}: own,
			&rbacv1.Role{}:                  own,
			&rbacv1.RoleBinding{}:           own,
			&rbacv1.ClusterRoleBinding{}:    own,
		},
	}
}

// stripped removes what no controller reads.
func stripped(in any) (any, error) {
	object, ok := in.(metav1.Object)
	if !ok { // the tombstone of an object that was deleted unseen
		return in, nil
	}
	object.SetManagedFields(nil)
	object.SetAnnotations(nil)
	if sub, ok := in.(*v1alpha1.WebhookSubscription); ok {
		sub.Status.Deliveries, sub.Status.Retrying = nil, nil
		shareTexts(sub)
	}
	return in, nil
}
