package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// triggered runs eventflow trigger against the plane, and returns what it prints and its exit code.
func (p *plane) triggered(arguments ...string) (out string, code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, "eventflow", append([]string{"trigger", "-n", "clinic-a", "--server", "http://" + p.api}, arguments...)...)
	command.Env = append(os.Environ(), "KUBECONFIG=nowhere", "HTTP_PROXY=")
	text, err := command.CombinedOutput()
	if ctx.Err() != nil {
		p.t.Fatalf("eventflow trigger did not end:\n%s", text)
	}
	if err != nil && command.ProcessState == nil {
		p.t.Fatal(err)
	}
	return string(text), command.ProcessState.ExitCode()
}

// TestTrigger follows a sample to each of its ends, through a dispatcher without a cluster.
func TestTrigger(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	p := newPlane(t, e.URL)
	more := fmt.Sprintf(`
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: reminder, namespace: clinic-a}
spec:
  url: %[1]s
  events: [appointment.*]
  schedule: {at: "timestamp(event.data.start) - duration('24h')", cancelOn: [{events: [appointment.deleted]}]}
  signing: {secretRef: {name: keys, key: current}}
---
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: once, namespace: clinic-a}
spec:
  url: %[1]s
  events: [lab.created]
  retry: {maxAttempts: 1}
  signing: {secretRef: {name: keys, key: current}}
`, e.URL)
	if err := os.WriteFile(filepath.Join(p.dir, "routes", "more.yaml"), []byte(more), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the dispatcher takes the subscriptions", func() bool {
		_, answer := p.post(`{"type":"lab.created","data":{}}`)
		return strings.Contains(answer, `"deliveries":2`)
	})

	for _, test := range []struct {
		status    int
		arguments []string
		code      int
		want      []string
	}{
		{http.StatusOK, []string{"all", "--type", "encounter.updated"}, 0, []string{"Published encounter.updated (evt_", "1 delivery", "all ", "Delivered, attempt 1: answer 200"}},
		{http.StatusOK, []string{"--type", "appointment.created", "--timeout", "10s"}, 0, []string{"2 deliveries", "reminder ", "Scheduled for ", "all ", "Delivered"}},
		{http.StatusOK, []string{"reminder", "--type", "lab.created"}, 1, []string{"subscription reminder has no delivery of the event: eventflow test says why"}},
		{http.StatusOK, []string{"all", "--type", "patient.created", "--follow=false"}, 0, []string{"1 delivery"}},
		{http.StatusInternalServerError, []string{"once", "--type", "lab.created"}, 1, []string{"Failed, attempt 1: StatusCode, answer 500", "eventflow: the delivery to once failed"}},
		{http.StatusInternalServerError, []string{"all", "--type", "note.created", "--timeout", "4s"}, 1, []string{"Pending, attempt 1: StatusCode, answer 500", "; next attempt at ", "has not ended within 4s"}},
		{http.StatusOK, []string{"--type", "claim.created"}, 2, []string{`--type="claim.created": there is no sample of the type: give its data`}},
		{http.StatusOK, []string{"--type", "lab.created", "--id", "a b"}, 2, []string{`--id="a b": want 1 to 128`}},
		{http.StatusOK, []string{"--type", "lab.created", "--data", "nowhere.json"}, 2, []string{"--data: read nowhere.json: no such file"}},
		{http.StatusOK, nil, 2, []string{"--type is missing"}},
	} {
		e.fail(test.status)
		out, code := p.triggered(test.arguments...)
		if code != test.code {
			t.Errorf("%v: exit code %d, want %d", test.arguments, code, test.code)
		}
		for _, want := range test.want {
			if !strings.Contains(out, want) {
				t.Errorf("%v: the output lacks %q:\n%s", test.arguments, want, out)
			}
		}
	}
}

// TestTriggerFollows prints each change of a delivery that is retried until it succeeds, and sends what --data says.
func TestTriggerFollows(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.answers(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Clinik-Attempt") == "1" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	p := newPlane(t, e.URL)
	data := filepath.Join(t.TempDir(), "data.json")
	if err := os.WriteFile(data, []byte(`{"own":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	out, code := p.triggered("all", "--type", "encounter.updated", "--data", data, "--previous", data, "--id", "own-1")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	at := 0
	for _, want := range []string{"Published encounter.updated (own-1)", "Pending, attempt 1: StatusCode, answer 503", "Delivered, attempt 2: answer 200"} {
		next := strings.Index(out[at:], want)
		if next < 0 {
			t.Fatalf("the output lacks %q, or has it elsewhere (after %s):\n%s", want, time.Since(begun), out)
		}
		at += next
	}
	for _, a := range e.received() {
		if !strings.HasSuffix(string(a.body), `"data":{"own":true}}`) {
			t.Errorf("the endpoint got %s", a.body)
		}
	}
}

// TestTriggerEveryType publishes a sample of each of the 42 types into a running system, and follows its delivery to the end.
func TestTriggerEveryType(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	p := newPlane(t, e.URL)
	list, _ := p.triggered("--list-types")
	types := strings.Fields(list)
	if len(types) != 42 {
		t.Fatalf("%d types: %s", len(types), list)
	}
	for _, kind := range types {
		out, code := p.triggered("all", "--type", kind)
		if code != 0 || !strings.Contains(out, "Published "+kind+" (evt_") || !strings.Contains(out, "Delivered, attempt 1: answer 200") {
			t.Errorf("%s: exit code %d\n%s", kind, code, out)
		}
	}
	got := map[string]int{}
	for _, a := range e.received() {
		var body struct {
			Type string
			Data map[string]any
		}
		if err := json.Unmarshal(a.body, &body); err != nil || len(body.Data) == 0 {
			t.Errorf("the endpoint got %s (%v)", a.body, err)
		}
		got[body.Type]++
	}
	for _, kind := range types {
		if got[kind] != 1 {
			t.Errorf("%d deliveries of %s, want 1", got[kind], kind)
		}
	}
}
