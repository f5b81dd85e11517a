package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WebhookDispatcherStatus is the observed state of a WebhookDispatcher.
type WebhookDispatcherStatus struct {
	// observedGeneration is the generation of the spec that the manager saw last; -1 while it has seen none.
	// +optional
	// +kubebuilder:default=-1
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// settingsGeneration is the generation of the spec whose settings every pod works by: the fields that take effect without
	// a restart. A change of other fields, such as replicas, leaves it as it is. The pods set it.
	// +optional
	// +kubebuilder:validation:Minimum=1
	SettingsGeneration int64 `json:"settingsGeneration,omitempty"`

	// programmedRevision is the revision of the routing table that every live pod matches and delivers by. The pods set it, but for
	// those of earlier versions, which set programmedGeneration of each subscription instead.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ProgrammedRevision int64 `json:"programmedRevision,omitempty"`

	// conditions are Accepted, Available, StoreReady and Ready, and DeliveriesAPIReady if the spec asks for that API. Reconciling and Stalled are there only while they are True: the
	// dispatcher does not run as its spec says yet, or will not until someone changes something.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// version of Event Flow that the pods run, as the one that started last says.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Version string `json:"version,omitempty"`

	// store is what the pods say of their store. The condition StoreReady follows from it.
	// +optional
	Store StoreReport `json:"store,omitzero"` //nolint:kubeapilinter // omitzero leaves an empty one out, as a pointer would

	// publishURL is where pods of the cluster publish events, up to the path.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	PublishURL string `json:"publishURL,omitempty"`

	// publishCA are the authorities, in PEM, one of which signed the certificate behind an https publishURL: those that are
	// trusted now, and those of certificates to come. Left out if the certificate is not the manager's and its Secret has no ca.crt.
	// The ConfigMap eventflow-ca-NAME has the same.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	PublishCA string `json:"publishCA,omitempty"`

	// replicas counts the pods, also those that are not ready.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Replicas *int32 `json:"replicas,omitempty"`

	// selector selects the pods by label, for autoscalers.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Selector string `json:"selector,omitempty"`

	// volume says whether the volume of an embedded store ever held an event. One that did not gives way to another.
	// +optional
	Volume VolumeStatus `json:"volume,omitzero"` //nolint:kubeapilinter // omitzero leaves an empty one out, as a pointer would

	// subscriptions counts the subscriptions in the routing table.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Subscriptions *int32 `json:"subscriptions,omitempty"`

	// largestTenants are the namespaces with the most deliveries pending, the largest first. They are written at most once a
	// minute.
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	LargestTenants []TenantUsage `json:"largestTenants,omitempty"`
}

// StoreReport is what a dispatcher's pods say of their store.
type StoreReport struct {
	// reason in one CamelCase word: StoreReady, or why it takes no events, as in the condition StoreReady.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
}

// StoreUse says whether a store ever held an event.
// +kubebuilder:validation:Enum=Unused;Used;Abandoned
type StoreUse string

// The uses of a store. Whoever changes one writes it only over the state that was read, so that a store is not used and
// abandoned at once.
const (
	// StoreUnused never held an event. A dispatcher makes it Used before it accepts the first one.
	StoreUnused StoreUse = "Unused"
	// StoreUsed held an event, once at least. It stays so.
	StoreUsed StoreUse = "Used"
	// StoreAbandoned was Unused when the manager began to replace it. It accepts no event.
	StoreAbandoned StoreUse = "Abandoned"
)

// VolumeStatus is what is known of the volume of an embedded store.
type VolumeStatus struct {
	// id of the store, made with it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`

	// use is Unused until the first event is accepted, and then Used; Abandoned while another volume takes the place of one
	// that is Unused.
	// +required
	Use StoreUse `json:"use,omitempty"`
}

// TenantUsage is what one namespace uses of a dispatcher.
type TenantUsage struct {
	// namespace is the tenant's name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// pendingDeliveries wait to be delivered.
	// +required
	// +kubebuilder:validation:Minimum=1
	PendingDeliveries int64 `json:"pendingDeliveries,omitempty"`

	// pendingBytes are those of the bodies of these deliveries.
	// +required
	// +kubebuilder:validation:Minimum=1
	PendingBytes int64 `json:"pendingBytes,omitempty"`

	// scheduledDeliveries are those of pendingDeliveries that wait for a planned time, counted once a minute; left out if none
	// does.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ScheduledDeliveries int64 `json:"scheduledDeliveries,omitempty"`
}
