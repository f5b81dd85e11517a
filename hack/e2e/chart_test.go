package e2e

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

// inNamespace is what the chart does not have.
const inNamespace = `
apiVersion: v1
kind: Namespace
metadata: {name: eventflow-system, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Namespace
metadata: {name: e2e, labels: {pod-security.kubernetes.io/enforce: restricted}}
`

// chart returns the objects of the chart, with a dispatcher that may deliver within the cluster.
func chart(c *cluster, image string) string {
	args := []string{
		"run", "-C", "hack/release", "./chart", "template", "-known", "-set=dispatcher.create=true,dispatcher.spec.egress.allowHTTP=true",
		"-set=dispatcher.spec.egress.allowedCIDRs[0]=10.0.0.0/8",
	}
	if image == eventflowImage {
		args = append(args, "-set=image.repository=eventflow,image.tag=dev")
	} else {
		args = append(args, "-chart="+one(c, os.Getenv("RELEASE"), "eventflow-*.tgz"))
	}
	return c.run("", "go", args...)
}

// inAnyOrder applies the chart and a tenant, all objects in random order, until none is refused: the order in which Git or a
// person does it must not matter. An event is delivered, and removing all of it leaves nothing.
func inAnyOrder(c *cluster, image string, before []string) {
	rendered := chart(c, image)
	objects := strings.Split(inNamespace+"\n---\n"+rendered+"\n---\n"+tenant, "\n---\n")
	deadline := time.Now().Add(patience)
	for round := 1; ; round++ {
		rand.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
		out, err := c.try(strings.Join(objects, "\n---\n"), "kubectl", "apply", "--server-side", "-f", "-")
		if err == nil {
			c.t.Logf("applied in %d rounds", round)
			break
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("it cannot be applied: %v\n%s", err, out)
		}
	}
	c.ready("webhookdispatcher/default", system)
	c.ready("webhooksubscription/receiver", namespace)
	c.apply(c.publisherPod("charted", "ehr", 1))
	c.succeeded("charted")
	c.delivered(1)

	c.kubectl("delete", "namespace", namespace, "--timeout="+patience.String())
	c.kubectl("delete", "webhookdispatchers", "--all", "--all-namespaces", "--timeout="+patience.String())
	c.withoutRights()
	c.run(rendered, "kubectl", "delete", "--ignore-not-found", "--timeout="+patience.String(), "-f", "-")
	c.kubectl("delete", "namespace", system, "--timeout="+patience.String())
	c.asBefore(before)
}

// ready waits until an object is there, and is Ready.
func (c *cluster) ready(object, in string) {
	c.t.Helper()
	for _, what := range []string{"create", "condition=Ready"} {
		c.kubectl("--namespace="+in, "wait", "--for="+what, "--timeout="+patience.String(), object)
	}
}

// everything names all objects of the cluster but those that come and go by themselves.
func (c *cluster) everything() []string {
	c.t.Helper()
	kinds := strings.Fields(c.kubectl("api-resources", "--verbs=list", "--output=name"))
	kinds = slices.DeleteFunc(kinds, func(kind string) bool {
		return strings.HasPrefix(kind, "events") || kind == "componentstatuses" || strings.HasPrefix(kind, "leases.")
	})
	list := c.kubectl("get", strings.Join(kinds, ","), "--all-namespaces", "--no-headers",
		"--output=custom-columns=API:.apiVersion,KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name")
	names := []string{}
	for line := range strings.Lines(list) {
		names = append(names, strings.Join(strings.Fields(line), " "))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// asBefore waits until the cluster has what it had.
func (c *cluster) asBefore(before []string) {
	c.t.Helper()
	var left []string
	c.eventually("nothing but what was there before", func() bool {
		left = slices.DeleteFunc(c.everything(), func(name string) bool { return slices.Contains(before, name) })
		return len(left) == 0
	}, func() { c.t.Logf("left: %s", strings.Join(left, "\n")) })
}
