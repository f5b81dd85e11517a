package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// WebhookSubscriptionStatus is the observed state of a WebhookSubscription.
type WebhookSubscriptionStatus struct {
	// observedGeneration is the generation of the spec that the manager saw last; -1 while it has seen none.
	// +optional
	// +kubebuilder:default=-1
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// programmedGeneration is the generation of the spec that every live pod of the dispatcher delivers by, as pods of earlier
	// versions say. Those of this version say programmedRevision of the WebhookDispatcher instead: see the condition Programmed.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ProgrammedGeneration int64 `json:"programmedGeneration,omitempty"`

	// endpoint is the URL's scheme, host and port: all of it that is ever shown.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Endpoint string `json:"endpoint,omitempty"`

	// conditions are Accepted, Programmed and Ready, which the manager sets, and EndpointHealthy, which the dispatcher sets once
	// there was an attempt.
	// Reconciling and Stalled are there only while they are True: the subscription is not Ready yet, or will not be until
	// someone changes something.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// signing says which keys sign deliveries now. It is not there while they wait because the subscription is not accepted.
	// +optional
	Signing SigningStatus `json:"signing,omitzero"`

	// deliveries counts what became of this subscription's deliveries since it was created.
	// +optional
	Deliveries *DeliveryCounts `json:"deliveries,omitempty"`

	// retrying lists deliveries that failed at least once and will be attempted again, next due first.
	// +optional
	// +listType=map
	// +listMapKey=deliveryID
	// +kubebuilder:validation:MaxItems=10
	Retrying []RetryingDelivery `json:"retrying,omitempty"`
}

// SigningStatus is which keys sign deliveries.
type SigningStatus struct {
	// keys that sign, in the order of their signatures: the current one, the previous one, the next one.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	Keys []SigningKey `json:"keys,omitempty"`
}

// SignatureScheme is the version of a signature of Standard Webhooks.
// +kubebuilder:validation:Enum=v1;v1a
type SignatureScheme string

// The schemes.
const (
	// SchemeShared is HMAC-SHA256 by a key that the receiver has as well.
	SchemeShared SignatureScheme = "v1"
	// SchemePair is ed25519 by a private key, which the receiver verifies by the public one.
	SchemePair SignatureScheme = "v1a"
)

// SigningKey is a key that signs, without anything secret.
type SigningKey struct {
	// id names the key within this subscription. That of a pair is a hash of its public key. That of a shared key is a hash of
	// the key under a random salt that stands in the routing table alone: whoever reads statuses can try no guesses by it. It
	// stays the same while the key does, wherever the spec names it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	ID string `json:"id,omitempty"`

	// scheme is v1 of a shared key, and v1a of a pair.
	// +required
	Scheme SignatureScheme `json:"scheme,omitempty"`

	// publicKey of a pair, as receivers are given it: whpk_ and base64.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	PublicKey string `json:"publicKey,omitempty"`

	// sinceTime is when every pod of the dispatcher was first known to sign with it.
	// +required
	SinceTime metav1.Time `json:"sinceTime,omitzero"`
}

// DeliveryCounts sums up a subscription's deliveries.
type DeliveryCounts struct {
	// pending counts the deliveries that are still to be made, those that wait because the subscription is suspended or not
	// accepted, or its endpoint gone, included. It is counted once a minute.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Pending *int64 `json:"pending,omitempty"`

	// scheduled counts those of the pending deliveries whose planned time has not come. It is counted once a minute.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Scheduled *int64 `json:"scheduled,omitempty"`

	// nextScheduledTime is when the next of them is due.
	// +optional
	NextScheduledTime *metav1.Time `json:"nextScheduledTime,omitempty"`

	// delivered counts the deliveries that the endpoint answered with 2xx, or that the consumer acknowledged.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Delivered *int64 `json:"delivered,omitempty"`

	// retrying counts the deliveries that failed at least once and will be attempted again.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Retrying *int64 `json:"retrying,omitempty"`

	// failed counts the deliveries that were given up. They are kept, listed and replayable.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed *int64 `json:"failed,omitempty"`

	// oldestPendingTime is when the oldest event was accepted that is still to be delivered.
	// +optional
	OldestPendingTime *metav1.Time `json:"oldestPendingTime,omitempty"`

	// lastDeliveredTime is when the endpoint last answered with 2xx, or the consumer last acknowledged a delivery.
	// +optional
	LastDeliveredTime *metav1.Time `json:"lastDeliveredTime,omitempty"`

	// lastFailure is the newest failed attempt.
	// +optional
	LastFailure *AttemptFailure `json:"lastFailure,omitempty"`
}

// AttemptFailure is why an attempt failed.
type AttemptFailure struct {
	// time when the attempt was sent.
	// +required
	Time metav1.Time `json:"time,omitzero"`

	// statusCode that the endpoint answered; unset if it gave no answer.
	// +optional
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=999
	StatusCode int32 `json:"statusCode,omitempty"`

	// reason in one CamelCase word, such as StatusCode, Timeout, ConnectionRefused, NameNotFound, AddressNotAllowed
	// or CertificateInvalid.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
}

// RetryingDelivery is a delivery that will be attempted again.
type RetryingDelivery struct {
	// deliveryID as the receiver knows it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	DeliveryID string `json:"deliveryID,omitempty"`

	// eventType such as patient.created.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=72
	EventType string `json:"eventType,omitempty"`

	// attempts made so far.
	// +required
	// +kubebuilder:validation:Minimum=1
	Attempts int32 `json:"attempts,omitempty"`

	// lastStatusCode that the endpoint answered; unset if it gave no answer.
	// +optional
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=999
	LastStatusCode int32 `json:"lastStatusCode,omitempty"`

	// nextAttemptTime is when the next attempt is due.
	// +required
	NextAttemptTime metav1.Time `json:"nextAttemptTime,omitzero"`
}
