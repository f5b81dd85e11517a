package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is how long the cluster may take for one thing.
const patience = 3 * time.Minute

// cluster is the one that KUBECONFIG names.
type cluster struct {
	t    *testing.T
	root string // of the checkout
}

// run runs a command in the checkout, and returns what it wrote to stdout. It must succeed.
func (c *cluster) run(input, name string, args ...string) string {
	c.t.Helper()
	out, err := c.try(input, name, args...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return out
}

// try runs a command that may fail.
func (c *cluster) try(input, name string, args ...string) (string, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.t.Context()), patience+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin = c.root, strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		c.t.Logf("%s %s: %s%s", name, strings.Join(args, " "), &stdout, &stderr)
	}
	return stdout.String(), err
}

// kubectl runs kubectl; it must succeed.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	return c.run("", "kubectl", args...)
}

// apply applies manifests.
func (c *cluster) apply(manifests string) {
	c.t.Helper()
	c.run(manifests, "kubectl", "apply", "-f", "-")
}

// rollout waits until a Deployment is as it should be.
func (c *cluster) rollout(namespace, deployment string) {
	c.t.Helper()
	c.kubectl("--namespace="+namespace, "wait", "--for=create", "--timeout="+patience.String(), "deployment/"+deployment)
	c.kubectl("--namespace="+namespace, "rollout", "status", "--timeout="+patience.String(), "deployment/"+deployment)
}

// load builds the package as a static binary and makes an image of it.
func (c *cluster) load(image, pkg string) {
	c.t.Helper()
	binary := filepath.Join(c.t.TempDir(), "app")
	c.run("", "env", "CGO_ENABLED=0", "GOOS=linux", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, pkg)
	loader := strings.Fields(os.Getenv("LOAD_IMAGE"))
	c.run("", loader[0], append(loader[1:], image, binary)...)
}

// eventually waits until done returns true. If that takes too long, it says why.
func (c *cluster) eventually(what string, done func() bool, why ...func()) {
	c.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			for _, say := range why {
				say()
			}
			c.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// explain shows what there is if the test failed.
func (c *cluster) explain(namespace string) {
	if !c.t.Failed() {
		return
	}
	for _, args := range [][]string{
		{"get", "pods,webhooksubscriptions,webhookdispatchers", "--all-namespaces", "-o", "wide"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"},
		{"--namespace=" + namespace, "get", "webhooksubscriptions", "-o", "yaml"},
		{"--namespace=" + system, "get", "webhookdispatchers", "-o", "yaml"},
		{"--namespace=" + system, "logs", "deployment/eventflow-manager", "--tail=40"},
		{"--namespace=" + system, "logs", "deployment/eventflow-dispatcher-default", "--tail=40"},
	} {
		out, _ := c.try("", "kubectl", args...)
		c.t.Logf("kubectl %s\n%s", strings.Join(args, " "), out)
	}
}
