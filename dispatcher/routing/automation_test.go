package routing

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/payload"
	"github.com/clinikapi/eventflow/dispatcher/plan"
)

// automated is the minimal subscription with more of a spec, in YAML, laid over it.
func automated(t *testing.T, text string) *v1alpha1.WebhookSubscription {
	t.Helper()
	sub := minimal()
	sub.Labels = map[string]string{"team": "a"}
	if err := yaml.UnmarshalStrict([]byte(text), &sub.Spec); err != nil {
		t.Fatal(err)
	}
	return sub
}

func automationSecrets() map[string]map[string][]byte {
	all := clinicSecrets()
	all["twilio"] = map[string][]byte{"username": []byte("AC1"), "password": []byte(canary), "clientID": []byte("id"), "clientSecret": []byte(canary)}
	all["odd"] = map[string][]byte{"username": []byte("a:b"), "password": []byte(canary + "\n"), "clientID": {}, "token": []byte(canary + "\u200b")}
	return all
}

const everything = `
handshake: {origin: eventflow.clinic.example}
payload: {redact: [patient.name, "contacts[*].phone"], format: CloudEvents}
schedule:
  at: timestamp(event.data.start) - duration('24h')
  key: event.data.id
  window: {timeZone: America/New_York, from: "09:00", until: "20:00", days: [Monday, Friday], outside: Earlier}
  cancelOn:
  - {events: [appointment.deleted, appointment.*], filter: "event.data.status == 'x'", key: event.data.other}
  recheck: now < timestamp(event.data.start)
lookup: {url: "'https://api.example.com/' + event.data.patientId"}
transform: {contentType: application/x-www-form-urlencoded, method: PUT, body: "{'To': lookup.phone}", urlSuffix: "'?a=b'", headers: [{name: x-team, value: subscription.labels.team}]}
auth: {basic: {secretRef: {name: twilio}}}
outcome: {success: response.status == 200, giveUp: response.status == 400}
`

func TestCompileAutomations(t *testing.T) {
	t.Parallel()
	sub := automated(t, everything)
	before := sub.DeepCopy()
	entry, rejection, err := Compile(sub, secretsOf(automationSecrets()), Policy{Catalog: catalog(t)})
	if err != nil || rejection != nil {
		t.Fatal(rejection, err)
	}
	if diff := cmp.Diff(before, sub); diff != "" {
		t.Errorf("the subscription was changed: %s", diff)
	}
	shard, err := EncodeShard([]*Entry{entry})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := DecodeShard(shard)
	if err != nil {
		t.Fatal(err)
	}
	got := entries[0]
	want := Entry{
		Schedule: &Schedule{
			At: "timestamp(event.data.start) - duration('24h')", IfPast: plan.SkipPast, Key: "event.data.id", Recheck: "now < timestamp(event.data.start)",
			Window:   &Window{Zone: "America/New_York", From: 9 * 60, Until: 20 * 60, Days: plan.NewDays(time.Monday, time.Friday), Outside: plan.Earlier},
			CancelOn: []CancelRule{{Patterns: []event.Pattern{"appointment.*"}, Filter: "event.data.status == 'x'", Key: "event.data.other"}},
		},
		Labels: map[string]string{"team": "a"},
		Redact: []string{"patient.name", "contacts[*].phone"}, Format: "CloudEvents", Lookup: "'https://api.example.com/' + event.data.patientId",
		Transform: &Transform{
			ContentType: "application/x-www-form-urlencoded", Method: "PUT", Body: "{'To': lookup.phone}", URLSuffix: "'?a=b'",
			Headers: []TransformHeader{{"X-Team", "subscription.labels.team"}},
		},
		Outcome: &Outcome{Success: "response.status == 200", GiveUp: "response.status == 400"},
		Auth:    &Auth{Header: "Authorization", Value: "Basic QUMxOmM0bjRyeQ=="}, Handshake: "eventflow.clinic.example",
	}
	if diff := cmp.Diff(want, Entry{
		Schedule: got.Schedule, Labels: got.Labels, Redact: got.Redact, Format: got.Format, Lookup: got.Lookup,
		Transform: got.Transform, Outcome: got.Outcome, Auth: got.Auth, Handshake: got.Handshake,
	}); diff != "" {
		t.Error(diff)
	}
	if got.ProgramSize == 0 || got.Cost() < 3*got.ProgramSize {
		t.Errorf("programs of %d bytes cost %d", got.ProgramSize, got.Cost())
	}
	if names := SecretNames(sub); !slices.Equal(names, []string{"billing-key", "twilio"}) {
		t.Errorf("Secrets are %v", names)
	}
	if held := Hold(entry, 4, v1alpha1.ReasonSecretNotFound); held.Auth != nil || held.Schedule == nil || entry.Auth == nil {
		t.Error("an entry that waits keeps its schedule, and what came from no Secret")
	}
}

// sent keeps the request that is made.
type sent struct{ egress.Request }

func (s *sent) Send(_ context.Context, r egress.Request) egress.Result {
	s.Request = r
	return egress.Result{StatusCode: http.StatusOK}
}

func (*sent) Fetch(context.Context, egress.Document) ([]byte, egress.Result) {
	return []byte(`{"phone":"+1"}`), egress.Result{StatusCode: http.StatusOK}
}

// TestRequestFollowsTheSpec: what spec.transform says reaches the wire, for each content type and method.
func TestRequestFollowsTheSpec(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ method, contentType, suffix, header, body string }{
		`{body: "{'id': event.id}"}`: {contentType: "application/json", body: `{"id":"evt_1"}`},
		`{contentType: application/fhir+json, method: PUT, body: "{'resourceType': 'Task'}", urlSuffix: "'/' + event.id"}`: {
			method: "PUT", contentType: "application/fhir+json", suffix: "/evt_1", body: `{"resourceType":"Task"}`},
		`{contentType: application/x-www-form-urlencoded, method: PATCH, body: "{'To': lookup.phone}", urlSuffix: "'?a=' + event.id"}`: {
			method: "PATCH", contentType: "application/x-www-form-urlencoded", suffix: "?a=evt_1", body: "To=%2B1"},
		`{contentType: text/plain, body: "'hello'", headers: [{name: X-Id, value: event.id}]}`: {contentType: "text/plain", header: "X-Id: evt_1", body: "hello"},
	} {
		entry, rejection, err := Compile(automated(t, "{transform: "+text+`, lookup: {url: "'https://b.example/'"}}`), secretsOf(automationSecrets()), Policy{Catalog: catalog(t)})
		if err != nil || rejection != nil {
			t.Fatal(text, rejection, err)
		}
		route, err := entry.Route()
		if err != nil {
			t.Fatal(err)
		}
		client := &sent{}
		sender, err := payload.New(payload.Options{Client: client})
		if err != nil {
			t.Fatal(err)
		}
		body := []byte(`{"id":"evt_1","event":"patient.created","type":"patient.created","timestamp":"2026-01-15T09:15:00.000Z","data":{}}`)
		result := sender.Send(t.Context(), payload.Request{
			Target: route.Endpoint.Target, Recipe: route.Endpoint.Recipe, Number: 1,
			Event: &delivery.Event{ID: "evt_1", Type: "patient.created", Tenant: "clinic-a", Body: body},
		})
		if !result.Delivered() || client.Shape == nil {
			t.Fatalf("%s: %+v", text, result)
		}
		var header string
		for _, f := range client.Shape.Header {
			header = f.Name + ": " + f.Value
		}
		got := struct{ method, contentType, suffix, header, body string }{client.Shape.Method, client.Shape.ContentType, client.Shape.Suffix, header, string(client.Body)}
		if got.method == http.MethodPost {
			got.method = ""
		}
		if got != want {
			t.Errorf("%s:\n%+v, want\n%+v", text, got, want)
		}
	}
}

// TestHandshakeOfTarget: the endpoint is asked with the spec's origin and rate, and the API of a lookup is not asked.
func TestHandshakeOfTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]*egress.Handshake{
		`{}`: nil,
		`handshake: {origin: eventflow.clinic.example}`: {Origin: "eventflow.clinic.example"},
		`{handshake: {origin: a.example}, delivery: {rateLimit: {requestsPerSecond: 5}}, transform: {body: "{}"}, lookup: {url: "'https://b.example/'"}}`: {Origin: "a.example", Rate: 300},
	} {
		entry, rejection, err := Compile(automated(t, text), secretsOf(automationSecrets()), Policy{Catalog: catalog(t)})
		if err != nil || rejection != nil {
			t.Fatal(text, rejection, err)
		}
		route, err := entry.Route()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, route.Endpoint.Target.Handshake); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
		if err := route.Endpoint.Target.Check(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestCompileAutomationDefaults(t *testing.T) {
	t.Parallel()
	sub := automated(t, `
schedule: {at: event.timestamp, window: {timeZone: event.data.zone, from: "09:00", until: "20:00"}}
transform: {urlSuffix: "'/x'"}
auth: {oauth2ClientCredentials: {tokenURL: "https://id.example.com/token", secretRef: {name: twilio}}}
`)
	entry, rejection, err := Compile(sub, secretsOf(automationSecrets()), Policy{Catalog: catalog(t)})
	if err != nil || rejection != nil {
		t.Fatal(rejection, err)
	}
	s, tr, oauth := entry.Schedule, entry.Transform, entry.Auth.OAuth2
	if s.IfPast != plan.SkipPast || s.Window.Outside != plan.Later || tr.ContentType != "application/json" || tr.Method != http.MethodPost || entry.Format != "" || entry.Labels != nil {
		t.Errorf("schedule %+v, window %+v, transform %+v, format %q, labels %v", s, s.Window, tr, entry.Format, entry.Labels)
	}
	want := &OAuth2{TokenURL: "https://id.example.com/token", ClientID: "id", ClientSecret: canary}
	if diff := cmp.Diff(want, oauth); diff != "" {
		t.Error(diff)
	}
}

func TestCompileRejectsAutomations(t *testing.T) {
	t.Parallel()
	const window = `schedule: {at: event.timestamp, window: {timeZone: UTC, from: "09:00", until: "20:00"%s}}`
	for text, want := range map[string]string{ // reason: part of the message
		`schedule: {}`:                                                                            "InvalidSchedule: spec.schedule.at:",
		`handshake: {}`:                                                                           "InvalidSpec: spec.handshake.origin:",
		`handshake: {origin: "Clinic.example"}`:                                                   "InvalidSpec: spec.handshake.origin:",
		`schedule: {at: "event.data.x +"}`:                                                        "InvalidSchedule: spec.schedule.at: line 1, column ",
		`schedule: {at: "true"}`:                                                                  "InvalidSchedule: spec.schedule.at: the time of a schedule must result in",
		`schedule: {at: event.timestamp, key: "true"}`:                                            "InvalidSchedule: spec.schedule.key: ",
		`schedule: {at: event.timestamp, recheck: evt.x}`:                                         "InvalidSchedule: spec.schedule.recheck: line 1",
		`schedule: {at: event.timestamp, ifPast: Later}`:                                          "InvalidSchedule: spec.schedule.ifPast:",
		`schedule: {at: event.timestamp, cancelOn: [{events: []}]}`:                               "InvalidSchedule: spec.schedule.cancelOn[0].events: name",
		`schedule: {at: event.timestamp, cancelOn: [{events: [x.y]}]}`:                            "InvalidPattern: spec.schedule.cancelOn[0].events[0]:",
		`schedule: {at: event.timestamp, cancelOn: [{events: [claim.*]}]}`:                        "UnknownResource: spec.schedule.cancelOn[0].events[0]:",
		`schedule: {at: event.timestamp, cancelOn: [{events: ["*", "*"]}]}`:                       "InvalidSchedule: spec.schedule.cancelOn[0].events[1]:",
		`schedule: {at: event.timestamp, cancelOn: [{events: ["*"], filter: "1"}]}`:               "InvalidSchedule: spec.schedule.cancelOn[0].filter:",
		`schedule: {at: event.timestamp, cancelOn: [{events: ["*"], key: "]"}]}`:                  "InvalidSchedule: spec.schedule.cancelOn[0].key: line 1",
		`schedule: {at: event.timestamp, window: {from: "09:00", until: "20:00"}}`:                "InvalidSchedule: spec.schedule.window.timeZone:",
		`schedule: {at: event.timestamp, window: {timeZone: A/B, from: "09:00", until: "20:00"}}`: "InvalidSchedule: spec.schedule.window.timeZone: this is neither the name of a time zone",
		`schedule: {at: event.timestamp, window: {timeZone: UTC, from: "9:00", until: "20:00"}}`:  "InvalidSchedule: spec.schedule.window.from:",
		`schedule: {at: event.timestamp, window: {timeZone: UTC, from: "24:00", until: "20:00"}}`: "InvalidSchedule: spec.schedule.window:",
		`schedule: {at: event.timestamp, window: {timeZone: UTC, from: "09:00", until: "24:01"}}`: "InvalidSchedule: spec.schedule.window.until:",
		`schedule: {at: event.timestamp, window: {timeZone: UTC, from: "09:00", until: "09:00"}}`: "InvalidSchedule: spec.schedule.window:",
		strings.ReplaceAll(window, "%s", ", days: [Funday]"):                                      "InvalidSchedule: spec.schedule.window.days[0]:",
		strings.ReplaceAll(window, "%s", ", days: [Monday, Monday]"):                              "InvalidSchedule: spec.schedule.window.days[1]:",
		strings.ReplaceAll(window, "%s", ", outside: Never"):                                      "InvalidSchedule: spec.schedule.window:",
		"schedule: {at: event.timestamp}\ndelivery: {ordering: ByResource}":                       "InvalidSchedule: spec.schedule and spec.delivery.ordering",
		`lookup: {}`:                                                                   "InvalidLookup: spec.lookup.url:",
		`lookup: {url: "1"}`:                                                           "InvalidLookup: spec.lookup.url:",
		`payload: {format: Avro}`:                                                      "InvalidTransform: spec.payload.format:",
		`payload: {redact: [a..b]}`:                                                    "InvalidTransform: spec.payload.redact[0]:",
		`payload: {redact: [a, a]}`:                                                    "InvalidTransform: spec.payload.redact[1]:",
		`transform: {contentType: text/html, body: "'x'"}`:                             "InvalidTransform: spec.transform.contentType:",
		`transform: {contentType: text/plain}`:                                         "InvalidTransform: spec.transform.body:",
		`transform: {method: GET}`:                                                     "InvalidTransform: spec.transform.method:",
		`transform: {body: lookup.}`:                                                   "InvalidTransform: spec.transform.body: line 1",
		`transform: {urlSuffix: "1"}`:                                                  "InvalidTransform: spec.transform.urlSuffix:",
		`transform: {headers: [{name: a b, value: "'x'"}]}`:                            "InvalidTransform: spec.transform.headers[0].name:",
		`transform: {headers: [{name: authorization, value: "'x'"}]}`:                  "InvalidTransform: spec.transform.headers[0].name:",
		`transform: {headers: [{name: webhook_id, value: "'x'"}]}`:                     "InvalidTransform: spec.transform.headers[0].name:",
		`transform: {headers: [{name: x-a, value: "'x'"}, {name: X-A, value: "'y'"}]}`: "InvalidTransform: spec.transform.headers[1].name:",
		`transform: {headers: [{name: x-a}]}`:                                          "InvalidTransform: spec.transform.headers[0].value:",
		`transform: {headers: [{name: x-a, value: "1"}]}`:                              "InvalidTransform: spec.transform.headers[0].value:",
		`outcome: {}`:                                     "InvalidOutcome: spec.outcome:",
		`outcome: {giveUp: event.id == ''}`:               "InvalidOutcome: spec.outcome.giveUp: line 1",
		`outcome: {success: response.status}`:             "InvalidOutcome: spec.outcome.success:",
		`auth: {}`:                                        "InvalidAuth: spec.auth: set exactly one",
		`lookup: {url: "'https://a.example/'", auth: {}}`: "InvalidAuth: spec.lookup.auth: set exactly one",
		`lookup: {url: "'https://a.example/'", auth: {bearer: {secretKeyRef: {name: twilio, key: none}}}}`:               "SecretKeyMissing: ",
		`lookup: {url: "'https://a.example/'", auth: {oauth2ClientCredentials: {secretRef: {name: twilio}}}}`:            "InvalidAuth: spec.lookup.auth.oauth2ClientCredentials.tokenURL:",
		`auth: {basic: {secretRef: {name: twilio}}, bearer: {secretKeyRef: {name: twilio, key: username}}}`:              "InvalidAuth: spec.auth: set exactly one",
		"auth: {basic: {secretRef: {name: twilio}}}\nheaders: [{name: authorization, value: x}]":                         "InvalidAuth: spec.auth and a header Authorization",
		`auth: {basic: {secretRef: {name: Twilio}}}`:                                                                     "InvalidSpec: spec.auth.basic.secretRef.name:",
		`auth: {basic: {secretRef: {name: gone}}}`:                                                                       "SecretNotFound: ",
		`auth: {basic: {secretRef: {name: billing}}}`:                                                                    `SecretKeyMissing: Secret "billing" in namespace "clinic-a" has no key "username"`,
		`auth: {basic: {secretRef: {name: odd}}}`:                                                                        "SecretKeyInvalid: key \"username\" of Secret \"odd\" has a colon",
		`auth: {bearer: {secretKeyRef: {name: odd, key: token}}}`:                                                        "SecretKeyInvalid: key \"token\" of Secret \"odd\" has a zero width space (U+200B) at its end",
		`auth: {bearer: {secretKeyRef: {name: odd, key: password}}}`:                                                     "SecretKeyInvalid: key \"password\" of Secret \"odd\" has a line feed",
		`auth: {bearer: {secretKeyRef: {name: odd, key: clientID}}}`:                                                     "SecretKeyInvalid: key \"clientID\" of Secret \"odd\" is empty",
		`auth: {apiKey: {header: "x y", secretKeyRef: {name: twilio, key: username}}}`:                                   "InvalidAuth: spec.auth.apiKey.header:",
		`auth: {apiKey: {header: content-type, secretKeyRef: {name: twilio, key: username}}}`:                            "InvalidAuth: spec.auth.apiKey.header:",
		`auth: {apiKey: {header: x-key, secretKeyRef: {name: twilio, key: "a/b"}}}`:                                      "InvalidSpec: spec.auth.apiKey.secretKeyRef.key:",
		`auth: {oauth2ClientCredentials: {secretRef: {name: twilio}}}`:                                                   "InvalidAuth: spec.auth.oauth2ClientCredentials.tokenURL:",
		`auth: {oauth2ClientCredentials: {tokenURL: "http://a.example", secretRef: {name: twilio}}}`:                     "InvalidAuth: spec.auth.oauth2ClientCredentials.tokenURL: use https",
		`auth: {oauth2ClientCredentials: {tokenURL: "https://a.example", secretRef: {name: twilio}, credentialsIn: No}}`: "InvalidAuth: spec.auth.oauth2ClientCredentials.credentialsIn:",
		`auth: {oauth2ClientCredentials: {tokenURL: "https://a.example", secretRef: {name: twilio}, scopes: ["a b"]}}`:   "InvalidAuth: spec.auth.oauth2ClientCredentials.scopes[0]:",
		`auth: {oauth2ClientCredentials: {tokenURL: "https://a.example", secretRef: {name: twilio}, scopes: [a, a]}}`:    "InvalidAuth: spec.auth.oauth2ClientCredentials.scopes[1]:",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			_, rejection, err := Compile(automated(t, text), secretsOf(automationSecrets()), Policy{Catalog: catalog(t)})
			if err != nil || rejection == nil {
				t.Fatalf("accepted (%v), want %s", err, want)
			}
			if got := rejection.Reason + ": " + rejection.Message; !strings.HasPrefix(got, want) || strings.Contains(got, canary) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// TestRevisionFollowsTheRequest: what authenticates is part of the revision, and labels that a transform may read.
func TestRevisionFollowsTheRequest(t *testing.T) {
	t.Parallel()
	revision := func(change func(*v1alpha1.WebhookSubscription, map[string]map[string][]byte)) int64 {
		sub, secrets := automated(t, everything), automationSecrets()
		change(sub, secrets)
		entry, rejection, err := Compile(sub, secretsOf(secrets), Policy{Catalog: catalog(t)})
		if err != nil || rejection != nil {
			t.Fatal(rejection, err)
		}
		return entry.Revision
	}
	same := revision(func(*v1alpha1.WebhookSubscription, map[string]map[string][]byte) {})
	for name, change := range map[string]func(*v1alpha1.WebhookSubscription, map[string]map[string][]byte){
		"password": func(_ *v1alpha1.WebhookSubscription, s map[string]map[string][]byte) {
			s["twilio"]["password"] = []byte("other")
		},
		"labels": func(s *v1alpha1.WebhookSubscription, _ map[string]map[string][]byte) { s.Labels["team"] = "b" },
	} {
		if revision(change) == same {
			t.Errorf("%s: the revision is the same", name)
		}
	}
}

// scheduledRoute is a route of a spec, written down and read back.
func scheduledRoute(t *testing.T, name, text string) *Route {
	t.Helper()
	sub := automated(t, text)
	sub.Name, sub.UID = name, ""
	entry, rejection, err := Compile(sub, secretsOf(automationSecrets()), Policy{Catalog: catalog(t)})
	if err != nil || rejection != nil {
		t.Fatal(rejection, err)
	}
	shard, err := EncodeShard([]*Entry{entry})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := DecodeShard(shard)
	if err != nil {
		t.Fatal(err)
	}
	route, err := entries[0].Route()
	if err != nil {
		t.Fatal(err)
	}
	return route
}

func planKey(t *testing.T, text string) plan.Key {
	t.Helper()
	key, err := plan.NewKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func published(typ event.Type, data string, now time.Time) Published {
	ev := expression.NewEvent("evt_1", string(typ), now, []byte(data), nil)
	return Published{Variables: &expression.Variables{Event: ev}, Type: typ, Resource: func() string { return "the resource" }, Now: now}
}

func TestRulesPlan(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC) // a Thursday
	for name, test := range map[string]struct {
		spec, data string
		wantKey    string
		want       plan.Decision
		wantError  expression.Reason
	}{
		"at":             {spec: `schedule: {at: event.data.at}`, data: `{"at":"2026-01-16T10:00:00Z"}`, wantKey: "the resource", want: plan.Decision{At: now.Add(22 * time.Hour)}},
		"key":            {spec: `schedule: {at: event.data.at, key: event.data.id}`, data: `{"at":"2026-01-16T10:00:00Z","id":7}`, wantKey: "7", want: plan.Decision{At: now.Add(22 * time.Hour)}},
		"no key":         {spec: `schedule: {at: event.data.at, key: event.data.id}`, data: `{"at":"2026-01-16T10:00:00Z"}`, want: plan.Decision{At: now.Add(22 * time.Hour)}},
		"past":           {spec: `schedule: {at: event.data.at}`, data: `{"at":"2026-01-14T10:00:00Z"}`, wantKey: "the resource", want: plan.Decision{Reason: plan.Past}},
		"past delivers":  {spec: `schedule: {at: event.data.at, ifPast: Deliver}`, data: `{"at":"2026-01-14T10:00:00Z"}`, wantKey: "the resource", want: plan.Decision{At: now}},
		"window by name": {spec: `schedule: {at: event.data.at, window: {timeZone: America/New_York, from: "09:00", until: "20:00"}}`, data: `{"at":"2026-01-16T10:00:00Z"}`, wantKey: "the resource", want: plan.Decision{At: now.Add(26 * time.Hour)}},
		"window by CEL":  {spec: `schedule: {at: event.data.at, window: {timeZone: event.data.zone, from: "09:00", until: "20:00", outside: Skip}}`, data: `{"at":"2026-01-16T10:00:00Z","zone":"America/New_York"}`, wantKey: "the resource", want: plan.Decision{Reason: plan.OutsideWindow}},
		"no time":        {spec: `schedule: {at: event.data.at}`, data: `{"at":"soon"}`, wantError: expression.InvalidValue},
		"absent":         {spec: `schedule: {at: event.data.at}`, data: `{}`, wantError: expression.WrongType},
		"no zone":        {spec: `schedule: {at: event.data.at, window: {timeZone: event.data.zone, from: "09:00", until: "20:00"}}`, data: `{"at":"2026-01-16T10:00:00Z","zone":"Mars/Base"}`, wantError: expression.InvalidValue},
		"odd key":        {spec: `schedule: {at: event.data.at, key: event.data.id}`, data: `{"at":"2026-01-16T10:00:00Z","id":[]}`, wantError: expression.WrongType},
		"long key":       {spec: `schedule: {at: event.data.at, key: event.data.id}`, data: `{"at":"2026-01-16T10:00:00Z","id":"` + strings.Repeat("x", plan.MaxKey+1) + `"}`, wantError: expression.InvalidValue},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := scheduledRoute(t, "a", test.spec).Rules
			key, decision, err := rules.Plan(published("appointment.created", test.data, now))
			if failure, _ := errors.AsType[*expression.Error](err); (failure == nil) != (test.wantError == "") || failure != nil && failure.Reason != test.wantError {
				t.Fatalf("got %v, want an error for %q", err, test.wantError)
			}
			if err == nil && (key != planKey(t, test.wantKey) || !decision.At.Equal(test.want.At) || decision.Reason != test.want.Reason) {
				t.Errorf("got %v %v, want %v", key, decision, test.want)
			}
		})
	}
}

func TestRulesCancel(t *testing.T) {
	t.Parallel()
	const spec = `
schedule:
  at: event.timestamp
  key: event.data.id
  cancelOn:
  - {events: [appointment.deleted]}
  - {events: [appointment.*], filter: event.data.n > 3, key: event.data.other}
`
	for name, test := range map[string]struct {
		typ         event.Type
		data        string
		want        []string
		wantCancels bool
		wantErrors  int
	}{
		"the schedule's key":       {typ: "appointment.deleted", data: `{"id":"a","n":0}`, want: []string{"a"}, wantCancels: true},
		"the rule's key":           {typ: "appointment.updated", data: `{"id":"a","n":4,"other":"b"}`, want: []string{"b"}, wantCancels: true},
		"both":                     {typ: "appointment.deleted", data: `{"id":"a","n":4,"other":"b"}`, want: []string{"a", "b"}, wantCancels: true},
		"both, the same":           {typ: "appointment.deleted", data: `{"id":"a","n":4,"other":"a"}`, want: []string{"a"}, wantCancels: true},
		"filtered":                 {typ: "appointment.updated", data: `{"id":"a","n":3}`},
		"a filter that fails":      {typ: "appointment.updated", data: `{"id":"a","n":"x"}`, wantErrors: 1},
		"no key":                   {typ: "appointment.updated", data: `{"n":4}`, wantCancels: true},
		"a key that fails":         {typ: "appointment.updated", data: `{"n":4,"other":[]}`, wantCancels: true, wantErrors: 1},
		"of another type":          {typ: "patient.deleted", data: `{"id":"a","n":4}`},
		"one fails, one is in use": {typ: "appointment.deleted", data: `{"id":"a","n":"x"}`, want: []string{"a"}, wantCancels: true, wantErrors: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules, failures := scheduledRoute(t, "a", spec).Rules, 0
			keys, cancels := rules.Cancels(published(test.typ, test.data, time.Unix(0, 0)), nil, func(error) { failures++ })
			var want []plan.Key
			for _, text := range test.want {
				want = append(want, planKey(t, text))
			}
			if !slices.Equal(keys, want) || cancels != test.wantCancels || failures != test.wantErrors {
				t.Errorf("%d keys, cancels %t, %d failures", len(keys), cancels, failures)
			}
		})
	}
}

// TestTableCancels: a schedule hears of the types of its cancelOn, whatever spec.events says, and once of each.
func TestTableCancels(t *testing.T) {
	t.Parallel()
	table := tableOf(t,
		scheduledRoute(t, "both", `schedule: {at: event.timestamp, cancelOn: [{events: [appointment.deleted]}, {events: [appointment.*], filter: "true"}]}`),
		scheduledRoute(t, "foreign", `schedule: {at: event.timestamp, cancelOn: [{events: [patient.deleted, lab.*]}]}`),
		scheduledRoute(t, "all", `schedule: {at: event.timestamp, cancelOn: [{events: ["*"]}]}`),
		scheduledRoute(t, "none", `schedule: {at: event.timestamp}`),
		routeOf(t, "clinic-a", "plain", "*"),
	)
	for typ, want := range map[event.Type][]string{
		"appointment.deleted": {"both", "all"}, "patient.deleted": {"foreign", "all"}, "lab.created": {"foreign", "all"}, "note.created": {"all"},
	} {
		var got []string
		for _, route := range table.Cancels("clinic-a", typ) {
			got = append(got, route.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", typ, got, want)
		}
	}
	if table.Cancels("clinic-b", "lab.created") != nil {
		t.Error("another tenant hears of it")
	}
}
