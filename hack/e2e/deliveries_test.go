package e2e

import (
	"path/filepath"
	"strings"
)

const (
	// apiServiceName is of the deliveries API.
	apiServiceName = "apiservice/v1alpha1.deliveries.webhooks.clinikapi.com"
	// withDeliveriesAPI is what config/components/deliveries-api does to the manager.
	withDeliveriesAPI = `[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--deliveries-api"}]`
)

// deliveriesInKubectl has the deliveries served as Kubernetes resources. It takes the pods away, and then the right to the API
// while no manager runs: each time, a namespace can be deleted.
func deliveriesInKubectl(c *cluster, image string) {
	bindings := filepath.Join(c.root, "config", "components", "deliveries-api", "bindings.yaml")
	c.kubectl("apply", "-f", bindings)
	c.kubectl("--namespace="+system, "patch", "deployment/eventflow-manager", "--type=json", "--patch", withDeliveriesAPI)
	c.rollout(system, "eventflow-manager")
	ask := func(patch string) {
		c.kubectl("--namespace="+system, "patch", "webhookdispatcher", "default", "--type=merge", "--patch", patch)
	}
	ask(`{"spec":{"deliveriesAPI":{"enabled":true}}}`)
	c.deliveriesServed()
	if list := c.kubectl("--namespace="+namespace, "get", "webhookdeliveries", "--no-headers"); !strings.Contains(list, "dlv_") {
		c.t.Errorf("kubectl get shows no delivery: %q", list)
	}

	ask(`{"spec":{"template":{"nodeSelector":{"no-such-node":"true"}}}}`)
	c.kubectl("--namespace="+system, "wait", "--for=delete", "--timeout="+patience.String(), "pod", "--selector=app.kubernetes.io/component=dispatcher", "--field-selector=status.phase=Running")
	c.deletesNamespaces()
	c.kubectl("wait", "--for=delete", "--timeout=60s", apiServiceName)
	ask(`{"spec":{"template":{"nodeSelector":null}}}`)
	c.deliveriesServed()

	c.kubectl("--namespace="+system, "scale", "deployment/eventflow-manager", "--replicas=0")
	c.kubectl("--namespace="+system, "wait", "--for=delete", "--timeout="+patience.String(), "pod", "--selector=app.kubernetes.io/component=manager")
	c.deletesNamespaces() // the dispatcher serves without a manager
	c.kubectl("delete", "-f", bindings)
	c.kubectl("wait", "--for=delete", "--timeout=60s", apiServiceName) // by Kubernetes
	c.run("", "make", "deploy", "IMAGE="+image)
	ask(`{"spec":{"deliveriesAPI":{"enabled":false}}}`)
	c.rollout(system, "eventflow-dispatcher-default")
	c.ready("webhookdispatcher/default", system)
}

// deliveriesServed waits until the API is served.
func (c *cluster) deliveriesServed() {
	c.t.Helper()
	c.kubectl("--namespace="+system, "wait", "--for=condition=DeliveriesAPIReady", "--timeout="+patience.String(), "webhookdispatcher/default")
	c.kubectl("wait", "--for=condition=Available", "--timeout="+patience.String(), apiServiceName)
	c.rollout(system, "eventflow-dispatcher-default")
}

// deletesNamespaces deletes a namespace, within the minute that the kill matrix of docs/operations.md allows.
func (c *cluster) deletesNamespaces() {
	c.t.Helper()
	c.kubectl("create", "namespace", "short-lived")
	c.kubectl("delete", "namespace", "short-lived", "--timeout=60s")
}
