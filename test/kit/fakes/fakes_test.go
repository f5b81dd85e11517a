package fakes

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestRefusals: each fake takes the request that its provider documents, and refuses each that lacks a part of it, with the
// provider's own answer.
func TestRefusals(t *testing.T) {
	t.Parallel()
	c := NewClinic(t, nil)
	c.Twilio.Disconnect("+15550100009")
	c.Postmark.Deactivate("gone@example.com")
	form := "Content-Type: application/x-www-form-urlencoded"
	json := "Content-Type: application/json"
	sms := []string{"Authorization: Basic QUMwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjp0d2lsaW8tdG9rZW4=", form}
	slack := []string{"Authorization: Bearer xoxb-slack", json}
	mail := []string{"X-Postmark-Server-Token: postmark-token", "Accept: application/json", json}
	clinik := []string{"Authorization: Bearer clinik-token", json, "Idempotency-Key: 1"}
	claim := []string{"X-Api-Key: billing-key", json, "Idempotency-Key: 1"}
	for name, tc := range map[string]struct {
		method, url string
		headers     []string
		body        string
		wantStatus  int
		want        string // in the answer
	}{
		"twilio":                {url: c.Twilio.MessagesURL(), headers: sms, body: "To=%2B15550100001&From=%2B15550100000&Body=Hi", wantStatus: 201, want: `"queued"`},
		"twilio, another path":  {url: c.Twilio.URL + "/Messages.json", headers: sms, wantStatus: 404, want: "20404"},
		"twilio, no password":   {url: c.Twilio.MessagesURL(), headers: []string{form}, wantStatus: 401, want: "20003"},
		"twilio, GET":           {method: http.MethodGet, url: c.Twilio.MessagesURL(), headers: sms, wantStatus: 405, want: "20004"},
		"twilio, JSON":          {url: c.Twilio.MessagesURL(), headers: []string{sms[0], json}, body: `{"To":"+15550100001"}`, wantStatus: 400, want: "21604"},
		"twilio, no To":         {url: c.Twilio.MessagesURL(), headers: sms, body: "From=%2B15550100000&Body=Hi", wantStatus: 400, want: "21604"},
		"twilio, local number":  {url: c.Twilio.MessagesURL(), headers: sms, body: "To=555-0100&From=%2B15550100000&Body=Hi", wantStatus: 400, want: "21211"},
		"twilio, plus as space": {url: c.Twilio.MessagesURL(), headers: sms, body: "To=+15550100001&From=%2B15550100000&Body=Hi", wantStatus: 400, want: "21211"},
		"twilio, dead number":   {url: c.Twilio.MessagesURL(), headers: sms, body: "To=%2B15550100009&From=%2B15550100000&Body=Hi", wantStatus: 400, want: "21211"},
		"twilio, no From":       {url: c.Twilio.MessagesURL(), headers: sms, body: "To=%2B15550100001&Body=Hi", wantStatus: 400, want: "21603"},
		"twilio, foreign From":  {url: c.Twilio.MessagesURL(), headers: sms, body: "To=%2B15550100001&From=%2B15550100007&Body=Hi", wantStatus: 400, want: "21606"},
		"twilio, no Body":       {url: c.Twilio.MessagesURL(), headers: sms, body: "To=%2B15550100001&From=%2B15550100000", wantStatus: 400, want: "21602"},
		"twilio, long Body":     {url: c.Twilio.MessagesURL(), headers: sms, body: "To=%2B15550100001&From=%2B15550100000&Body=" + strings.Repeat("x", 1601), wantStatus: 400, want: "21617"},

		"slack":             {url: c.Slack.URL + "/api/chat.postMessage", headers: slack, body: `{"channel":"#clinical-alerts","text":"a &lt; b"}`, wantStatus: 200, want: `"ok":true`},
		"slack, no token":   {url: c.Slack.URL + "/api/chat.postMessage", headers: []string{json}, wantStatus: 200, want: "not_authed"},
		"slack, bad token":  {url: c.Slack.URL + "/api/chat.postMessage", headers: []string{"Authorization: Bearer xoxb-other", json}, wantStatus: 200, want: "invalid_auth"},
		"slack, no channel": {url: c.Slack.URL + "/api/chat.postMessage", headers: slack, body: `{"text":"a"}`, wantStatus: 200, want: "channel_not_found"},
		"slack, no text":    {url: c.Slack.URL + "/api/chat.postMessage", headers: slack, body: `{"channel":"#clinical-alerts"}`, wantStatus: 200, want: "no_text"},
		"slack, no JSON":    {url: c.Slack.URL + "/api/chat.postMessage", headers: slack, body: `channel`, wantStatus: 200, want: "invalid_json"},
		"slack, markup":     {url: c.Slack.URL + "/api/chat.postMessage", headers: slack, body: `{"channel":"#clinical-alerts","text":"a <!channel>"}`, wantStatus: 200, want: "fake_text_is_not_escaped"},

		"postmark":                  {url: c.Postmark.URL + "/email", headers: mail, body: `{"From":"hello@clinic.example.com","To":"a@example.com","Subject":"s","TextBody":"t"}`, wantStatus: 200, want: `"ErrorCode":0`},
		"postmark, no token":        {url: c.Postmark.URL + "/email", headers: mail[1:], wantStatus: 401, want: `"ErrorCode":10`},
		"postmark, no Accept":       {url: c.Postmark.URL + "/email", headers: []string{mail[0], json}, wantStatus: 422, want: "409"},
		"postmark, no JSON":         {url: c.Postmark.URL + "/email", headers: mail, body: `{`, wantStatus: 422, want: "402"},
		"postmark, no To":           {url: c.Postmark.URL + "/email", headers: mail, body: `{"From":"hello@clinic.example.com","TextBody":"t"}`, wantStatus: 422, want: "300"},
		"postmark, no body":         {url: c.Postmark.URL + "/email", headers: mail, body: `{"From":"hello@clinic.example.com","To":"a@example.com"}`, wantStatus: 422, want: "300"},
		"postmark, foreign sender":  {url: c.Postmark.URL + "/email", headers: mail, body: `{"From":"a@other.example.com","To":"a@example.com","TextBody":"t"}`, wantStatus: 422, want: "400"},
		"postmark, inactive":        {url: c.Postmark.URL + "/email", headers: mail, body: `{"From":"hello@clinic.example.com","To":"gone@example.com","TextBody":"t"}`, wantStatus: 422, want: "406"},
		"postmark, no such stream":  {url: c.Postmark.URL + "/email", headers: mail, body: `{"From":"hello@clinic.example.com","To":"a@example.com","TextBody":"t","MessageStream":"x"}`, wantStatus: 422, want: "1235"},
		"clinik, encounter":         {method: http.MethodGet, url: c.Clinik.URL + "/v1/encounters/enc_1?include=Observation", headers: clinik, wantStatus: 200, want: "99213"},
		"clinik, no such encounter": {method: http.MethodGet, url: c.Clinik.URL + "/v1/encounters/enc_2", headers: clinik, wantStatus: 404, want: "not_found"},
		"clinik, no token":          {method: http.MethodGet, url: c.Clinik.URL + "/v1/encounters/enc_1", wantStatus: 401, want: "unauthorized"},
		"clinik, intake":            {url: c.Clinik.URL + "/v1/intakes", headers: clinik, body: `{"patientId":"pt_1","responses":[]}`, wantStatus: 201, want: "pt_1"},
		"clinik, no responses":      {url: c.Clinik.URL + "/v1/intakes", headers: clinik, body: `{"patientId":"pt_1"}`, wantStatus: 422, want: "validation_failed"},
		"clinik, no key":            {url: c.Clinik.URL + "/v1/intakes", headers: clinik[:2], body: `{"patientId":"pt_1","responses":[]}`, wantStatus: 400, want: "Idempotency-Key"},
		"billing":                   {url: c.Billing.URL + "/claims", headers: claim, body: `{"patientId":"a","encounterId":"b","date":"c","codes":["d"],"diagnoses":[]}`, wantStatus: 201, want: "clm_1"},
		"billing, no codes":         {url: c.Billing.URL + "/claims", headers: claim, body: `{"patientId":"a","encounterId":"b","date":"c","codes":[],"diagnoses":[]}`, wantStatus: 422, want: "claim_invalid"},
		"billing, no key":           {url: c.Billing.URL + "/claims", headers: claim[1:], wantStatus: 401, want: "unauthorized"},
		"pharmacy, no grant":        {url: c.Pharmacy.URL + "/oauth2/token", headers: []string{form}, wantStatus: 400, want: "unsupported_grant_type"},
		"pharmacy, other client":    {url: c.Pharmacy.URL + "/oauth2/token", headers: []string{form}, body: "grant_type=client_credentials&client_id=a&client_secret=b", wantStatus: 401, want: "invalid_client"},
		"pharmacy, no scope":        {url: c.Pharmacy.URL + "/oauth2/token", headers: []string{form}, body: "grant_type=client_credentials&client_id=clinic-a&client_secret=pharmacy+secret%2F%2B", wantStatus: 400, want: "invalid_scope"},
		"pharmacy, token":           {url: c.Pharmacy.URL + "/oauth2/token", headers: []string{form}, body: "grant_type=client_credentials&client_id=clinic-a&client_secret=pharmacy+secret%2F%2B&scope=prescriptions.write", wantStatus: 200, want: "access-"},
		"pharmacy, no token":        {url: c.Pharmacy.URL + "/v1/prescriptions", headers: []string{json}, body: `{}`, wantStatus: 401, want: "invalid_token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			method := tc.method
			if method == "" {
				method = http.MethodPost
			}
			status, answer := ask(t, method, tc.url, tc.body, tc.headers)
			if status != tc.wantStatus || !strings.Contains(answer, tc.want) {
				t.Errorf("%d %s, want %d and %s", status, answer, tc.wantStatus, tc.want)
			}
		})
	}
}

var client = &http.Client{Timeout: time.Minute}

func ask(t *testing.T, method, url, body string, headers []string) (status int, answer string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		q.Header.Set(name, value)
	}
	response, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
