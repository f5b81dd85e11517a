package controllers

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/dispatcher"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// cacheOptions keep in memory what the controllers look at, and no more: of Secrets and Namespaces, whose metadata alone is
// watched, no annotations (kubectl keeps whole Secrets in one); of subscriptions, no counts; of Services, what
// decides where deliveries go. What dispatchers become is
// watched apart, because the manager may list it in some namespaces only.
func cacheOptions(home string) cache.Options { return cache.Options{DefaultTransform: transform(home)} }

// transform returns what objects become before they are cached: they lose what no controller reads, and a subscription
// that names a dispatcher in no namespace names the one in home. The API server's schema cannot know where that is.
func transform(home string) toolscache.TransformFunc {
	return func(in any) (any, error) {
		object, ok := in.(metav1.Object)
		if !ok { // the tombstone of an object that was deleted unseen
			return in, nil
		}
		if dispatcher.HoldsSettings(object) { // the manager's own: it is compared with what it is to be
			dispatcher.OwnFields(object)
			return in, nil
		}
		object.SetManagedFields(nil)
		object.SetAnnotations(nil)
		if service, ok := in.(*corev1.Service); ok {
			routing.KeepService(service)
		}
		if sub, ok := in.(*v1alpha1.WebhookSubscription); ok {
			sub.Status.Deliveries, sub.Status.Retrying = nil, nil
			shareTexts(sub)
			if sub.Spec.DispatcherRef.Namespace == "" {
				sub.Spec.DispatcherRef.Namespace = home
			}
		}
		return in, nil
	}
}
