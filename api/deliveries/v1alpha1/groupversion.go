package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every type in this package.
var GroupVersion = schema.GroupVersion{Group: "deliveries.webhooks.clinikapi.com", Version: "v1alpha1"}

// The resources, as they stand in paths and in rules of RBAC.
const (
	ResourceDeliveries = "webhookdeliveries"
	ResourceEvents     = "webhookevents"
)

// The subresources: the first three of a delivery, the last one of an event.
const (
	SubresourceReplay  = "replay"
	SubresourceCancel  = "cancel"
	SubresourceSendNow = "sendnow"
	SubresourcePayload = "payload"
)

// The fields that a list or a watch of deliveries can be selected by, beside metadata.name and metadata.namespace. Lists of
// events know FieldEventType and FieldEventID.
const (
	FieldState        = "state"
	FieldSubscription = "subscription"
	FieldEventType    = "event.type"
	FieldEventID      = "event.id"
	// FieldScheduledKey is the key that a schedule planned the delivery for; FieldSubscription has to be given, too.
	FieldScheduledKey = "scheduledKey"
)

var schemeBuilder = runtime.NewSchemeBuilder(func(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&WebhookDelivery{}, &WebhookDeliveryList{},
		&WebhookEvent{}, &WebhookEventList{},
		&WebhookEventPayload{},
		&ReplayOptions{}, &CancelOptions{}, &SendNowOptions{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
})

// AddToScheme adds the package's types to a scheme.
var AddToScheme = schemeBuilder.AddToScheme
