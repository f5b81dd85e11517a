package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// previous is the commit before the release that the tree becomes: what upgrades come from, and go back to.
const (
	previous      = "95a9485"
	previousImage = "eventflow:previous"
)

// reminders is a subscription whose deliveries are planned.
const reminders = `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: reminders, namespace: e2e}
spec:
  url: http://receiver.e2e.svc/reminders
  events: [patient.created]
  schedule: {at: timestamp(event.data.due)}
  signing: {secretRef: {name: keys, key: current}}
  retry: {initialDelay: 1s, factor: 1, maxDelay: 1s}
`

// kept names what helm uninstall leaves, by the beginnings of kind and name: docs/helm.md says so.
var kept = []string{
	"apiextensions.k8s.io/v1 CustomResourceDefinition <none> webhook", "webhooks.clinikapi.com/v1alpha1 ",
	"v1 Namespace <none> eventflow-system", "v1 Namespace <none> e2e", "eventflow-dispatcher-default",
	" eventflow-system eventflow-default-dispatcher", " eventflow-system default", " eventflow-system kube-root-ca.crt", " e2e ", "v1 PersistentVolume <none> ",
	// Kubernetes' own, of the definitions and of Services.
	" APIService <none> v1alpha1.webhooks.clinikapi.com", " IPAddress <none> ",
}

// TestUpgrade installs the previous version, upgrades it while events are published and planned ones wait, goes back, and
// upgrades again, by the chart; then it uses Helm in every way. An audit wants each event that was accepted. E2E_UPGRADE=1
// runs it: it builds two versions and Helm.
func TestUpgrade(t *testing.T) {
	if os.Getenv("E2E_UPGRADE") == "" {
		t.Skip("E2E_UPGRADE is not set: make e2e-upgrade")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, root: root}
	t.Cleanup(func() { c.explain(namespace) })
	image, before, old := provide(c), c.everything(), c.previousTree()
	audit := map[string]int{} // what was published, by publisher

	for _, part := range []struct {
		name string
		run  func(*cluster)
	}{
		{"the previous version", func(c *cluster) { c.run("", "make", "-C", old, "deploy", "IMAGE="+previousImage) }},
		{"a tenant", func(c *cluster) { waitingTenant(c, audit) }},
		{"upgrade by the manifests", func(c *cluster) {
			c.underLoad("upgrade", audit, image, func() { c.kubectl(append([]string{"apply"}, manifests(c, image)...)...) })
		}},
		{"back", func(c *cluster) {
			c.underLoad("back", audit, previousImage, func() { c.run("", "make", "-C", old, "deploy", "IMAGE="+previousImage) })
		}},
		{"upgrade by the chart", func(c *cluster) {
			c.underLoad("chart", audit, image, func() { c.helm(image, "upgrade", "--install", "--take-ownership") })
		}},
		{"a change and its rollback", func(c *cluster) {
			c.underLoad("rollback", audit, image, func() {
				c.helm(image, "upgrade", "--set=podAnnotations.changed=yes", "--wait")
				c.run("", "go", "-C", "hack/release", "tool", "helm", "rollback", "eventflow", "--namespace="+system, "--wait")
			})
		}},
		{"audit", func(c *cluster) { c.audit(audit) }},
		{"uninstall and install again", func(c *cluster) { reinstall(c, image, before, audit) }},
		{"remove", func(c *cluster) { c.removeAll(before) }},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(&cluster{t: t, root: root}) }) {
			t.FailNow() // the parts build on each other
		}
	}
}

// previousTree takes the files of the previous version out of Git, and loads its image.
func (c *cluster) previousTree() string {
	c.t.Helper()
	folder := c.t.TempDir()
	archive := filepath.Join(folder, "previous.tar")
	c.run("", "git", "archive", "--output="+archive, previous)
	tree := filepath.Join(folder, "previous")
	c.run("", "mkdir", tree)
	c.run("", "tar", "-xf", archive, "-C", tree)
	from := *c
	from.root = tree
	from.load(previousImage, ".")
	return tree
}

// waitingTenant is a tenant whose endpoint is unavailable, with an event that is planned for when all of it is over.
func waitingTenant(c *cluster, audit map[string]int) {
	c.rollout(system, "eventflow-dispatcher-default")
	createTenant(c)
	c.apply(reminders)
	c.ready("webhooksubscription/reminders", namespace)
	c.kubectl("--namespace="+namespace, "scale", "deployment/receiver", "--replicas=0")
	due := time.Now().Add(3 * time.Minute).UTC().Format(time.RFC3339)
	pod := c.publisherPod("planned", "ehr", 5)
	pod = strings.Replace(pod, `"type":"appointment.created","data":{"resourceType":"appointment","resourceId":"appt_#"}`,
		fmt.Sprintf(`"type":"patient.created","data":{"resourceType":"patient","resourceId":"pat_#","due":%q}`, due), 1)
	c.apply(pod)
	c.succeeded("planned")
	audit["planned"] = 5
}

// underLoad publishes events while the change takes place, and until the pods run the image that is wanted.
func (c *cluster) underLoad(name string, audit map[string]int, want string, change func()) {
	c.t.Helper()
	const events = 500
	for _, part := range []string{"before", "after"} {
		audit[name+"-"+part] = events
	}
	c.apply(c.publisherPod(name+"-before", "ehr", events))
	c.kubectl("--namespace="+namespace, "wait", "--for=jsonpath={.status.phase}=Running", "--timeout="+patience.String(), "pod/"+name+"-before")
	change()
	c.apply(c.publisherPod(name+"-after", "ehr", events))
	for _, deployment := range []string{"eventflow-manager", "eventflow-dispatcher-default"} {
		c.eventually(deployment+" of "+want, func() bool {
			return c.kubectl("--namespace="+system, "get", "deployment", deployment, "-o", "jsonpath={.spec.template.spec.containers[0].image}") == want
		})
		c.rollout(system, deployment)
	}
	c.ready("webhookdispatcher/default", system)
	c.succeeded(name + "-before")
	c.succeeded(name + "-after")
}

// helm installs or upgrades the release, as docs/helm.md says.
func (c *cluster) helm(image string, args ...string) {
	c.t.Helper()
	source, values := filepath.Join(c.root, "charts", "eventflow"), []string{"--set=image.repository=eventflow,image.tag=dev"}
	if image != eventflowImage {
		source, values = one(c, os.Getenv("RELEASE"), "eventflow-*.tgz"), nil
	}
	command := append([]string{"-C", "hack/release", "tool", "helm", args[0], "eventflow", source, "--namespace=" + system}, args[1:]...)
	c.run("", "go", append(command, values...)...)
}

// audit lets the endpoint answer, and wants every event that was accepted, and each once, or again with the same id.
func (c *cluster) audit(published map[string]int) {
	c.t.Helper()
	c.kubectl("--namespace="+namespace, "scale", "deployment/receiver", "--replicas=1")
	c.rollout(namespace, "receiver")
	missing := []string{}
	c.eventually("every event that was accepted", func() bool {
		arrived := map[string]bool{}
		for _, a := range c.received() {
			if a.Verified && a.Status == 200 {
				arrived[a.EventID] = true
			}
		}
		missing = missing[:0]
		for name, n := range published {
			for i := range n {
				if id := fmt.Sprintf("%s-%d", name, i+1); !arrived[id] {
					missing = append(missing, id)
				}
			}
		}
		return len(missing) == 0
	}, func() { c.t.Logf("%d are missing: %.20q", len(missing), missing) })
	total := 0
	for _, n := range published {
		total += n
	}
	c.t.Logf("%d events were accepted, and all of them arrived", total)
}

// reinstall uninstalls the chart, which keeps what deliveries need, and installs it again, which takes all of it up.
func reinstall(c *cluster, image string, before []string, audit map[string]int) {
	c.run("", "go", "-C", "hack/release", "tool", "helm", "uninstall", "eventflow", "--namespace="+system, "--wait")
	c.eventually("the managers to be gone", func() bool {
		return c.kubectl("--namespace="+system, "get", "pods", "--selector=app.kubernetes.io/component=manager", "-o", "name") == ""
	})
	for _, name := range c.everything() {
		if !slices.Contains(before, name) && !slices.ContainsFunc(kept, func(part string) bool { return strings.Contains(name, part) }) {
			c.t.Errorf("helm uninstall leaves %s, which docs/helm.md does not name", name)
		}
	}
	c.apply(c.publisherPod("without", "ehr", 1)) // it is refused until the dispatcher may ask again who publishes
	c.helm(image, "upgrade", "--install")
	c.rollout(system, "eventflow-manager")
	c.ready("webhookdispatcher/default", system)
	c.succeeded("without")
	audit["without"] = 1
	c.audit(audit)
}

// removeAll removes everything, as docs/helm.md says.
func (c *cluster) removeAll(before []string) {
	c.t.Helper()
	c.kubectl("delete", "namespace", namespace, "--timeout="+patience.String())
	c.kubectl("delete", "webhookdispatchers", "--all", "--all-namespaces", "--timeout="+patience.String())
	c.run("", "go", "-C", "hack/release", "tool", "helm", "uninstall", "eventflow", "--namespace="+system, "--wait")
	c.kubectl("delete", "crd", "webhookdispatchers.webhooks.clinikapi.com", "webhooksubscriptions.webhooks.clinikapi.com", "--timeout="+patience.String())
	c.kubectl("delete", "namespace", system, "--timeout="+patience.String())
	c.asBefore(before)
}
