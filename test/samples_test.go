package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/test/kit/fakes"
	"github.com/clinikapi/eventflow/test/kit/samples"
)

// automation is a tenant with one of the samples applied as it stands, and the providers that it calls.
type automation struct {
	*tenant
	*fakes.Clinic
}

// newAutomation applies a folder of config/samples/automations, and waits until its subscriptions are ready.
func newAutomation(t *testing.T, folder string, names ...string) *automation {
	t.Helper()
	a := &automation{tenant: newTenant(t), Clinic: fakes.NewClinic(t, nil)}
	a.apply(samples.Read(t, "../config/samples/automations", folder, a.Setting(a.namespace)))
	a.ready(names...)
	return a
}

// event publishes one; data are the fields of its data.
func (a *automation) event(kind string, data, previous map[string]any) {
	a.Helper()
	text, err := json.Marshal(map[string]any{"type": kind, "data": data, "previous": previous})
	if err != nil {
		a.Fatal(err)
	}
	a.publish(string(text))
}

// got waits until a provider has answered as many requests with a status, and returns those.
func (a *automation) got(p *fakes.Provider, status, count int) []fakes.Request {
	a.Helper()
	var found []fakes.Request
	a.eventually(func() error {
		found = nil
		for _, r := range p.All() {
			if r.Status == status {
				found = append(found, r)
			}
		}
		if len(found) != count {
			return fmt.Errorf("%d requests were answered %d, want %d: %v", len(found), status, count, p.All())
		}
		return nil
	})
	return found
}

// sendNow sends what a subscription has planned, without waiting for its time.
func (a *automation) sendNow(subscription string, count int) {
	a.Helper()
	a.listed(subscription, "Scheduled", count)
	_, _, body := a.request(http.MethodGet, "/deliveries?state=Scheduled&subscription="+subscription, "", "")
	var list struct{ Items []struct{ ID string } }
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		a.Fatal(err)
	}
	for _, item := range list.Items {
		if code, _, body := a.request(http.MethodPost, "/deliveries/"+item.ID+"/sendnow", "", ""); code != http.StatusAccepted {
			a.Fatalf("sendnow: %d %s", code, body)
		}
	}
}

// TestSampleSMS: the three messages of an appointment are what Twilio takes; a number that does not exist is given up.
func TestSampleSMS(t *testing.T) {
	t.Parallel()
	a := newAutomation(t, "sms", "sms-confirmation", "sms-reminder", "sms-follow-up")
	a.Twilio.Disconnect("+15550100009")
	start := time.Now().Add(72 * time.Hour).UTC().Truncate(time.Second)
	appointment := func(id, phone string) map[string]any {
		return map[string]any{"id": id, "status": "booked", "patientPhone": phone, "start": start, "end": start.Add(time.Hour)}
	}
	a.event("appointment.created", appointment("appt_1", "+15550100001"), nil)
	a.event("appointment.created", map[string]any{"id": "appt_2", "status": "booked", "start": start}, nil) // no phone
	a.sendNow("sms-reminder", 1)
	a.sendNow("sms-follow-up", 1)
	a.confirm("Delivered", 1)
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	when := start.In(zone)
	want := map[string]bool{
		"Your appointment is confirmed for " + when.Format("Monday, January 2, 3:04 PM") + ".": true,
		"Reminder: you have an appointment on " + when.Format("Monday at 3:04 PM") + ".":       true,
		"Thank you for your visit. How did it go? Reply 1 (poor) to 5 (great).":                true,
	}
	for _, r := range a.got(a.Twilio.Provider, http.StatusCreated, 3) {
		form, err := url.ParseQuery(r.Body)
		if err != nil || !want[form.Get("Body")] || form.Get("To") != "+15550100001" || len(form) != 3 {
			t.Errorf("Twilio got %v (%v)", form, err)
		}
		delete(want, form.Get("Body"))
	}
	a.event("appointment.created", appointment("appt_3", "+15550100009"), nil)
	a.sendNow("sms-reminder", 1)
	a.confirm("Failed", 1)
	a.got(a.Twilio.Provider, http.StatusBadRequest, 2)
	a.listed("sms-reminder", "Failed", 1)
}

// confirm sends the confirmations that quiet hours hold back, and waits until so many ended in a state. By day they go at once.
func (a *automation) confirm(state string, count int) {
	a.Helper()
	a.eventually(func() error {
		_, _, body := a.request(http.MethodGet, "/deliveries?subscription=sms-confirmation", "", "")
		var list struct{ Items []struct{ ID, State string } }
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			return err
		}
		ended := 0
		for _, item := range list.Items {
			switch item.State {
			case state:
				ended++
			case "Scheduled":
				a.request(http.MethodPost, "/deliveries/"+item.ID+"/sendnow", "", "")
			}
		}
		if ended != count {
			return fmt.Errorf("%d confirmations are %s, want %d: %s", ended, state, count, body)
		}
		return nil
	})
}

// TestSampleBilling: an encounter that became finished is read and becomes one claim; one that was finished already, and
// one that is still open, become none. A claim that is wrong is given up.
func TestSampleBilling(t *testing.T) {
	t.Parallel()
	a := newAutomation(t, "billing", "billing-claim")
	finished, open := map[string]any{"id": "enc_1", "status": "finished"}, map[string]any{"id": "enc_1", "status": "in-progress"}
	a.event("encounter.updated", open, nil)
	a.event("encounter.updated", finished, finished)
	a.event("encounter.updated", finished, open)
	got := a.got(a.Billing.Provider, http.StatusCreated, 1)[0]
	want := `{"codes":["99213","85025"],"date":"2026-03-02","diagnoses":["E11.9"],"encounterId":"enc_1","patientId":"pt_1","prescriptions":["860975"]}`
	if plain(t, got.Body) != want {
		t.Errorf("the claim is %s, want %s", plain(t, got.Body), want)
	}
	if got.Header.Get("Authorization") != "" || got.Header.Get("Idempotency-Key") != got.Header.Get("X-Clinik-Delivery-Id") {
		t.Errorf("the claim's headers are %v", got.Header)
	}
	read := a.got(a.Clinik.Provider, http.StatusOK, 1)[0]
	if read.Path != "/v1/encounters/enc_1?include=Observation,MedicationRequest" || read.Header.Get("X-Api-Key") != "" {
		t.Errorf("the lookup is %s with %v", read.Path, read.Header)
	}
	a.Billing.Break(http.StatusUnprocessableEntity)
	a.event("encounter.updated", finished, open)
	a.listed("billing-claim", "Failed", 1)
}

// TestSampleCareTeam: Slack and the provider's mailbox hear of a result that became critical, and of no other. What Slack
// answers with ok false is a failure, and is retried; an address that takes no mail is given up.
func TestSampleCareTeam(t *testing.T) {
	t.Parallel()
	a := newAutomation(t, "care-team", "care-team-slack", "care-team-email")
	a.Postmark.Deactivate("gone@example.com")
	result := func(flag, email string) map[string]any {
		return map[string]any{"id": "obs_1", "patientId": "pt_1", "code": "Troponin <T>", "value": 1.5, "unit": "ng/mL", "flag": flag, "providerEmail": email}
	}
	a.Slack.Leave("#clinical-alerts")
	const soon = `{"spec":{"retry":{"initialDelay":"1s","maxDelay":"1s"}}}`
	a.kube("patch", "webhooksubscription", "care-team-slack", "--type=merge", "-p", soon)
	a.ready("care-team-slack")
	a.event("observation.created", result("normal", "doctor@example.com"), nil)
	a.event("observation.updated", result("critical", "doctor@example.com"), result("critical", ""))
	a.event("observation.updated", result("critical", "doctor@example.com"), result("high", ""))
	a.eventually(func() error {
		if all := a.Slack.All(); len(all) == 0 || !strings.Contains(all[0].Answer, "channel_not_found") {
			return fmt.Errorf("Slack got %v", all)
		}
		return nil
	})
	a.Slack.Join("#clinical-alerts")
	a.listed("care-team-slack", "Delivered", 1)
	all := a.Slack.All()
	said := all[len(all)-1]
	if want := `{"channel":"#clinical-alerts","text":"Abnormal result for patient pt_1: Troponin &lt;T&gt; = 1.5 ng/mL (critical)"}`; plain(t, said.Body) != want {
		t.Errorf("Slack got %s, want %s", plain(t, said.Body), want)
	}
	mail := a.got(a.Postmark.Provider, http.StatusOK, 1)[0]
	if !strings.Contains(mail.Body, `"To":"doctor@example.com"`) || strings.Contains(mail.Body, "Troponin") || mail.Header.Get("Authorization") != "" {
		t.Errorf("the email is %s with %v", mail.Body, mail.Header)
	}
	a.event("observation.created", result("high", "gone@example.com"), nil)
	a.got(a.Postmark.Provider, http.StatusUnprocessableEntity, 1)
	a.listed("care-team-email", "Failed", 1)
}

// TestSampleOnboarding: a new patient gets a welcome and one intake form; the reminder is planned, and dropped when that
// patient's answers come, not by the empty form and not by another patient's.
func TestSampleOnboarding(t *testing.T) {
	t.Parallel()
	a := newAutomation(t, "onboarding", "onboarding-welcome", "onboarding-intake", "onboarding-reminder")
	patient := func(id string) map[string]any {
		return map[string]any{"id": id, "firstName": "Ada", "email": id + "@example.com"}
	}
	a.event("patient.created", patient("pt_1"), nil)
	a.event("patient.created", patient("pt_2"), nil)
	for _, mail := range a.got(a.Postmark.Provider, http.StatusOK, 2) {
		if !strings.Contains(mail.Body, `"Subject":"Welcome to our practice"`) || !strings.Contains(mail.Body, "Dear Ada") {
			t.Errorf("the email is %s", mail.Body)
		}
	}
	a.got(a.Clinik.Provider, http.StatusCreated, 2)
	if got := a.Clinik.Intakes(); got != 2 {
		t.Errorf("%d intakes, want 2", got)
	}
	a.event("intake.created", map[string]any{"id": "in_1", "patientId": "pt_1", "responses": []any{}}, nil)
	a.event("intake.created", map[string]any{"id": "in_1", "patientId": "pt_2", "responses": []any{"yes"}}, nil)
	a.listed("onboarding-reminder", "Cancelled", 1)
	a.sendNow("onboarding-reminder", 1)
	reminder := a.got(a.Postmark.Provider, http.StatusOK, 3)[2]
	if !strings.Contains(reminder.Body, `"To":"pt_1@example.com"`) || !strings.Contains(reminder.Body, "still empty") {
		t.Errorf("the reminder is %s", reminder.Body)
	}
}

// TestSamplePharmacy: the pharmacy gets the prescription with an access token, a fresh one once that is refused, and the
// patient an SMS.
func TestSamplePharmacy(t *testing.T) {
	t.Parallel()
	a := newAutomation(t, "pharmacy", "pharmacy-order", "pharmacy-sms")
	prescription := map[string]any{
		"id": "rx_1", "patientId": "pt_1", "medication": "Metformin & co", "dosage": "500 mg", "practitionerId": "pr_1", "patientPhone": "+15550100001",
	}
	a.event("prescription.created", prescription, nil)
	order := a.got(a.Pharmacy.Provider, http.StatusAccepted, 1)[0]
	if want := `{"dosage":"500 mg","medication":"Metformin & co","patientId":"pt_1","prescriberId":"pr_1"}`; plain(t, order.Body) != want {
		t.Errorf("the pharmacy got %s, want %s", plain(t, order.Body), want)
	}
	form, err := url.ParseQuery(a.got(a.Twilio.Provider, http.StatusCreated, 1)[0].Body)
	if err != nil || form.Get("Body") != "Your prescription for Metformin & co has been sent to your pharmacy." {
		t.Errorf("Twilio got %v (%v)", form, err)
	}
	a.Pharmacy.Revoke()
	delete(prescription, "patientPhone")
	a.event("prescription.created", prescription, nil)
	a.got(a.Pharmacy.Provider, http.StatusAccepted, 2)
	if got := a.Pharmacy.Orders(); got != 2 {
		t.Errorf("%d orders, want 2", got)
	}
	a.listed("pharmacy-order", "Delivered", 2)
	a.got(a.Twilio.Provider, http.StatusCreated, 1)
}

// plain is a JSON object with its keys in order, and without escapes that JSON does not need.
func plain(t *testing.T, text string) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(fields); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}
