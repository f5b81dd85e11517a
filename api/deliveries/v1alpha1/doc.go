// Package v1alpha1 holds the deliveries that a dispatcher serves as Kubernetes resources: a WebhookDelivery is one event
// for one subscription, a WebhookEvent what a producer published. The dispatcher's store keeps them, and etcd does not.
//
// Both are read-only but for the subresources of a delivery. A delivery's object has the delivery's id as its name, as in
// dlv_0f3…: the API server takes any path segment as the name in an aggregated API, and kubectl finds what it printed. An
// event's object has the event's id as its name. Such names are no DNS labels, so they are not for names of other objects.
//
// +kubebuilder:object:generate=true
package v1alpha1
