// Package e2e takes an event around the whole product on a real cluster: an installation by the manifests, a publish from a
// pod, a delivery to a Service, and back into the subscription's status. It also runs the README's commands, and installs by
// the chart, all objects in random order. After each removal the cluster has the objects that it had before.
//
// It needs KUBECONFIG, kubectl and an image. With RELEASE, a folder that make release or make release-candidate has made, it
// installs the files of that release, and runs its image by digest; LOAD_ARCHIVE is a command like load-archive. Without,
// it builds the image, and LOAD_IMAGE is a command that is given an image's name and a static linux binary, and makes an image
// that runs it available to the cluster's nodes; kind-image does that for kind. Without either it is skipped; make e2e sees to
// it that it is not. It installs and removes Event Flow, so it wants a cluster to itself.
package e2e
