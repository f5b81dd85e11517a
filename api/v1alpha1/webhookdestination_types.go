package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WebhookDestinationSpec is what is approved.
type WebhookDestinationSpec struct {
	// hosts that are approved, such as hooks.example.com, or *.example.com for all below it.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be a DNS name such as hooks.example.com, or *.example.com for all below it"
	Hosts []string `json:"hosts,omitempty"`

	// namespaceSelector selects the namespaces that they are approved for, by label; the empty selector selects all.
	// +required
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
}

// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=whdest,categories=eventflow
// +kubebuilder:printcolumn:name="Hosts",type=string,JSONPath=`.spec.hosts`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// WebhookDestination approves hosts for the deliveries of namespaces, at dispatchers that require it by spec.egress.approval.
type WebhookDestination struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what is approved.
	// +required
	Spec WebhookDestinationSpec `json:"spec,omitzero"`
}

// +kubebuilder:object:root=true

// WebhookDestinationList is a list of WebhookDestinations.
type WebhookDestinationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []WebhookDestination `json:"items"`
}
