package fakes

import (
	"testing"
	"time"

	"github.com/clinikapi/eventflow/test/kit/samples"
)

// Clinic is all providers that the automations call, with the credentials and the senders that the samples name.
type Clinic struct {
	Twilio   *Twilio
	Slack    *Slack
	Postmark *Postmark
	Clinik   *Clinik
	Billing  *Billing
	Pharmacy *Pharmacy
}

// NewClinic starts all fakes. The encounter enc_1 exists.
func NewClinic(t testing.TB, now func() time.Time) *Clinic {
	t.Helper()
	return &Clinic{
		Twilio:   NewTwilio(t, now, "twilio-token", "+15550100000"),
		Slack:    NewSlack(t, now, "xoxb-slack", "#clinical-alerts"),
		Postmark: NewPostmark(t, now, "postmark-token", "alerts@clinic.example.com", "hello@clinic.example.com"),
		Billing:  NewBilling(t, now, "billing-key"),
		Pharmacy: NewPharmacy(t, now, "clinic-a", "pharmacy secret/+"),
		Clinik: NewClinik(t, now, "clinik-token", map[string]map[string]any{"enc_1": {
			"id": "enc_1", "patientId": "pt_1", "status": "finished", "date": "2026-03-02", "diagnoses": []any{"E11.9"},
			"observations":       []any{map[string]any{"code": "99213"}, map[string]any{"code": "85025"}},
			"medicationRequests": []any{map[string]any{"code": "860975"}},
		}}),
	}
}

// Setting is what a clinic fills into the samples to reach the fakes.
func (c *Clinic) Setting(namespace string) samples.Setting {
	return samples.Setting{
		Namespace: namespace,
		Hosts: map[string]string{
			"https://slack.com":            c.Slack.URL,
			"https://api.postmarkapp.com":  c.Postmark.URL,
			"https://api.clinikapi.com":    c.Clinik.URL,
			"https://billing.example.com":  c.Billing.URL,
			"https://pharmacy.example.com": c.Pharmacy.URL,
		},
		Secrets: map[string]map[string]string{
			"twilio":    {"username": c.Twilio.account, "password": c.Twilio.token, "url": c.Twilio.MessagesURL()},
			"clinikapi": {"token": c.Clinik.token},
			"billing":   {"key": c.Billing.key},
			"slack":     {"token": c.Slack.token},
			"postmark":  {"token": c.Postmark.token},
			"pharmacy":  {"clientID": c.Pharmacy.client, "clientSecret": c.Pharmacy.secret},
		},
	}
}
