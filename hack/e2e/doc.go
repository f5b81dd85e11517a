// Package e2e takes an event around the whole product on a real cluster: kubectl apply -k config/default, a publish from
// a pod, a delivery to a Service, and back into the subscription's status. It also runs the README's commands.
//
// It needs KUBECONFIG, kubectl, and LOAD_IMAGE: a command that is given an image's name and a static linux binary, and
// makes an image that runs it available to the cluster's nodes (kind-image does that for kind). Without LOAD_IMAGE it is
// skipped; make e2e sees to it that it is not. It installs and removes Event Flow, so it wants a cluster to itself.
package e2e
