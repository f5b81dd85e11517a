package test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestWhatIsWrongIsSaid applies subscriptions that cannot be accepted.
func TestWhatIsWrongIsSaid(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	n.secret("broken", map[string]string{"current": "whsec_!", "newline": "a\nb", "nul": "a\x00b", "url": "/relative"})
	subscription := func(name, spec string) {
		n.apply("apiVersion: webhooks.clinikapi.com/v1alpha1\nkind: WebhookSubscription\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n")
	}
	const key, url = `signing: {secretRef: {name: key, key: current}}`, `url: "http://127.0.0.1:9"`
	for name, test := range map[string]struct{ spec, wantReason string }{
		"unknown-resource": {url + `, events: ["claim.*"], ` + key, "UnknownResource"},
		"no-secret":        {url + `, events: ["*"], signing: {secretRef: {name: absent, key: current}}`, "SecretNotFound"},
		"no-key":           {url + `, events: ["*"], signing: {secretRef: {name: key, key: absent}}`, "SecretKeyMissing"},
		"bad-key":          {url + `, events: ["*"], signing: {secretRef: {name: broken, key: current}}`, "SecretKeyInvalid"},
		"newline-header":   {url + `, events: ["*"], headers: [{name: X-A, valueFrom: {secretKeyRef: {name: broken, key: newline}}}], ` + key, "InvalidHeader"},
		"nul-header":       {url + `, events: ["*"], headers: [{name: X-A, valueFrom: {secretKeyRef: {name: broken, key: nul}}}], ` + key, "InvalidHeader"},
		"relative-url":     {`urlFrom: {secretKeyRef: {name: broken, key: url}}, events: ["*"], ` + key, "InvalidURL"},
		"no-dispatcher":    {url + `, events: ["*"], dispatcherRef: {name: absent}, ` + key, "DispatcherNotFound"},
	} {
		subscription(name, test.spec)
		n.condition(name, "Accepted", "False", test.wantReason)
		n.condition(name, "Ready", "False", test.wantReason)
	}
	if _, deliveries := n.publish(`{"type":"patient.created","data":{}}`); deliveries != 0 {
		t.Errorf("%d deliveries to subscriptions that were never accepted", deliveries)
	}
	for name, spec := range map[string]string{
		"pattern":      url + `, events: ["patient.*.created"], ` + key,
		"scheme":       `url: "ftp://example.com", events: ["*"], ` + key,
		"header":       url + `, events: ["*"], headers: [{name: X-A, value: "a\nb"}], ` + key,
		"unknown":      url + `, events: ["*"], someday: "true", ` + key,
		"no-signature": url + `, events: ["*"]`,
	} {
		manifest := "apiVersion: webhooks.clinikapi.com/v1alpha1\nkind: WebhookSubscription\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"
		if out, err := system.kube(n.ctx, manifest, "-n", n.namespace, "apply", "-f", "-"); err == nil {
			t.Errorf("%s: the API server took it: %s", name, out)
		}
	}
}

// TestDeliveriesWaitForTheirSecret loses a Secret while deliveries wait, and rotates it.
func TestDeliveriesWaitForTheirSecret(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	n.subscribe("a", r.URL, `"patient.*"`)
	n.ready("a")
	n.kube("delete", "secret", "key")
	n.condition("a", "Ready", "False", "SecretNotFound")
	n.condition("a", "Programmed", "False", "Waiting")
	if _, deliveries := n.publish(`{"type":"patient.created","data":{"n":1}}`); deliveries != 1 {
		t.Fatalf("%d deliveries while the Secret is gone, want 1: it must wait", deliveries)
	}
	if got := r.all(); len(got) != 0 {
		t.Fatal("delivered without a key")
	}
	n.secret("key", map[string]string{"current": "another key of plain text"})
	n.ready("a")
	if got := n.waitFor(r, 1)[0]; got.header.Get("X-Clinik-Signature") != hexSignature([]byte("another key of plain text"), got.body) {
		t.Error("not signed by the new key")
	}
	// A rotation takes effect without touching the subscription.
	n.secret("key", map[string]string{"current": "a third key of plain text"})
	n.eventually(func() error {
		n.publish(`{"type":"patient.updated","data":{}}`)
		all := r.all()
		if got := all[len(all)-1]; got.header.Get("X-Clinik-Signature") != hexSignature([]byte("a third key of plain text"), got.body) {
			return fmt.Errorf("still signed by the key before")
		}
		return nil
	})
	n.kube("patch", "secret", "key", "--type=json", "-p", `[{"op":"remove","path":"/data/current"}]`)
	n.condition("a", "Accepted", "False", "SecretKeyMissing")
}

// TestSuspendEditDelete does each while deliveries wait.
func TestSuspendEditDelete(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	down, up := newReceiver(t, always(http.StatusInternalServerError)), newReceiver(t, always(http.StatusOK))
	patch := func(name, spec string) {
		n.kube("patch", "webhooksubscription", name, "--type=merge", "-p", `{"spec":`+spec+`}`)
		n.ready(name)
	}
	const retry = "retry: {initialDelay: 5s, factor: 1}"
	n.subscribe("suspended", up.URL+"/suspended", `"patient.*"`, "suspend: true")
	n.subscribe("edited", down.URL+"/edited", `"lab.*"`, retry)
	n.subscribe("deleted", down.URL+"/deleted", `"note.*"`, retry)
	n.ready("suspended", "edited", "deleted")
	for _, kind := range []string{"patient", "lab", "note"} {
		if _, deliveries := n.publish(`{"type":"` + kind + `.created","data":{}}`); deliveries != 1 {
			t.Fatalf("%s: %d deliveries, want 1", kind, deliveries)
		}
	}
	n.waitFor(down, 2)
	if len(up.all()) != 0 {
		t.Error("delivered while suspended")
	}
	patch("suspended", `{"suspend":false}`)
	patch("edited", `{"url":"`+up.URL+`/new"}`)
	n.kube("delete", "webhooksubscription", "deleted")
	got := n.waitFor(up, 2)
	for _, a := range got {
		if a.path == "/new" && a.header.Get("X-Clinik-Attempt") != "2" {
			t.Errorf("the edited subscription's delivery came as attempt %s, want 2", a.header.Get("X-Clinik-Attempt"))
		}
	}
	n.eventually(func() error {
		code, _, body := n.request(http.MethodGet, "/deliveries?subscription=deleted", "", "")
		if code != http.StatusOK || !strings.Contains(body, `"state":"Cancelled"`) {
			return fmt.Errorf("the deleted subscription's deliveries: %d %s", code, body)
		}
		return nil
	})
	if _, deliveries := n.publish(`{"type":"note.created","data":{}}`); deliveries != 0 {
		t.Errorf("%d deliveries to a deleted subscription", deliveries)
	}
}

// TestGone stops at 410 and goes on once the spec changed.
func TestGone(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusGone))
	n.subscribe("a", r.URL, `"*"`, "retry: {initialDelay: 1s, factor: 1}")
	n.ready("a")
	n.publish(`{"type":"patient.created","data":{}}`)
	n.condition("a", "EndpointHealthy", "False", "Gone")
	n.condition("a", "Ready", "False", "Gone")
	// By the time that another endpoint has had its retries, this one would have had some, too.
	other := newReceiver(t, func(got received) int {
		if got.header.Get("X-Clinik-Attempt") < "3" {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	n.subscribe("b", other.URL, `"*"`, "retry: {initialDelay: 1s, factor: 1}")
	n.ready("b")
	n.publish(`{"type":"patient.created","data":{}}`)
	n.waitFor(other, 3)
	if got := r.all(); len(got) != 1 {
		t.Errorf("%d attempts at an endpoint that is gone", len(got))
	}
	r.answer(always(http.StatusOK))
	n.kube("patch", "webhooksubscription", "a", "--type=merge", "-p", `{"spec":{"timeout":"20s"}}`)
	n.waitFor(r, 3)
	n.ready("a")
}

// TestBadRequests sends what a broken producer might. Each gets a problem document, and nothing is stored.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	n.subscribe("a", r.URL, `"*"`)
	n.ready("a")
	const good = `{"type":"patient.created","data":{}}`
	for name, test := range map[string]struct {
		path, contentType, body string
		wantCode                int
		wantDetail              string
	}{
		"malformed":        {"/events", "application/json", `{"type":`, 400, "JSON"},
		"empty":            {"/events", "application/json", "", 400, "empty"},
		"no data":          {"/events", "application/json", `{"type":"patient.created"}`, 400, "data"},
		"unknown key":      {"/events", "application/json", `{"type":"patient.created","data":{},"x":1}`, 400, "x"},
		"too large":        {"/events", "application/json", `{"type":"patient.created","data":{"x":"` + strings.Repeat("x", 2<<20) + `"}}`, 413, "1"},
		"content type":     {"/events", "text/plain", good, 415, "application/json"},
		"unknown type":     {"/events", "application/json", `{"type":"patient.renamed","data":{}}`, 422, "patient"},
		"one bad of three": {"/events", "application/json", "[" + good + `,{"type":"x.created","data":{}},` + good + "]", 422, ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, header, body := n.request(http.MethodPost, test.path, test.contentType, test.body)
			if code != test.wantCode || header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, test.wantDetail) {
				t.Errorf("answered %d %s %s, want %d and %q", code, header.Get("Content-Type"), body, test.wantCode, test.wantDetail)
			}
		})
	}
	elsewhere := *n
	elsewhere.namespace = "no-such-namespace"
	if code, _, body := elsewhere.request(http.MethodPost, "/events", "application/json", good); code != http.StatusForbidden {
		t.Errorf("an unknown namespace: %d %s, want 403", code, body)
	}
	elsewhere.token = "not a token"
	if code, _, _ := elsewhere.request(http.MethodPost, "/events", "application/json", good); code != http.StatusUnauthorized {
		t.Errorf("a bad token: %d, want 401", code)
	}
	if code, _, body := n.request(http.MethodGet, "/deliveries", "", ""); code != http.StatusOK || !strings.Contains(body, `"items":[]`) {
		t.Errorf("something was stored: %d %s", code, body)
	}
	if got := r.all(); len(got) != 0 {
		t.Errorf("%d deliveries", len(got))
	}
}

// outage is how long the API server is unavailable.
const outage = time.Minute

// TestAPIServerAway publishes while neither manager nor dispatcher reaches the API server. Nothing waits for it, and
// statuses catch up. It runs alone, for the others need the API server.
func TestAPIServerAway(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	n.subscribe("a", r.URL, `"*"`)
	n.ready("a")
	n.publish(`{"type":"patient.created","data":{}}`) // the token is known from now on
	system.link.cut(true)
	published := 1
	for end := time.Now().Add(outage); time.Now().Before(end); {
		n.publish(`{"type":"patient.updated","data":{}}`)
		published++
		n.waitFor(r, published)
		<-time.After(500 * time.Millisecond)
	}
	system.link.cut(false)
	n.eventually(func() error {
		if got := n.kube("get", "webhooksubscription", "a", "-o", "jsonpath={.status.deliveries.delivered}"); got != fmt.Sprint(published) {
			return fmt.Errorf("the status says %q delivered, want %d", got, published)
		}
		return nil
	})
	// The manager and the routing table go on, too.
	n.subscribe("b", r.URL, `"*"`)
	n.ready("b")
}
