package payload

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/expression"
)

const patient = `{"resourceType":"patient", "resourceId":"pt_1","name":"canary","contacts":[{"phone":"+1555","kind":"home"}]}`

// TestPlain: without a recipe nothing is copied and nothing is allocated.
func TestPlain(t *testing.T) {
	r := newRequest(t, Spec{}, patient)
	if r.Recipe != nil {
		t.Fatal("a plain subscription has a recipe")
	}
	c := &fakeClient{result: egress.Result{StatusCode: 200}}
	run(t, c, r)
	if len(c.sent) != 1 || &c.sent[0].Body[0] != &r.Event.Body[0] || c.sent[0].Shape != nil || c.sent[0].Answer != nil {
		t.Errorf("%+v", c.sent)
	}
	s, err := New(Options{Client: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { s.Send(ctx, r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestBody(t *testing.T) {
	t.Parallel()
	const begin = `{"id":"evt_1","event":"patient.created","type":"patient.created","timestamp":"2026-01-15T09:15:00.000Z","data":`
	for name, tc := range map[string]struct {
		spec     func(t *testing.T, s *Spec)
		document string
		planned  time.Time
		want     string
		wantType string
		wantMore []egress.Field
	}{
		"thin":         {spec: func(_ *testing.T, s *Spec) { s.Thin = true }, want: begin + `{"resourceType":"patient","resourceId":"pt_1"}}`},
		"redact":       {spec: func(_ *testing.T, s *Spec) { s.Redact = []string{"name", "contacts[*].phone"} }, want: begin + `{"resourceType":"patient", "resourceId":"pt_1","contacts":[{"kind":"home"}]}}`},
		"redact, thin": {spec: func(_ *testing.T, s *Spec) { s.Thin, s.Redact = true, []string{"resourceId"} }, want: begin + `{"resourceType":"patient"}}`},
		"JSON": {spec: func(t *testing.T, s *Spec) {
			s.Body = compile(t, expression.TransformBody, `{'n': event.data.name, 'id': delivery.attempt, 'p': event.previous, 's': subscription.name}`)
		}, want: `{"id":2,"n":"canary","p":null,"s":"sms"}`},
		"redacted JSON": {spec: func(t *testing.T, s *Spec) {
			s.Redact = []string{"name"}
			s.Body = compile(t, expression.TransformBody, `{'n': event.data.name}`)
		}, want: `{"n":null}`},
		"form": {spec: func(t *testing.T, s *Spec) {
			s.ContentType = "application/x-www-form-urlencoded"
			s.Body = compile(t, expression.TransformBody, `{'To': event.data.contacts[0].phone, 'Body': 'a b'}`)
		}, want: "Body=a+b&To=%2B1555", wantType: "application/x-www-form-urlencoded"},
		"text": {spec: func(t *testing.T, s *Spec) {
			s.ContentType = "text/plain"
			s.Body = compile(t, expression.TransformBody, `'hello ' + event.id`)
		}, want: "hello evt_1", wantType: "text/plain"},
		"a text goes as it is": {spec: func(t *testing.T, s *Spec) {
			s.ContentType = "application/fhir+json"
			s.Body = compile(t, expression.TransformBody, `'{"resourceType": "Task",  "id": "' + event.id + '"}'`)
		}, want: `{"resourceType": "Task",  "id": "evt_1"}`, wantType: "application/fhir+json"},
		"the delivery": {spec: func(t *testing.T, s *Spec) {
			s.Body = compile(t, expression.TransformBody, `{'id': delivery.id, 'attempt': delivery.attempt, 'planned': delivery.planned}`)
		}, want: `{"attempt":2,"id":"` + newRequest(t, Spec{}, patient).Delivery.String() + `","planned":null}`},
		"a planned delivery": {spec: func(t *testing.T, s *Spec) {
			s.Body = compile(t, expression.TransformBody, `{'planned': delivery.planned}`)
		}, planned: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), want: `{"planned":"2026-03-02T09:00:00Z"}`},
		"lookup": {spec: func(t *testing.T, s *Spec) {
			s.LookupURL = compile(t, expression.LookupURL, `'https://api.example.com/' + event.data.resourceId`)
			s.Body = compile(t, expression.TransformBody, `{'phone': lookup.phone}`)
		}, document: `{"phone":"+1777"}`, want: `{"phone":"+1777"}`},
		"CloudEvents": {spec: func(_ *testing.T, s *Spec) { s.Format, s.Redact = CloudEvents, []string{"name", "contacts"} },
			want:     `{"specversion":"1.0","id":"evt_1","source":"/namespaces/clinic-a","type":"patient.created","time":"2026-01-15T09:15:00Z","subject":"pt_1","datacontenttype":"application/json","data":{"resourceType":"patient", "resourceId":"pt_1"}}`,
			wantType: "application/cloudevents+json"},
		"CloudEventsBinary": {spec: func(_ *testing.T, s *Spec) { s.Format, s.Thin = CloudEventsBinary, true },
			want: `{"resourceType":"patient","resourceId":"pt_1"}`, wantMore: []egress.Field{
				{Name: "ce-specversion", Value: "1.0"}, {Name: "ce-id", Value: "evt_1"}, {Name: "ce-source", Value: "/namespaces/clinic-a"},
				{Name: "ce-type", Value: "patient.created"}, {Name: "ce-time", Value: "2026-01-15T09:15:00Z"}, {Name: "ce-subject", Value: "pt_1"},
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var spec Spec
			tc.spec(t, &spec)
			c := &fakeClient{result: egress.Result{StatusCode: 200}, document: tc.document}
			request := newRequest(t, spec, patient)
			request.Planned = tc.planned
			result, failures := run(t, c, request)
			if !result.Delivered() || len(failures) > 0 || len(c.sent) != 1 {
				t.Fatalf("%+v, %+v, %d sent", result, failures, len(c.sent))
			}
			var shape egress.Shape
			if c.sent[0].Shape != nil {
				shape = *c.sent[0].Shape
			}
			if got := string(c.sent[0].Body); got != tc.want || shape.ContentType != tc.wantType {
				t.Errorf("%s\n%s, want\n%s\n%s", shape.ContentType, got, tc.wantType, tc.want)
			}
			if len(shape.Attributes) != len(tc.wantMore) {
				t.Fatalf("attributes %v, want %v", shape.Attributes, tc.wantMore)
			}
			for i, want := range tc.wantMore {
				if shape.Attributes[i] != want {
					t.Errorf("%v, want %v", shape.Attributes[i], want)
				}
			}
		})
	}
}

// TestNothingIsSent: what fails before the request sends nothing, and its message shows no data.
func TestNothingIsSent(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spec     func(t *testing.T, s *Spec)
		data     string
		document string
		read     egress.Result
		want     delivery.Reason
		wantUse  string // of the failure that is reported; none if empty
	}{
		"recheck is false": {spec: func(t *testing.T, s *Spec) { s.Recheck = compile(t, expression.Recheck, `now < event.timestamp`) }, want: delivery.ReasonRecheck},
		"recheck fails, skip": {spec: func(t *testing.T, s *Spec) {
			s.Recheck, s.SkipErrors = compile(t, expression.Recheck, `event.data.name > 5`), true
		}, want: delivery.ReasonRecheck, wantUse: UseRecheck},
		"transform fails": {spec: func(t *testing.T, s *Spec) { s.Body = compile(t, expression.TransformBody, `event.data.name + 5`) }, want: delivery.ReasonTransformFailed, wantUse: UseTransform},
		"unknown program": {spec: func(_ *testing.T, s *Spec) { s.Body = Expression{Text: "later()"} }, want: delivery.ReasonTransformFailed, wantUse: UseTransform},
		"suffix": {spec: func(t *testing.T, s *Spec) {
			s.URLSuffix = compile(t, expression.TransformText, `'/../' + event.data.name`)
		}, want: delivery.ReasonTransformFailed, wantUse: UseTransform},
		"header": {spec: func(t *testing.T, s *Spec) {
			s.Headers = []Header{{"X-A", compile(t, expression.TransformText, `event.data.name + '\r\nX-B: c'`)}}
		}, want: delivery.ReasonTransformFailed, wantUse: UseTransform},
		"reserved header": {spec: func(t *testing.T, s *Spec) {
			s.Headers = []Header{{"webhook-id", compile(t, expression.TransformText, `event.data.name`)}}
		}, want: delivery.ReasonTransformFailed, wantUse: UseTransform},
		"header fails": {spec: func(t *testing.T, s *Spec) {
			s.Headers = []Header{{"X-A", compile(t, expression.TransformText, `event.data.name + event.data.absent`)}}
		}, want: delivery.ReasonTransformFailed, wantUse: UseTransform},
		"suffix fails": {spec: func(t *testing.T, s *Spec) {
			s.URLSuffix = compile(t, expression.TransformText, `'/' + event.data.absent`)
		}, want: delivery.ReasonTransformFailed, wantUse: UseTransform},
		"redact": {spec: func(_ *testing.T, s *Spec) { s.Redact = []string{"name"} }, data: `["canary"]`, want: delivery.ReasonTransformFailed, wantUse: UseRedact},
		"lookup URL": {spec: func(t *testing.T, s *Spec) {
			s.LookupURL = compile(t, expression.LookupURL, `'https://x/' + event.data.absent`)
		}, want: delivery.ReasonLookupFailed, wantUse: UseLookup},
		"lookup status": {spec: func(t *testing.T, s *Spec) { s.LookupURL = compile(t, expression.LookupURL, `'https://x/' + event.id`) },
			read: egress.Result{StatusCode: 410, Reason: delivery.ReasonStatusCode}, want: delivery.ReasonLookupFailed, wantUse: UseLookup},
		"lookup, no JSON": {spec: func(t *testing.T, s *Spec) { s.LookupURL = compile(t, expression.LookupURL, `'https://x/' + event.id`) },
			document: "<canary>", want: delivery.ReasonLookupFailed, wantUse: UseLookup},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var spec Spec
			tc.spec(t, &spec)
			data := patient
			if tc.data != "" {
				data = tc.data
			}
			c := &fakeClient{result: egress.Result{StatusCode: 200}, document: tc.document, read: tc.read}
			result, failures := run(t, c, newRequest(t, spec, data))
			if result.Reason != tc.want || result.StatusCode != 0 || result.Started.IsZero() || len(c.sent) > 0 {
				t.Errorf("%+v, %d sent, want %s", result, len(c.sent), tc.want)
			}
			if (tc.wantUse == "") != (len(failures) == 0) || len(failures) > 0 && (failures[0].Use != tc.wantUse || failures[0].Message == "" || strings.Contains(failures[0].Message, "canary")) {
				t.Errorf("failures %+v, want one of %q", failures, tc.wantUse)
			}
		})
	}
}

// TestRecheckErrs: a recheck that fails lets the delivery go.
func TestRecheckErrs(t *testing.T) {
	t.Parallel()
	c := &fakeClient{result: egress.Result{StatusCode: 200}}
	result, failures := run(t, c, newRequest(t, Spec{Recheck: compile(t, expression.Recheck, `event.data.name > 5`)}, patient))
	if !result.Delivered() || len(c.sent) != 1 || len(failures) != 1 {
		t.Errorf("%+v, %+v", result, failures)
	}
}

// TestLookupAuthorized: credentials go only where the spec says, and never where data leads.
func TestLookupAuthorized(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`'https://api.example.com/v1/' + event.id`:                               true,
		`"https://api.example.com/v1"`:                                           true,
		`'https://example.com/v1/' + event.id`:                                   true,
		`event.data.base + '/v1'`:                                                true, // the subscription's own host
		`event.data.other`:                                                       false,
		`'https://api.example.com' + event.data.rest`:                            false, // .evil.example/
		`'https://api.example.com/' + event.id == '' ? '' : event.data.other`:    false,
		`true ? event.data.other : 'https://api.example.com/'`:                   false,
		`'https://api.example.com/x'.replace('api.example.com', 'evil.example')`: false,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			c := &fakeClient{result: egress.Result{StatusCode: 200}, document: `{}`}
			run(t, c, newRequest(t, Spec{LookupURL: compile(t, expression.LookupURL, text)},
				`{"base":"https://example.com","other":"https://evil.example/","rest":".evil.example/"}`))
			if len(c.fetched) != 1 || c.fetched[0].Authorized != want {
				t.Errorf("%+v, want authorized %t", c.fetched, want)
			}
		})
	}
}

// TestLookupHasItsOwn: a lookup with credentials of its own never carries the endpoint's, and its own go only to the host that
// its expression names.
func TestLookupHasItsOwn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`'https://api.example.com/v1/' + event.id`: true,
		`event.data.base + '/v1'`:                  false, // the subscription's own host
		`event.data.other`:                         false,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			own := &egress.Target{URL: "https://example.com"}
			c := &fakeClient{result: egress.Result{StatusCode: 200}, document: `{}`}
			run(t, c, newRequest(t, Spec{LookupURL: compile(t, expression.LookupURL, text), Lookup: own},
				`{"base":"https://example.com","other":"https://evil.example/"}`))
			if len(c.fetched) != 1 || c.fetched[0].Target != own || c.fetched[0].Authorized != want {
				t.Errorf("%+v, want authorized %t by its own target", c.fetched, want)
			}
		})
	}
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	refused := egress.Result{StatusCode: 400, Reason: delivery.ReasonStatusCode}
	for name, tc := range map[string]struct {
		success, giveUp string
		result          egress.Result
		body            string
		want            delivery.Reason
		wantGiveUp      bool
		wantFailures    int
	}{
		"Slack":              {success: `response.status == 200 && response.body.ok == true`, result: egress.Result{StatusCode: 200}, body: `{"ok":false}`, want: delivery.ReasonNotSuccess},
		"Slack, ok":          {success: `response.status == 200 && response.body.ok == true`, result: egress.Result{StatusCode: 200}, body: `{"ok":true}`},
		"400 is a success":   {success: `response.status == 400`, result: refused},
		"no JSON":            {success: `response.body.ok == true`, result: egress.Result{StatusCode: 200}, body: `<html>`, want: delivery.ReasonNotSuccess},
		"give up":            {giveUp: `response.status == 400`, result: refused, want: delivery.ReasonStatusCode, wantGiveUp: true},
		"give up, delivered": {giveUp: `response.status < 500`, result: egress.Result{StatusCode: 200}},
		"a header":           {success: `response.headers['x-ok'] == 'yes'`, result: egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode}},
		"success fails":      {success: `response.body.n > 'a'`, result: egress.Result{StatusCode: 200}, body: `{"n":1}`, wantFailures: 1},
		"give up fails":      {giveUp: `response.body.n > 'a'`, result: refused, body: `{"n":1}`, want: delivery.ReasonStatusCode, wantFailures: 1},
		"no answer":          {success: `true`, result: egress.Result{Reason: delivery.ReasonTimeout}, want: delivery.ReasonTimeout},
		"the body broke off": {success: `true`, result: egress.Result{StatusCode: 200, Reason: delivery.ReasonTimeout}, want: delivery.ReasonTimeout},
		"to be repeated":     {giveUp: `true`, result: egress.Result{StatusCode: 401, Reason: delivery.ReasonTokenRefused}, want: delivery.ReasonTokenRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var spec Spec
			if tc.success != "" {
				spec.Success = compile(t, expression.Outcome, tc.success)
			}
			if tc.giveUp != "" {
				spec.GiveUp = compile(t, expression.Outcome, tc.giveUp)
			}
			c := &fakeClient{result: tc.result, answer: egress.Answer{Header: http.Header{"X-Ok": {"yes"}}, Body: []byte(tc.body)}}
			result, failures := run(t, c, newRequest(t, spec, patient))
			if result.Reason != tc.want || result.GiveUp != tc.wantGiveUp || len(failures) != tc.wantFailures {
				t.Errorf("%+v, %+v, want %q, give up %t", result, failures, tc.want, tc.wantGiveUp)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		`{"id":"a","timestamp":"2026-01-15T09:15:00.000Z","data":{"a":1}}`:       true,
		`{"timestamp":"2026-01-15T09:15:00.000Z","data":{"secret":1},"data":{}}`: false,
		`{"timestamp":"2026-01-15T09:15:00.000Z","data":{}}{}`:                   false,
		`{"timestamp":"2026-01-15T09:15:00.000Z"}`:                               false,
		`{"data":{}}`:                                       false,
		`{"timestamp":"yesterday","data":{}}`:               false,
		`{"timestamp":"2026-01-15T09:15:00.000Z","data":{}`: false,
		`[]`: false,
	} {
		if _, err := open([]byte(body)); (err == nil) != want {
			t.Errorf("%s: %v, want ok %t", body, err, want)
		}
	}
}

// silent answers without keeping anything.
type silent struct{}

func (silent) Send(context.Context, egress.Request) egress.Result {
	return egress.Result{StatusCode: 200}
}
func (silent) Fetch(context.Context, egress.Document) ([]byte, egress.Result) {
	return nil, egress.Result{}
}
