package test

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// TestTriggerInACluster: with no flag but the kubeconfig, the dispatcher is found; its Service is for pods, and the error says how
// to reach it. Through that way, as a ServiceAccount that may publish, a sample is delivered.
func TestTriggerInACluster(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	n.subscribe("alerts", r.URL, `"observation.created"`, `filter: event.data.flag in ['high', 'critical']`)
	n.ready("alerts")
	trigger := func(arguments ...string) (string, error) {
		arguments = append([]string{"trigger", "alerts", "-n", n.namespace, "--type", "observation.created", "--kubeconfig", system.admin}, arguments...)
		out, err := exec.CommandContext(n.ctx, system.binary, arguments...).CombinedOutput()
		return string(out), err
	}
	const forward = `run "kubectl -n eventflow-system port-forward service/eventflow-dispatcher-default 8080:443", and add --server https://localhost:8080`
	if out, err := trigger(); err == nil || !strings.Contains(out, forward) {
		t.Errorf("where the Service cannot be reached: %v\n%s", err, out)
	}
	if out, err := trigger("--server", "http://"+system.api); err == nil || !strings.Contains(out, "--service-account") {
		t.Errorf("with a client certificate, which is no token: %v\n%s", err, out)
	}
	out, err := trigger("--server", "http://"+system.api, "--service-account", "publisher")
	if err != nil || !strings.Contains(out, "1 delivery.") || !strings.Contains(out, "Delivered, attempt 1: answer 200") {
		t.Errorf("as a ServiceAccount: %v\n%s", err, out)
	}
	if got := n.waitFor(r, 1)[0].body; !strings.Contains(got, `"flag":"high"`) {
		t.Errorf("the receiver got %s", got)
	}
}
