package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// DeliveryState is where a delivery stands.
type DeliveryState string

// The states of a delivery. A finished one becomes Pending again only by a replay.
const (
	// StatePending means that an attempt is due, in flight, or will be made again.
	StatePending DeliveryState = "Pending"
	// StateScheduled is a view of Pending: the delivery waits for its planned time.
	StateScheduled DeliveryState = "Scheduled"
	// StateDelivered means that the endpoint answered 2xx.
	StateDelivered DeliveryState = "Delivered"
	// StateFailed means that no attempt follows; the delivery is kept for a while and can be replayed.
	StateFailed DeliveryState = "Failed"
	// StateCancelled means that the delivery is not wanted any more; its reason says why.
	StateCancelled DeliveryState = "Cancelled"
)

// WebhookDelivery is one event for one subscription. Its name is the delivery's id, its creation the event's acceptance.
//
// +kubebuilder:object:root=true
type WebhookDelivery struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the delivery.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// status is all that is known of the delivery.
	// +optional
	Status WebhookDeliveryStatus `json:"status,omitzero"`
}

// WebhookDeliveryStatus is all that is known of a delivery.
type WebhookDeliveryStatus struct {
	// state is Pending, Scheduled, Delivered, Failed or Cancelled.
	// +required
	State DeliveryState `json:"state"`
	// reason is one CamelCase word: why the delivery ended without an attempt, or why its newest attempt failed.
	// +optional
	Reason string `json:"reason,omitempty"`
	// event that is delivered.
	// +required
	Event EventReference `json:"event"`
	// subscription is the name of the WebhookSubscription in the same namespace; it may have been deleted.
	// +required
	Subscription string `json:"subscription"`
	// attemptCount counts every attempt.
	// +required
	AttemptCount int32 `json:"attemptCount"`
	// attempts are the newest 50 of them, oldest first. Lists leave out all but the newest.
	// +optional
	// +listType=atomic
	Attempts []DeliveryAttempt `json:"attempts,omitempty"`
	// lastAttemptTime is when the newest attempt started.
	// +optional
	LastAttemptTime *metav1.MicroTime `json:"lastAttemptTime,omitempty"`
	// nextAttemptTime is when the next attempt starts, of a delivery that is Pending or Scheduled.
	// +optional
	NextAttemptTime *metav1.MicroTime `json:"nextAttemptTime,omitempty"`
	// scheduledTime is when a schedule planned the delivery for.
	// +optional
	ScheduledTime *metav1.MicroTime `json:"scheduledTime,omitempty"`
	// scheduledKey is the key that a schedule planned it for. It is set where the list was selected by it: the store keeps a
	// hash of the key alone.
	// +optional
	ScheduledKey string `json:"scheduledKey,omitempty"`
	// replayOf is the name of the delivered delivery that this one repeats.
	// +optional
	ReplayOf string `json:"replayOf,omitempty"`
}

// EventReference says which event a delivery is of.
type EventReference struct {
	// id of the event, the name of its WebhookEvent.
	// +required
	ID string `json:"id"`
	// type of the event, such as patient.created.
	// +required
	Type string `json:"type"`
	// time is when the event was accepted.
	// +required
	Time metav1.MicroTime `json:"time"`
}

// DeliveryAttempt is one request for a delivery.
type DeliveryAttempt struct {
	// number of the attempt, from 1; replays number on.
	// +required
	Number int32 `json:"number"`
	// time is when the attempt started.
	// +required
	Time metav1.MicroTime `json:"time"`
	// duration until the answer was read, or the attempt failed.
	// +required
	Duration metav1.Duration `json:"duration"`
	// status is the answer's HTTP status code; left out if there was no answer.
	// +optional
	Status int32 `json:"status,omitempty"`
	// reason is one CamelCase word, left out if the attempt succeeded.
	// +optional
	Reason string `json:"reason,omitempty"`
	// pulled is set if the consumer asked for the delivery, and acknowledged it.
	// +optional
	Pulled *bool `json:"pulled,omitempty"`
}

// WebhookDeliveryList is a list of deliveries, newest first by event.
//
// +kubebuilder:object:root=true
type WebhookDeliveryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []WebhookDelivery `json:"items"`
}

// WebhookEvent is an event that was accepted and caused deliveries. Its name is the event's id.
//
// +kubebuilder:object:root=true
type WebhookEvent struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the event.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// status is all that is known of the event but its payload.
	// +optional
	Status WebhookEventStatus `json:"status,omitzero"`
}

// WebhookEventStatus is all that is known of an event but its payload.
type WebhookEventStatus struct {
	EventReference `json:",inline"`
	// matches are the deliveries that the event caused and that are kept, at most 1,000.
	// +optional
	// +listType=atomic
	Matches []EventMatch `json:"matches,omitempty"`
}

// EventMatch is a subscription that matched an event.
type EventMatch struct {
	// subscription is the name of the WebhookSubscription in the same namespace.
	// +required
	Subscription string `json:"subscription"`
	// delivery is the name of the WebhookDelivery.
	// +required
	Delivery string `json:"delivery"`
	// state of the delivery.
	// +required
	State DeliveryState `json:"state"`
}

// WebhookEventList is a list of events, newest first.
//
// +kubebuilder:object:root=true
type WebhookEventList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []WebhookEvent `json:"items"`
}

// WebhookEventPayload is what the subresource payload of an event answers with. It is what producers published, health data
// included, and needs the right to get webhookevents/payload.
//
// +kubebuilder:object:root=true
type WebhookEventPayload struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the event.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// body is the event's envelope as endpoints that get all of it receive it, with its id, type, timestamp and data.
	// +optional
	Body runtime.RawExtension `json:"body,omitzero"`
}

// ReplayOptions is the body of a create of webhookdeliveries/replay. The answer is the WebhookDelivery that is on its way
// again: the same one, or a new one if the delivery was Delivered.
//
// +kubebuilder:object:root=true
type ReplayOptions struct {
	metav1.TypeMeta `json:",inline"`
}

// CancelOptions is the body of a create of webhookdeliveries/cancel. The answer is the cancelled WebhookDelivery.
//
// +kubebuilder:object:root=true
type CancelOptions struct {
	metav1.TypeMeta `json:",inline"`
}

// SendNowOptions is the body of a create of webhookdeliveries/sendnow. The answer is the WebhookDelivery, due at once.
//
// +kubebuilder:object:root=true
type SendNowOptions struct {
	metav1.TypeMeta `json:",inline"`
}
