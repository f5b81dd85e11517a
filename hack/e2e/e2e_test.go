package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	system    = "eventflow-system"
	namespace = "e2e"
	// eventflowImage is the one of config/default.
	eventflowImage = "eventflow:dev"
)

// tenant is a receiver behind a Service, its subscription, a producer that may publish and one that may not.
const tenant = `
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: e2e}
stringData: {current: whsec_ZW5kIHRvIGVuZCwgb25seSBmb3IgaXRzIHRlc3Rz}
---
apiVersion: v1
kind: Service
metadata: {name: receiver, namespace: e2e}
spec: {selector: {app: receiver}, ports: [{port: 80, targetPort: 9400}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: receiver, namespace: e2e}
spec:
  selector: {matchLabels: {app: receiver}}
  template:
    metadata: {labels: {app: receiver}}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: receiver
        image: ` + eventflowImage + `
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        imagePullPolicy: IfNotPresent
        args: [demo, receive, --listen=:9400, --output=json]
        env: [{name: DEMO_KEY, valueFrom: {secretKeyRef: {name: keys, key: current}}}]
        readinessProbe: {httpGet: {path: /healthz, port: 9400}, periodSeconds: 1}
---
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: receiver, namespace: e2e}
spec:
  url: http://receiver.e2e.svc/hooks
  events: ["appointment.*"]
  signing: {secretRef: {name: keys, key: current}}
  retry: {initialDelay: 1s, factor: 1, maxDelay: 1s}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ehr, namespace: e2e}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: stranger, namespace: e2e}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: ehr-publishes, namespace: e2e}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: eventflow-publisher}
subjects: [{kind: ServiceAccount, name: ehr, namespace: e2e}]
`

// publisher is a pod that publishes events, as the ServiceAccount that is filled in.
const publisher = `
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: e2e}
spec:
  serviceAccountName: %s
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: publisher
    image: ` + eventflowImage + `
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    imagePullPolicy: IfNotPresent
    volumeMounts: [{name: ca, mountPath: /etc/eventflow-ca, readOnly: true}]
    args:
    - demo
    - publish
    - --to=%s
    - --ca-file=%s
    - --namespace=e2e
    - --token-file=/var/run/secrets/kubernetes.io/serviceaccount/token
    - --retry-for=3m
    - --count=%d
    - --event={"id":"%[1]s-#","type":"appointment.created","data":{"resourceType":"appointment","resourceId":"appt_#"}}
  volumes: [{name: ca, configMap: {name: eventflow-ca, optional: true}}]
`

// publisherPod publishes where the dispatcher says that it is reached, and trusts what it says is to be trusted.
func (c *cluster) publisherPod(name, account string, events int) string {
	c.t.Helper()
	status := func(field string) string {
		return c.kubectl("--namespace="+system, "get", "webhookdispatcher", "default", "-o", "jsonpath={.status."+field+"}")
	}
	to, ca := status("publishURL"), ""
	if strings.HasPrefix(to, "https:") {
		bundle, err := json.Marshal(c.kubectl("--namespace="+system, "get", "configmap", "eventflow-ca-default", "-o", `jsonpath={.data.ca\.crt}`))
		if err != nil {
			c.t.Fatal(err)
		}
		c.apply(fmt.Sprintf(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "eventflow-ca", "namespace": %q}, "data": {"ca.crt": %s}}`, namespace, bundle))
		ca = "/etc/eventflow-ca/ca.crt"
	}
	return fmt.Sprintf(publisher, name, account, to, ca, events)
}

// received is what the demo receiver logs of an attempt.
type received struct {
	Path, Type, EventID, DeliveryID string
	Attempt, Status                 int
	Verified, Duplicate             bool
}

func TestEndToEnd(t *testing.T) {
	if os.Getenv("LOAD_IMAGE") == "" && os.Getenv("LOAD_ARCHIVE") == "" {
		t.Skip("neither LOAD_IMAGE nor LOAD_ARCHIVE is set: there is no cluster to try it on")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, root: root}
	t.Cleanup(func() { c.explain(namespace) })
	image, before := provide(c), c.everything()

	for _, part := range []struct {
		name string
		run  func(*cluster)
	}{
		{"install", func(c *cluster) { install(c, image) }},
		{"readme", readme},
		{"a tenant", createTenant},
		{"a stranger is refused", refuseStranger},
		{"an event arrives", deliver},
		{"a restart loses nothing", restart},
		{"deliveries in kubectl", func(c *cluster) { deliveriesInKubectl(c, image) }},
		{"remove", func(c *cluster) { remove(c, before) }},
		{"the chart in any order", func(c *cluster) { inAnyOrder(c, image, before) }},
	} {
		ok := t.Run(part.name, func(t *testing.T) { part.run(&cluster{t: t, root: root}) })
		if !ok {
			t.FailNow() // the parts build on each other
		}
	}
}

func install(c *cluster, image string) {
	c.kubectl(append([]string{"apply"}, manifests(c, image)...)...)
	c.run("", "make", "deploy", "IMAGE="+image) // the same, with the image that one says
	c.rollout(system, "eventflow-manager")
	c.rollout(system, "eventflow-dispatcher-default")
	c.ready("webhookdispatcher/default", system)
}

// createTenant lets the dispatcher deliver within the cluster, and subscribes a receiver.
func createTenant(c *cluster) {
	c.kubectl("--namespace="+system, "patch", "webhookdispatcher", "default", "--type=merge",
		"--patch", `{"spec":{"egress":{"allowHTTP":true,"allowedCIDRs":["10.0.0.0/8"]}}}`)
	c.kubectl("create", "namespace", namespace)
	c.apply(tenant)
	c.rollout(namespace, "receiver")
	c.ready("webhooksubscription/receiver", namespace)
	c.rollout(system, "eventflow-dispatcher-default")
}

func refuseStranger(c *cluster) {
	c.apply(c.publisherPod("refused", "stranger", 1))
	c.kubectl("--namespace="+namespace, "wait", "--for=jsonpath={.status.phase}=Failed", "--timeout="+patience.String(), "pod/refused")
	if log := c.kubectl("--namespace="+namespace, "logs", "refused"); !strings.Contains(log, "403") || !strings.Contains(log, "webhookevents") {
		c.t.Errorf("a producer without the role was told %q, want 403 and what is missing", log)
	}
}

// deliver takes an event from a pod to a Service, and back into the status.
func deliver(c *cluster) {
	c.apply(c.publisherPod("first", "ehr", 1))
	c.succeeded("first")
	if log := c.kubectl("--namespace="+namespace, "logs", "first"); log != `202 {"id":"first-1","deliveries":1}`+"\n" {
		c.t.Errorf("the publisher was told %q", log)
	}
	c.delivered(1)
	got := c.received()
	if len(got) != 1 {
		c.t.Fatalf("received %+v, want one attempt", got)
	}
	want := received{Path: "/hooks", Type: "appointment.created", EventID: "first-1", DeliveryID: got[0].DeliveryID, Attempt: 1, Status: 200, Verified: true}
	if got[0] != want || !strings.HasPrefix(got[0].DeliveryID, "dlv_") {
		c.t.Errorf("received %+v, want %+v", got[0], want)
	}
	for _, condition := range []string{"Accepted", "Programmed", "EndpointHealthy", "Ready"} {
		c.kubectl("--namespace="+namespace, "wait", "--for=condition="+condition, "--timeout="+patience.String(), "webhooksubscription/receiver")
	}
	table := strings.Fields(c.kubectl("--namespace="+namespace, "get", "webhooksubscriptions", "--no-headers"))
	if len(table) < 6 || strings.Join(table[:6], " ") != "receiver True Ready True 0 0" {
		c.t.Errorf("kubectl get shows %v", table)
	}
}

// restart restarts the dispatcher while events are published and the receiver is unavailable.
func restart(c *cluster) {
	const events = 30
	c.kubectl("--namespace="+namespace, "scale", "deployment/receiver", "--replicas=0")
	c.kubectl("--namespace="+namespace, "wait", "--for=delete", "--timeout="+patience.String(), "pod", "--selector=app=receiver")
	c.apply(c.publisherPod("second", "ehr", events))
	c.eventually("a delivery that waits", func() bool {
		return c.kubectl("--namespace="+namespace, "get", "webhooksubscription", "receiver", "-o", "jsonpath={.status.deliveries.oldestPendingTime}") != ""
	})
	c.kubectl("--namespace="+system, "rollout", "restart", "deployment/eventflow-dispatcher-default")
	c.apply(c.publisherPod("third", "ehr", events)) // meets a dispatcher that is stopping, away, or back
	c.rollout(system, "eventflow-dispatcher-default")
	c.succeeded("second")
	c.succeeded("third")
	c.kubectl("--namespace="+namespace, "scale", "deployment/receiver", "--replicas=1")
	c.delivered(1 + 2*events)
	arrived := make(map[string]bool)
	for _, a := range c.received() {
		if !a.Verified {
			c.t.Errorf("not verified: %+v", a)
		}
		arrived[a.EventID] = true
	}
	if len(arrived) != 2*events {
		c.t.Errorf("%d events arrived, want %d", len(arrived), 2*events)
	}
}

// remove removes what install installed and the tests made, and looks at what is left.
func remove(c *cluster, before []string) {
	c.kubectl("delete", "namespace", namespace, "clinic-a", "--timeout="+patience.String())
	c.kubectl("delete", "webhookdispatchers", "--all", "--all-namespaces", "--timeout="+patience.String())
	c.withoutRights()
	c.run("", "make", "undeploy")
	c.asBefore(before)
}

// withoutRights waits until the manager has taken back what it gave to dispatchers.
func (c *cluster) withoutRights() {
	c.t.Helper()
	c.eventually("the dispatchers' ServiceAccounts to lose their rights", func() bool {
		return c.kubectl("get", "clusterrolebinding", "eventflow-dispatcher-status", "-o", "jsonpath={.subjects}") == ""
	})
}

// succeeded waits until a publisher has published all.
func (c *cluster) succeeded(pod string) {
	c.t.Helper()
	c.kubectl("--namespace="+namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout="+patience.String(), "pod/"+pod)
}

// delivered waits until the status counts that many deliveries.
func (c *cluster) delivered(n int) {
	c.t.Helper()
	c.kubectl("--namespace="+namespace, "wait", fmt.Sprintf("--for=jsonpath={.status.deliveries.delivered}=%d", n), "--timeout="+patience.String(), "webhooksubscription/receiver")
}

// received is what the receiver's pod has logged.
func (c *cluster) received() []received {
	c.t.Helper()
	var all []received
	for line := range strings.Lines(c.kubectl("--namespace="+namespace, "logs", "deployment/receiver")) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var one received
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			c.t.Fatalf("the receiver logged %q: %v", line, err)
		}
		all = append(all, one)
	}
	return all
}
