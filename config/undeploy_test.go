package config_test

import (
	"os/exec"
	"strings"
	"testing"
)

// registered is what the manager makes for the deliveries API.
const registered = `
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata:
  name: v1alpha1.deliveries.webhooks.clinikapi.com
  labels: {app.kubernetes.io/managed-by: eventflow-manager}
spec:
  group: deliveries.webhooks.clinikapi.com
  version: v1alpha1
  groupPriorityMinimum: 1000
  versionPriority: 10
  service: {namespace: eventflow-system, name: eventflow-deliveries-default}
`

// testUndeploy removes what was installed, although no manager runs that would take back what it made for dispatchers.
func testUndeploy(t *testing.T) {
	// What earlier versions made for each dispatcher has the manager's label.
	const (
		made  = "eventflow-dispatcher-status:clinic-a:scaled"
		label = "app.kubernetes.io/managed-by=eventflow-manager"
	)
	if output, err := runKubectl(t, onDatabase, "apply", "-f", "-"); err != nil {
		t.Fatal(output)
	}
	for _, binding := range []string{made, "of-somebody-else"} {
		kubectl(t, "create", "clusterrolebinding", binding, "--clusterrole=eventflow-dispatcher-status", "--user=x")
	}
	kubectl(t, "label", "clusterrolebinding", made, label)
	// And what it registered: it would keep namespaces from being deleted.
	if output, err := runKubectl(t, registered, "apply", "-f", "-"); err != nil {
		t.Fatal(output)
	}
	for range 2 { // the second time, nothing is there
		// No controller runs that would finish the deletion of a namespace.
		use := "KUBECTL=" + environment.ControlPlane.KubectlPath + " --kubeconfig=" + kubeconfig + " --wait=false"
		if output, err := exec.CommandContext(t.Context(), "make", "-C", "..", "undeploy", use).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		kubectl(t, "wait", "--for=delete", "--timeout=60s", "crd", "webhookdestinations.webhooks.clinikapi.com", "webhookdispatchers.webhooks.clinikapi.com", "webhookreplays.webhooks.clinikapi.com", "webhooksubscriptions.webhooks.clinikapi.com")
	}
	if left := kubectl(t, "get", "apiservices", "-o", "name"); strings.Contains(left, "deliveries.webhooks") {
		t.Errorf("the deliveries API is still registered: %s", left)
	}
	left := kubectl(t, "get", "clusterroles,clusterrolebindings", "-o", "name")
	for line := range strings.Lines(left) {
		if strings.Contains(line, "eventflow") {
			t.Errorf("%s is left", strings.TrimSpace(line))
		}
	}
	if !strings.Contains(left, "of-somebody-else") {
		t.Error("a binding was deleted that the manager did not make")
	}
	if phase := kubectl(t, "get", "namespace", "eventflow-system", "-o", "jsonpath={.status.phase}"); phase != "Terminating" {
		t.Errorf("the namespace is %s", phase)
	}
}
