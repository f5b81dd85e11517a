package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ReplayAction is what a WebhookReplay does.
// +kubebuilder:validation:Enum=Replay;Cancel
type ReplayAction string

// The actions of a WebhookReplay.
const (
	// ActionReplay delivers finished deliveries again.
	ActionReplay ReplayAction = "Replay"
	// ActionCancel cancels deliveries that wait for their planned time.
	ActionCancel ReplayAction = "Cancel"
)

// ReplayState is the state of the deliveries that a WebhookReplay delivers again.
// +kubebuilder:validation:Enum=Failed;Delivered;Cancelled
type ReplayState string

// The states of deliveries that can be replayed.
const (
	ReplayFailed    ReplayState = "Failed"
	ReplayDelivered ReplayState = "Delivered"
	ReplayCancelled ReplayState = "Cancelled"
)

// WebhookReplaySpec says which deliveries of the namespace are delivered again, or cancelled, and how fast.
//
// +kubebuilder:validation:XValidation:rule="has(self.subscriptionRef) != has(self.selector)",message="exactly one of subscriptionRef and selector must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.state) || self.action == 'Replay'",message="state is of the action Replay alone: what is cancelled are deliveries that wait for their planned time"
// +kubebuilder:validation:XValidation:rule="!has(self.since) || !has(self.until) || self.since < self.until",message="since must be before until"
// +kubebuilder:validation:XValidation:rule="self.action == oldSelf.action",message="action is immutable: create a new WebhookReplay instead"
// +kubebuilder:validation:XValidation:rule="has(self.state) == has(oldSelf.state) && (!has(self.state) || self.state == oldSelf.state)",message="state is immutable: create a new WebhookReplay instead"
// +kubebuilder:validation:XValidation:rule="has(self.since) == has(oldSelf.since) && (!has(self.since) || self.since == oldSelf.since)",message="since is immutable: create a new WebhookReplay instead"
// +kubebuilder:validation:XValidation:rule="has(self.until) == has(oldSelf.until) && (!has(self.until) || self.until == oldSelf.until)",message="until is immutable: create a new WebhookReplay instead"
// +kubebuilder:validation:XValidation:rule="has(self.subscriptionRef) == has(oldSelf.subscriptionRef) && (!has(self.subscriptionRef) || self.subscriptionRef == oldSelf.subscriptionRef)",message="subscriptionRef is immutable: create a new WebhookReplay instead"
// +kubebuilder:validation:XValidation:rule="has(self.selector) == has(oldSelf.selector) && (!has(self.selector) || self.selector == oldSelf.selector)",message="selector is immutable: create a new WebhookReplay instead"
type WebhookReplaySpec struct {
	// subscriptionRef names the WebhookSubscription of the same namespace whose deliveries are meant.
	// +optional
	SubscriptionRef SubscriptionReference `json:"subscriptionRef,omitzero"` //nolint:kubeapilinter // omitzero leaves an empty one out, as a pointer would

	// selector selects WebhookSubscriptions of the same namespace, once, when the replay begins.
	// +optional
	Selector ReplaySelector `json:"selector,omitzero"` //nolint:kubeapilinter // omitzero leaves an empty one out, as a pointer would

	// action is Replay, which delivers finished deliveries again, or Cancel, which cancels those that wait for their planned
	// time.
	// +optional
	// +kubebuilder:default=Replay
	Action ReplayAction `json:"action,omitempty"`

	// state of the deliveries to deliver again: Failed, which is also meant if there is none, Delivered or Cancelled.
	// +optional
	State ReplayState `json:"state,omitempty"`

	// since selects deliveries of events that were accepted then or later; without, all that are kept.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`

	// until selects deliveries of events that were accepted before; without, or if it is later, up to the second in which this object
	// was created. The set is closed: what comes meanwhile is not part of it.
	// +optional
	Until *metav1.Time `json:"until,omitempty"`

	// ratePerSecond bounds the deliveries that are made pending again, or cancelled, in a second. It may change meanwhile.
	// +optional
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	RatePerSecond int32 `json:"ratePerSecond,omitempty"`

	// suspend stops the replay within seconds. It goes on where it stopped once this is false.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`

	// ttlSecondsAfterFinished is how many seconds after its end the object is deleted; without, it stays. One that Argo CD or Flux
	// applied stays in any case: they would make it again, and it would run again.
	// +optional
	// +kubebuilder:validation:Minimum=0
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
}

// SubscriptionReference names a WebhookSubscription of the same namespace.
type SubscriptionReference struct {
	// name of the WebhookSubscription.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// LabelValue is the value of a label.
// +kubebuilder:validation:MaxLength=63
type LabelValue string

// ReplaySelector selects WebhookSubscriptions by their labels.
type ReplaySelector struct {
	// matchLabels are labels that each selected subscription has, with these values.
	// +required
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=8
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`
}

// WebhookReplayStatus is how far a WebhookReplay is.
type WebhookReplayStatus struct {
	// observedGeneration is the generation of the spec that the manager saw last; -1 while it has seen none.
	// +optional
	// +kubebuilder:default=-1
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready, Complete and Suspended. Reconciling is there while the replay runs, Stalled while it cannot.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// subscriptions are those that were selected when the replay began, each with its dispatcher. They do not change.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Subscriptions []ReplaySubscription `json:"subscriptions,omitempty"`

	// selected counts the deliveries that were selected when the replay began.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Selected *int64 `json:"selected,omitempty"`

	// done counts those that were made pending again, or cancelled.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Done *int64 `json:"done,omitempty"`

	// passedOver counts those that were in another state by then, or not kept any more.
	// +optional
	// +kubebuilder:validation:Minimum=0
	PassedOver *int64 `json:"passedOver,omitempty"`

	// remaining counts those that are left.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Remaining *int64 `json:"remaining,omitempty"`

	// startTime is when the subscriptions were selected.
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// completionTime is when all was done.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`

	// dispatchers are what each dispatcher that delivers to one of the subscriptions says of its part.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Dispatchers []ReplayProgress `json:"dispatchers,omitempty"`
}

// ReplaySubscription is a subscription that was selected.
type ReplaySubscription struct {
	// name of the WebhookSubscription.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// dispatcher that delivers to it: namespace/name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Dispatcher string `json:"dispatcher,omitempty"`
}

// ReplayProgressState is what a dispatcher does with its part of a WebhookReplay.
// +kubebuilder:validation:Enum=Counting;Running;Waiting;Suspended;Finished
type ReplayProgressState string

// The states of a dispatcher's part.
const (
	// ReplayCounting counts what is selected.
	ReplayCounting ReplayProgressState = "Counting"
	// ReplayRunning makes deliveries pending, or cancels them.
	ReplayRunning ReplayProgressState = "Running"
	// ReplayWaiting waits until the store takes it, or the quota of pending deliveries has room.
	ReplayWaiting ReplayProgressState = "Waiting"
	// ReplaySuspended stopped, and goes on once spec.suspend is false.
	ReplaySuspended ReplayProgressState = "Suspended"
	// ReplayFinished has done all.
	ReplayFinished ReplayProgressState = "Finished"
)

// ReplayProgress is how far one dispatcher is. It writes its own alone.
type ReplayProgress struct {
	// name of the dispatcher: namespace/name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name,omitempty"`

	// state is Counting, Running, Waiting, Suspended or Finished.
	// +required
	State ReplayProgressState `json:"state,omitempty"`

	// reason in one CamelCase word, while it waits.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// selected counts the deliveries that were selected when it began.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Selected *int64 `json:"selected,omitempty"`

	// done counts those that were made pending again, or cancelled.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Done *int64 `json:"done,omitempty"`

	// passedOver counts those that were in another state by then, or not kept any more.
	// +optional
	// +kubebuilder:validation:Minimum=0
	PassedOver *int64 `json:"passedOver,omitempty"`

	// subscription whose deliveries it is at.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Subscription string `json:"subscription,omitempty"`

	// position is the id of the delivery that was seen last; a restarted dispatcher goes on behind it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Position string `json:"position,omitempty"`

	// positionTime is when the position was written.
	// +optional
	PositionTime *metav1.Time `json:"positionTime,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=whreplay,categories=eventflow
// +kubebuilder:printcolumn:name="Complete",type=string,JSONPath=`.status.conditions[?(@.type=="Complete")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.spec.action`
// +kubebuilder:printcolumn:name="Selected",type=integer,JSONPath=`.status.selected`
// +kubebuilder:printcolumn:name="Done",type=integer,JSONPath=`.status.done`
// +kubebuilder:printcolumn:name="Remaining",type=integer,JSONPath=`.status.remaining`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Rate",type=integer,priority=1,JSONPath=`.spec.ratePerSecond`
// +kubebuilder:printcolumn:name="Finished",type=date,priority=1,JSONPath=`.status.completionTime`

// WebhookReplay delivers finished deliveries of its namespace again, or cancels planned ones, once. Whoever may create one in a
// namespace may replay the deliveries of it.
type WebhookReplay struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what is to be done.
	// +required
	Spec WebhookReplaySpec `json:"spec,omitzero"` //nolint:kubeapilinter // one of its rules refuses the zero value

	// status is how far that is.
	// +optional
	// +kubebuilder:default={}
	Status WebhookReplayStatus `json:"status,omitzero"`
}

// +kubebuilder:object:root=true

// WebhookReplayList is a list of WebhookReplays.
type WebhookReplayList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []WebhookReplay `json:"items"`
}
