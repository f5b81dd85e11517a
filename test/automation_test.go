package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/test/kit/fakes"
)

// TestAutomation walks a reminder's life: it is planned, moved, cancelled, sent as the provider expects it, and not sent again
// once the provider says that it never will be taken.
func TestAutomation(t *testing.T) {
	t.Parallel()
	n := newTenant(t)
	twilio := fakes.NewTwilio(t, nil, "secret", "+15550100000")
	twilio.Disconnect("+15550100009")
	n.secret("twilio", map[string]string{"username": fakes.TwilioSID, "password": "secret"})
	n.subscribe("reminder", twilio.MessagesURL(), `"appointment.created", "appointment.updated"`,
		`filter: event.data.phone != null && !(event.data.status in ['cancelled'])`,
		`schedule:`,
		`  at: timestamp(event.data.start) - duration('24h')`,
		`  key: event.data.id`,
		`  cancelOn:`,
		`  - {events: [appointment.deleted]}`,
		`  - {events: [appointment.updated], filter: "event.data.status == 'cancelled'"}`,
		`  recheck: now < timestamp(event.data.start)`,
		`auth: {basic: {secretRef: {name: twilio}}}`,
		`transform:`,
		`  contentType: application/x-www-form-urlencoded`,
		`  body: "{'To': event.data.phone, 'From': '+15550100000', 'Body': 'Tomorrow at ' + formatTime(event.data.start, 'UTC', '15:04')}"`,
		`outcome: {giveUp: response.status == 400}`)
	n.ready("reminder")
	event := func(typ, id, phone, status string, start time.Time) int {
		t.Helper()
		_, deliveries := n.publish(fmt.Sprintf(`{"type":"appointment.%s","data":{"id":%q,"phone":%q,"status":%q,"start":%q}}`,
			typ, id, phone, status, start.UTC().Format(time.RFC3339Nano)))
		return deliveries
	}
	now := time.Now()
	soon, late := now.Add(24*time.Hour+3*time.Second), now.Add(72*time.Hour)

	for id, status := range map[string]string{"sent": "booked", "moved-away": "booked", "cancelled": "booked", "deleted": "booked"} {
		if got := event("created", id, "+15550100001", status, soon); got != 1 {
			t.Errorf("%s plans %d deliveries, want 1", id, got)
		}
	}
	event("created", "moved-near", "+15550100002", "booked", late)
	event("created", "past", "+15550100001", "booked", now.Add(23*time.Hour))
	event("updated", "moved-away", "+15550100001", "booked", late)
	event("updated", "moved-near", "+15550100003", "booked", soon)
	event("updated", "cancelled", "+15550100001", "cancelled", soon)
	event("deleted", "deleted", "+15550100001", "booked", soon)

	want := map[string]bool{"+15550100001": true, "+15550100003": true}
	n.eventually(func() error {
		if got := len(twilio.All()); got < len(want) {
			return fmt.Errorf("%d messages, want %d", got, len(want))
		}
		return nil
	})
	for _, got := range twilio.All() {
		form, err := url.ParseQuery(got.Body)
		if err != nil {
			t.Fatal(err)
		}
		if !want[form.Get("To")] || form.Get("Body") != "Tomorrow at "+soon.UTC().Format("15:04") {
			t.Errorf("the provider got %v", form)
		}
		delete(want, form.Get("To"))
		if got.Status != http.StatusCreated || got.Header.Get("X-Clinik-Signature") != hexSignature([]byte(signingKey), got.Body) {
			t.Errorf("%d, and the headers are %v", got.Status, got.Header)
		}
		if planned := soon.Add(-24 * time.Hour); got.At.Before(planned.Add(-time.Second)) {
			t.Errorf("it came at %s, planned for %s", got.At, planned)
		}
	}
	n.listed("reminder", "Scheduled", 1)
	n.listed("reminder", "Cancelled", 5) // replaced twice, cancelled twice, past once

	event("created", "no-number", "+15550100009", "booked", time.Now().Add(24*time.Hour+time.Second))
	n.listed("reminder", "Failed", 1)
}

// listed waits until the API lists as many deliveries of a subscription in a state.
func (n *tenant) listed(subscription, state string, want int) {
	n.Helper()
	n.eventually(func() error {
		code, _, body := n.request(http.MethodGet, "/deliveries?subscription="+subscription+"&state="+state, "", "")
		if got := strings.Count(body, `"state"`); code != http.StatusOK || got != want {
			return fmt.Errorf("%d %s deliveries (%d), want %d: %s", got, state, code, want, body)
		}
		return nil
	})
}

// TestTransformThatFails: a request that cannot be made is not sent raw; mending the spec delivers it. What an API answers
// decides.
func TestTransformThatFails(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	n.subscribe("alert", r.URL, `"observation.created"`, `retry: {initialDelay: 1s, maxDelay: 1s}`,
		`transform: {body: "{'text': 'value ' + event.data.value}"}`)
	n.ready("alert")
	n.publish(`{"type":"observation.created","data":{"value":7}}`)
	n.condition("alert", "TransformHealthy", "False", "WrongType")
	if got := r.all(); len(got) != 0 {
		t.Errorf("%d requests arrived, want none: %v", len(got), got)
	}
	n.kube("patch", "webhooksubscription", "alert", "--type=merge", "-p", `{"spec":{"transform":{"body":"{'text': 'value ' + toString(event.data.value)}"}}}`)
	if got := n.waitFor(r, 1)[0].body; got != `{"text":"value 7"}` {
		t.Errorf("the body is %s", got)
	}
}

// TestLookup: the encounter is read with credentials of its own just before the claim is made of it; what either API gets are
// its own credentials alone.
func TestLookup(t *testing.T) {
	t.Parallel()
	n, r := newTenant(t), newReceiver(t, always(http.StatusOK))
	n.secret("clinikapi", map[string]string{"token": "read-token"})
	n.secret("billing", map[string]string{"key": "billing-key"})
	asked := make(chan http.Header, 16)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked <- q.Header.Clone()
		if q.Method != http.MethodGet || q.URL.RequestURI() != "/v1/encounters/enc_1?include=Observation" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, `{"data":{"patientId":"pt_1","observations":[{"code":"99213"},{"code":"85025"}]}}`)
	}))
	t.Cleanup(api.Close)
	n.subscribe("claim", r.URL, `"encounter.updated"`,
		`filter: "event.data.status == 'finished' && event.previous.status != 'finished'"`,
		`lookup:`,
		`  url: "'`+api.URL+`/v1/encounters/' + urlEscape(event.data.id) + '?include=Observation'"`,
		`  auth: {bearer: {secretKeyRef: {name: clinikapi, key: token}}}`,
		`auth: {apiKey: {header: X-Api-Key, secretKeyRef: {name: billing, key: key}}}`,
		`transform:`,
		`  headers: [{name: Idempotency-Key, value: delivery.id}]`,
		`  body: "{'patient': lookup.data.patientId, 'codes': lookup.data.observations.map(o, o.code)}"`)
	n.ready("claim")
	n.publish(`{"type":"encounter.updated","data":{"id":"enc_1","status":"finished"},"previous":{"status":"open"}}`)
	got := n.waitFor(r, 1)[0]
	if want := `{"codes":["99213","85025"],"patient":"pt_1"}`; got.body != want {
		t.Errorf("the claim is %s, want %s", got.body, want)
	}
	if got.header.Get("X-Api-Key") != "billing-key" || got.header.Get("Authorization") != "" || got.header.Get("Idempotency-Key") != got.id() {
		t.Errorf("the claim's headers are %v", got.header)
	}
	header := <-asked
	if header.Get("Authorization") != "Bearer read-token" || header.Get("X-Api-Key") != "" {
		t.Errorf("the lookup's headers are %v", header)
	}
}
