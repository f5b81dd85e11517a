// Package deliveries tests deliveries as Kubernetes resources: a real kube-apiserver that aggregates, a real dispatcher behind
// it, and kubectl in front. What kube-apiserver and kubectl make of the API is what counts.
package deliveries
