package deliveries

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
)

// secret is in every payload, and nowhere else.
const secret = "Jane Doe's file"

const apiPath = "/apis/deliveries.webhooks.clinikapi.com/v1alpha1/namespaces/"

// TestDeliveriesInKubectl: kubectl reads, selects, describes, watches and replays deliveries, with a user's own rights.
func TestDeliveriesInKubectl(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, token := c.account("clinic-a", "producer")
	c.publish(c.dispatcher, token, "clinic-a", "evt-delivered")
	c.publish(c.dispatcher, token, "clinic-b", "evt-of-b")
	c.has("clinic-a", "Delivered", 1)
	c.answer.Store(http.StatusInternalServerError)
	c.publish(c.dispatcher, token, "clinic-a", "evt-failed")
	c.has("clinic-a", "Failed", 1)

	c.checkTable()
	c.checkDiscovery()
	c.checkDescribe()
	c.checkErrors()
	c.checkViewer()
	c.checkFrontProxy()
	c.checkWithoutStore()
	c.checkWatchAndReplay()
	c.checkStops()
}

// names are those of a namespace's deliveries in a state, "" for all.
func (c *cluster) names(namespace, state string) []string {
	c.Helper()
	args := []string{"-n", namespace, "get", "webhookdeliveries", "-o", "name"}
	if state != "" {
		args = append(args, "--field-selector=state="+state)
	}
	out := c.kube(args...)
	return strings.Fields(strings.ReplaceAll(out, "webhookdelivery.deliveries.webhooks.clinikapi.com/", ""))
}

// has waits until a namespace has that many deliveries in a state.
func (c *cluster) has(namespace, state string, want int) {
	c.Helper()
	c.eventually(func() error {
		if got := c.names(namespace, state); len(got) != want {
			return fmt.Errorf("%s: %d deliveries are %s, want %d", namespace, len(got), state, want)
		}
		return nil
	})
}

func (c *cluster) checkTable() {
	c.Helper()
	out := c.kube("-n", "clinic-a", "get", "whd")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if want := []string{"NAME", "STATE", "EVENT", "SUBSCRIPTION", "ATTEMPTS", "LAST", "NEXT", "AGE"}; !slices.Equal(strings.Fields(lines[0]), want) || len(lines) != 3 {
		c.Errorf("kubectl get:\n%s", out)
	}
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > 120 {
			c.Errorf("%d characters: %s", n, line)
		}
	}
	failed := c.kube("-n", "clinic-a", "get", "webhookdeliveries", "--field-selector=state=Failed", "--no-headers")
	if strings.Count(failed, "\n") != 1 || !strings.Contains(failed, "Failed") {
		c.Errorf("kubectl get --field-selector state=Failed:\n%s", failed)
	}
	if paged := c.kube("-n", "clinic-a", "get", "whd", "--chunk-size=1", "--no-headers"); strings.Count(paged, "\n") != 2 {
		c.Errorf("kubectl get --chunk-size=1:\n%s", paged)
	}
	if events := c.kube("-n", "clinic-a", "get", "webhookevents", "--no-headers"); strings.Count(events, "\n") != 2 {
		c.Errorf("kubectl get webhookevents:\n%s", events)
	}
	payload := c.kube("get", "--raw", apiPath+"clinic-a/webhookevents/evt-failed/payload")
	if !strings.Contains(payload, secret) {
		c.Errorf("the admin got no payload: %s", payload)
	}
}

func (c *cluster) checkDiscovery() {
	c.Helper()
	began := time.Now()
	out := c.kube("api-resources")
	for _, want := range []string{"webhookdeliveries", "whd", "webhookevents", "pods"} {
		if !strings.Contains(out, want) {
			c.Errorf("kubectl api-resources has no %s:\n%s", want, out)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		c.Errorf("kubectl api-resources took %v", took)
	}
	if ready := c.kube("get", "--raw", "/openapi/v3"); !strings.Contains(ready, "apis/deliveries.webhooks.clinikapi.com/v1alpha1") {
		c.Error("the API's OpenAPI is not aggregated")
	}
}

func (c *cluster) checkDescribe() {
	c.Helper()
	name := c.names("clinic-a", "Failed")[0]
	out := c.kube("-n", "clinic-a", "describe", "whd", name)
	for _, want := range []string{name, "Attempts:", "Number:", "500", "StatusCode", "lab.created", "evt-failed"} {
		if !strings.Contains(out, want) {
			c.Errorf("kubectl describe says no %s:\n%s", want, out)
		}
	}
	if strings.Contains(out, secret) {
		c.Error("kubectl describe shows the payload")
	}
}

// checkErrors: kubectl prints what is refused as it prints any other refusal.
func (c *cluster) checkErrors() {
	c.Helper()
	for want, args := range map[string][]string{
		"(NotFound)":         {"-n", "clinic-a", "get", "whd", "dlv_absent"},
		"MethodNotAllowed":   {"-n", "clinic-a", "delete", "whd", c.names("clinic-a", "Failed")[0]},
		"in all namespaces":  {"get", "whd", "-A"},
		"labelSelector":      {"-n", "clinic-a", "get", "whd", "-l", "a=b"},
		"no field \"color\"": {"-n", "clinic-a", "get", "whd", "--field-selector=color=red"},
		"could not find the": {"get", "--raw", "/apis/deliveries.webhooks.clinikapi.com/v2"},
	} {
		if out, err := c.kubectl(c.admin, "", args...); err == nil || !strings.Contains(out, want) {
			c.Errorf("kubectl %s: %v, want %q", strings.Join(args, " "), out, want)
		}
	}
}

// checkViewer: who may look at clinic-a's deliveries sees nothing of clinic-b's, and no payload.
func (c *cluster) checkViewer() {
	c.Helper()
	viewer, _ := c.account("clinic-a", "viewer")
	if out, err := c.kubectl(viewer, "", "-n", "clinic-a", "get", "whd", "--no-headers"); err != nil || strings.Count(out, "\n") != 2 {
		c.Errorf("the viewer of clinic-a: %v\n%s", err, out)
	}
	of := c.names("clinic-b", "")[0]
	page := c.kube("get", "--raw", apiPath+"clinic-a/webhookdeliveries?limit=1")
	_, token, _ := strings.Cut(page, `"continue":"`)
	token, _, _ = strings.Cut(token, `"`)
	for name, args := range map[string][]string{
		"list":            {"-n", "clinic-b", "get", "whd"},
		"get":             {"-n", "clinic-b", "get", "whd", of},
		"events":          {"-n", "clinic-b", "get", "webhookevents"},
		"watch":           {"-n", "clinic-b", "get", "whd", "-w"},
		"all":             {"get", "whd", "-A"},
		"absent":          {"-n", "clinic-b", "get", "whd", "dlv_absent"},
		"token":           {"get", "--raw", apiPath + "clinic-b/webhookdeliveries?limit=1&continue=" + token},
		"selector":        {"-n", "clinic-b", "get", "whd", "--field-selector=color=red"},
		"payload":         {"get", "--raw", apiPath + "clinic-a/webhookevents/evt-failed/payload"},
		"payload of b":    {"get", "--raw", apiPath + "clinic-b/webhookevents/evt-of-b/payload"},
		"replay":          {"create", "--raw", apiPath + "clinic-a/webhookdeliveries/" + c.names("clinic-a", "Failed")[0] + "/replay", "-f", os.DevNull},
		"impersonated":    {"-n", "clinic-b", "get", "whd", "--as=admin", "--as-group=system:masters"},
		"of b by clinicA": {"get", "--raw", apiPath + "clinic-a/../clinic-b/webhookdeliveries"},
	} {
		out, err := c.kubectl(viewer, "", args...)
		if err == nil || !strings.Contains(out, "orbidden") {
			c.Errorf("%s: the viewer was not refused: %v\n%s", name, err, out)
		}
		if strings.Contains(out, secret) || name != "get" && strings.Contains(out, of) {
			c.Errorf("%s: shows something of clinic-b:\n%s", name, out)
		}
	}
	if out, err := c.kubectl(viewer, "", "-n", "clinic-a", "get", "whd", of); err == nil || !strings.Contains(out, "NotFound") {
		c.Errorf("clinic-b's delivery in clinic-a: %v\n%s", err, out)
	}
}

// checkWatchAndReplay: kubectl get -w shows a replay as it happens.
func (c *cluster) checkWatchAndReplay() {
	c.Helper()
	name := c.names("clinic-a", "Failed")[0]
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	watching := c.command(ctx, c.admin, "-n", "clinic-a", "get", "whd", "-w", "--no-headers")
	out, err := watching.StdoutPipe()
	if err != nil {
		c.Fatal(err)
	}
	if err := watching.Start(); err != nil {
		c.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 2 { // those that are there
		if !lines.Scan() {
			c.Fatal("kubectl get -w ended")
		}
	}
	c.answer.Store(http.StatusOK)
	answer := c.kubeIn("{}", "create", "--raw", apiPath+"clinic-a/webhookdeliveries/"+name+"/replay", "-f", "-")
	if !strings.Contains(answer, `"kind":"WebhookDelivery"`) {
		c.Errorf("the answer to a replay: %s", answer)
	}
	c.kube("-n", "clinic-a", "wait", "whd/"+name, "--for=jsonpath={.status.state}=Delivered", "--timeout=30s")
	delivered := false
	for !delivered && lines.Scan() {
		delivered = strings.Contains(lines.Text(), "Delivered")
	}
	if !delivered {
		c.Error("kubectl get -w did not show what became of the replay")
	}
	cancel()
	_ = watching.Wait() // it was killed
	c.has("clinic-a", "Delivered", 2)
}

// checkStops: a dispatcher with a watch under way ends tidily, without one kubectl api-resources does not hang, and with the
// next one all is as before.
func (c *cluster) checkStops() {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	watching := c.command(ctx, c.admin, "get", "--raw", apiPath+"clinic-a/webhookdeliveries?watch=true&timeoutSeconds=3000")
	out, err := watching.StdoutPipe()
	if err != nil {
		c.Fatal(err)
	}
	if err := watching.Start(); err != nil {
		c.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		c.Fatal("the watch ended")
	}
	began := time.Now()
	if err := c.end(c.dispatcher, syscall.SIGTERM); err != nil {
		c.Errorf("the dispatcher ended with %v", err)
	}
	if took := time.Since(began); took > 4*time.Second { // below shutdownTimeout: nothing waited for the watch
		c.Errorf("the stop took %v", took)
	}
	for lines.Scan() {
	}
	if err := watching.Wait(); err != nil {
		c.Errorf("the watch did not end tidily: %v", err)
	}

	began = time.Now()
	resources, _ := c.kubectl(c.admin, "", "api-resources") // which may say that one group is missing
	if took := time.Since(began); took > 30*time.Second || !strings.Contains(resources, "pods") {
		c.Errorf("without a dispatcher, kubectl api-resources took %v:\n%s", took, resources)
	}
	c.dispatcher = c.startDispatcher("store", c.address)
	c.available()
	c.has("clinic-a", "Delivered", 2)
}
