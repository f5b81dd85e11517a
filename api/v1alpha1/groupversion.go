package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every type in this package.
var GroupVersion = schema.GroupVersion{Group: "webhooks.clinikapi.com", Version: "v1alpha1"}

var schemeBuilder = runtime.NewSchemeBuilder(func(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&WebhookSubscription{}, &WebhookSubscriptionList{},
		&WebhookDispatcher{}, &WebhookDispatcherList{},
		&WebhookReplay{}, &WebhookReplayList{},
		&WebhookDestination{}, &WebhookDestinationList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
})

// AddToScheme adds the package's types to a scheme.
var AddToScheme = schemeBuilder.AddToScheme
