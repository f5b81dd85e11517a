package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// tenant is a namespace of one test's own, with a Secret "key" and the right to publish.
type tenant struct {
	*testing.T
	ctx       context.Context
	namespace string
	token     string
}

var tenants atomic.Int64

const signingKey = "a signing key of plain text"

func newTenant(t *testing.T) *tenant {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	n := &tenant{T: t, ctx: ctx, namespace: fmt.Sprintf("clinic-%d", tenants.Add(1))}
	n.kube("create", "namespace", n.namespace)
	n.secret("key", map[string]string{"current": signingKey})
	n.kube("create", "serviceaccount", "publisher")
	n.kube("create", "rolebinding", "publisher", "--clusterrole=eventflow-publisher", "--serviceaccount="+n.namespace+":publisher")
	n.kube("create", "rolebinding", "reader", "--clusterrole=eventflow-editor", "--serviceaccount="+n.namespace+":publisher")
	n.token = strings.TrimSpace(n.kube("create", "token", "publisher", "--duration=1h"))
	return n
}

// kube runs kubectl in the tenant's namespace.
func (n *tenant) kube(args ...string) string {
	n.Helper()
	out, err := system.kube(n.ctx, "", append([]string{"-n", n.namespace}, args...)...)
	if err != nil {
		n.Fatal(err)
	}
	return out
}

func (n *tenant) apply(manifest string) {
	n.Helper()
	if _, err := system.kube(n.ctx, manifest, "-n", n.namespace, "apply", "-f", "-"); err != nil {
		n.Fatal(err)
	}
}

func (n *tenant) secret(name string, data map[string]string) {
	n.Helper()
	manifest, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]string{"name": name}, "stringData": data})
	if err != nil {
		n.Fatal(err)
	}
	n.apply(string(manifest))
}

// subscribe applies a subscription with the given further lines of spec.
func (n *tenant) subscribe(name, url, events string, more ...string) {
	n.Helper()
	lines := ""
	for _, line := range more {
		lines += "  " + line + "\n"
	}
	n.apply(fmt.Sprintf(`
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: %s}
spec:
  url: %s
  events: [%s]
  signing: {secretRef: {name: key, key: current}}
%s`, name, url, events, lines))
}

func (n *tenant) ready(names ...string) {
	n.Helper()
	for _, name := range names {
		n.kube("wait", "--for=condition=Ready", "--timeout=60s", "webhooksubscription/"+name)
	}
}

// condition waits until the subscription's condition is as wanted.
func (n *tenant) condition(name, kind, status, reason string) {
	n.Helper()
	want := status + "/" + reason
	n.eventually(func() error {
		got := n.kube("get", "webhooksubscription", name, "-o", fmt.Sprintf(`jsonpath={range .status.conditions[?(@.type==%q)]}{.status}/{.reason}{end}`, kind))
		if got != want {
			return fmt.Errorf("%s is %q, want %q", kind, got, want)
		}
		return nil
	})
}

// eventually polls check for up to a minute.
func (n *tenant) eventually(check func() error) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, time.Minute)
	defer cancel()
	if err := poll(ctx, check); err != nil {
		n.Fatal(err)
	}
}

// apiClient gives up before its test does.
var apiClient = &http.Client{Timeout: time.Minute}

// request speaks to the dispatcher's API.
func (n *tenant) request(method, path, contentType, body string) (int, http.Header, string) {
	n.Helper()
	q, err := http.NewRequestWithContext(n.ctx, method, "http://"+system.api+"/v1/namespaces/"+n.namespace+path, bytes.NewReader([]byte(body)))
	if err != nil {
		n.Fatal(err)
	}
	if contentType != "" {
		q.Header.Set("Content-Type", contentType)
	}
	q.Header.Set("Authorization", "Bearer "+n.token)
	response, err := apiClient.Do(q)
	if err != nil {
		n.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		n.Fatal(err)
	}
	return response.StatusCode, response.Header, string(text)
}

// publish posts an event and returns how many deliveries it caused.
func (n *tenant) publish(event string) (id string, deliveries int) {
	n.Helper()
	code, _, body := n.request(http.MethodPost, "/events", "application/json", event)
	var answer struct {
		ID         string
		Deliveries int
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusAccepted {
		n.Fatalf("publish: %d %s", code, body)
	}
	return answer.ID, answer.Deliveries
}

// waitFor waits until the receiver has got so many requests, and returns them.
func (n *tenant) waitFor(r *receiver, count int) []received {
	n.Helper()
	n.eventually(func() error {
		if got := len(r.all()); got < count {
			return fmt.Errorf("%d requests arrived, want %d", got, count)
		}
		return nil
	})
	return r.all()
}
