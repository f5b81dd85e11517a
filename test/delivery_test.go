package test

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// TestFromApplyToASignedDelivery is the product in one test.
func TestFromApplyToASignedDelivery(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	raw := []byte("24 bytes of a random key")
	n.secret("key", map[string]string{"current": "whsec_" + base64.StdEncoding.EncodeToString(raw), "previous": "the key that was there before", "token": "s3cret"})
	n.subscribe("billing-sync", r.URL+"/hooks?tenant=1", `"encounter.*"`,
		"headers: [{name: X-Team, value: billing}, {name: Authorization, valueFrom: {secretKeyRef: {name: key, key: token}}}]",
		"# the key before still signs, so that receivers can change over")
	n.kube("patch", "webhooksubscription", "billing-sync", "--type=merge", "-p", `{"spec":{"signing":{"previousSecretRef":{"name":"key","key":"previous"}}}}`)
	n.ready("billing-sync")

	data := `{ "resourceType":"encounter", "resourceId":"enc_1",  "status":"finished", "emoji":"\u00e9é", "n":1.50 }`
	before := time.Now()
	id, deliveries := n.publish(`{"type":"encounter.updated","timestamp":"2026-01-15T10:15:00.123456+01:00","data":` + data + `,"previous":{"status":"open"}}`)
	if deliveries != 1 || !strings.HasPrefix(id, "evt_") {
		t.Errorf("answered %s with %d deliveries, want one", id, deliveries)
	}
	got := n.waitFor(r, 1)[0]
	want := `{"id":"` + id + `","event":"encounter.updated","type":"encounter.updated","timestamp":"2026-01-15T09:15:00.123Z","data":` + data + `}`
	if got.body != want {
		t.Errorf("body\n%s\nwant\n%s", got.body, want)
	}
	if got.method != http.MethodPost || got.path != "/hooks?tenant=1" {
		t.Errorf("got %s %s", got.method, got.path)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Clinik-Event": "encounter.updated", "X-Clinik-Attempt": "1",
		"X-Clinik-Signature": hexSignature(raw, got.body), "X-ClinikAPI-Signature": hexSignature(raw, got.body),
		"webhook-id": got.id(), "webhook-timestamp": got.header.Get("X-Clinik-Timestamp"),
		"webhook-signature": standardSignature(raw, got) + " " + standardSignature([]byte("the key that was there before"), got),
		"X-Team":            "billing", "Authorization": "s3cret",
	} {
		if have := got.header.Get(name); have != want {
			t.Errorf("header %s is %q, want %q", name, have, want)
		}
	}
	if !strings.HasPrefix(got.id(), "dlv_") {
		t.Errorf("delivery id %q", got.id())
	}
	if sent, err := strconv.ParseInt(got.header.Get("X-Clinik-Timestamp"), 10, 64); err != nil || sent < before.Unix() || sent > time.Now().Unix() {
		t.Errorf("timestamp %q", got.header.Get("X-Clinik-Timestamp"))
	}

	n.condition("billing-sync", "EndpointHealthy", "True", "Delivering")
	n.eventually(func() error {
		columns := strings.Fields(n.kube("get", "webhooksubscriptions", "--no-headers"))
		if len(columns) < 6 || !slices.Equal(columns[:6], []string{"billing-sync", "True", "Ready", "True", "0", "0"}) {
			return fmt.Errorf("kubectl get says %q", columns)
		}
		return nil
	})
	all := n.kube("get", "webhooksubscription", "billing-sync", "-o", "yaml", "--show-managed-fields")
	for _, secret := range []string{"s3cret", base64.StdEncoding.EncodeToString(raw), "enc_1"} {
		if strings.Contains(all, secret) || strings.Contains(system.dispatcher.output(), secret) {
			t.Errorf("%q is shown", secret)
		}
	}
}

// TestEveryPatternOverEveryType publishes each of the 42 types to subscriptions by each kind of pattern.
func TestEveryPatternOverEveryType(t *testing.T) {
	t.Parallel()
	n, other := newTenant(t), newTenant(t)
	everything, family, single, foreign := newReceiver(t, always(200)), newReceiver(t, always(200)), newReceiver(t, always(200)), newReceiver(t, always(200))
	n.subscribe("everything", everything.URL, `"*"`)
	n.subscribe("family", family.URL, `"practitioner.*"`)
	n.subscribe("single", single.URL, `"practitioner-role.deleted", "lab.created"`)
	other.subscribe("everything", foreign.URL, `"*"`)
	n.ready("everything", "family", "single")
	other.ready("everything")

	var events []string
	for _, resource := range event.Resources {
		for _, action := range event.Actions {
			events = append(events, fmt.Sprintf(`{"type":"%s.%s","data":{}}`, resource, action))
		}
	}
	code, _, body := n.request(http.MethodPost, "/events", "application/json", "["+strings.Join(events, ",")+"]")
	var answers []struct{ Deliveries int }
	if err := json.Unmarshal([]byte(body), &answers); err != nil || code != http.StatusAccepted || len(answers) != 42 {
		t.Fatalf("publish: %d %s", code, body)
	}
	total := 0
	for _, a := range answers {
		total += a.Deliveries
	}
	if total != 42+3+2 {
		t.Errorf("%d deliveries, want 47", total)
	}
	types := func(r *receiver, count int) []string {
		var list []string
		for _, got := range n.waitFor(r, count) {
			list = append(list, got.header.Get("X-Clinik-Event"))
		}
		slices.Sort(list)
		return list
	}
	if got := types(everything, 42); len(slices.Compact(got)) != 42 {
		t.Errorf("everything got %v", got)
	}
	if got := types(family, 3); !slices.Equal(got, []string{"practitioner.created", "practitioner.deleted", "practitioner.updated"}) {
		t.Errorf("family got %v", got)
	}
	if got := types(single, 2); !slices.Equal(got, []string{"lab.created", "practitioner-role.deleted"}) {
		t.Errorf("single got %v", got)
	}
	if got := foreign.all(); len(got) != 0 {
		t.Errorf("another namespace received %d events", len(got))
	}
}

// TestRetriesCarryTheSameID lets an endpoint fail, and looks at what it sees and what the status says.
func TestRetriesCarryTheSameID(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	r := newReceiver(t, func(got received) int {
		if got.header.Get("X-Clinik-Attempt") < "3" {
			return http.StatusTooManyRequests
		}
		return http.StatusNoContent
	})
	n.subscribe("a", r.URL, `"lab.created"`, "retry: {initialDelay: 2s, factor: 2, maxDelay: 10s}")
	n.ready("a")
	n.publish(`{"type":"lab.created","data":{"resourceId":"lab_1"}}`)
	n.waitFor(r, 1)
	n.condition("a", "EndpointHealthy", "False", "LastAttemptFailed")
	n.eventually(func() error {
		status := n.kube("get", "webhooksubscription", "a", "-o", "jsonpath={.status.deliveries.retrying} {.status.deliveries.lastFailure.statusCode} {.status.retrying[0].attempts} {.status.retrying[0].eventType}")
		if fields := strings.Fields(status); len(fields) != 4 || fields[0] != "1" || fields[1] != "429" || fields[3] != "lab.created" {
			return fmt.Errorf("status says %q", status)
		}
		return nil
	})
	got := n.waitFor(r, 3)
	n.condition("a", "EndpointHealthy", "True", "Delivering")
	for i, a := range got {
		if a.id() != got[0].id() || a.body != got[0].body || a.header.Get("X-Clinik-Attempt") != strconv.Itoa(i+1) {
			t.Errorf("attempt %d: id %s, attempt %s", i+1, a.id(), a.header.Get("X-Clinik-Attempt"))
		}
		if sent, _ := strconv.ParseInt(a.header.Get("X-Clinik-Timestamp"), 10, 64); a.at.Unix()-sent > 1 {
			t.Errorf("attempt %d carries a timestamp of %d s before", i+1, a.at.Unix()-sent)
		}
		if i > 0 {
			gap, least := a.at.Sub(got[i-1].at), time.Duration(1<<i)*time.Second
			if gap < least || gap > least+least/10+time.Second {
				t.Errorf("attempt %d came after %v, want %v to 10 %% more", i+1, gap, least)
			}
		}
	}
}

// TestGivenUpAndReplayed gives a delivery up after two attempts, finds it in the list, and replays it.
func TestGivenUpAndReplayed(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusInternalServerError))
	n.subscribe("a", r.URL, `"*"`, "retry: {initialDelay: 1s, maxAttempts: 2}")
	n.ready("a")
	n.publish(`{"type":"lab.created","data":{}}`)
	id := n.waitFor(r, 2)[0].id()
	n.eventually(func() error {
		code, _, body := n.request(http.MethodGet, "/deliveries?subscription=a&state=Failed", "", "")
		if code != http.StatusOK || !strings.Contains(body, `"id":"`+id+`"`) {
			return fmt.Errorf("the list says %d %s", code, body)
		}
		return nil
	})
	r.answer(always(http.StatusOK))
	code, _, body := n.request(http.MethodPost, "/deliveries/"+id+"/replay", "", "")
	if code != http.StatusAccepted {
		t.Fatalf("replay: %d %s", code, body)
	}
	got := n.waitFor(r, 3)[2]
	if got.id() != id || got.header.Get("X-Clinik-Attempt") != "3" {
		t.Errorf("the replay came as %s, attempt %s", got.id(), got.header.Get("X-Clinik-Attempt"))
	}
	n.eventually(func() error {
		_, _, body := n.request(http.MethodGet, "/deliveries/"+id, "", "")
		var d struct {
			State        string
			AttemptCount int
			Attempts     []struct{ StatusCode int }
		}
		if err := json.Unmarshal([]byte(body), &d); err != nil || d.State != "Delivered" || d.AttemptCount != 3 || len(d.Attempts) != 3 || d.Attempts[2].StatusCode != 200 {
			return fmt.Errorf("the delivery is %s", body)
		}
		return nil
	})
	if !hmac.Equal([]byte(got.header.Get("X-Clinik-Signature")), []byte(hexSignature([]byte(signingKey), got.body))) {
		t.Error("the replay is not signed by the current key")
	}
}
