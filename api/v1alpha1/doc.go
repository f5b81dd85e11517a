// Package v1alpha1 holds the resources with which platform teams declare webhooks: a WebhookSubscription is one
// endpoint and the events it receives, a WebhookDispatcher one data plane that delivers them.
//
// +kubebuilder:object:generate=true
// +groupName=webhooks.clinikapi.com
package v1alpha1
