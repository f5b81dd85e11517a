package simulate

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/routing/folder"
)

var update = flag.Bool("update", false, "write the golden files")

// key is a signing key of every test's subscription.
const key = "0123456789abcdef0123456789abcdef"

// manifest is a subscription "sub" of clinic-a with the given lines of its spec, and the Secret of its key.
func manifest(lines ...string) string {
	text := "apiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: clinic-a}\nstringData: {current: " + key + "}\n---\n" +
		"apiVersion: webhooks.clinikapi.com/v1alpha1\nkind: WebhookSubscription\nmetadata: {name: sub, namespace: clinic-a, labels: {tier: gold}}\nspec:\n" +
		"  signing: {secretRef: {name: keys, key: current}}\n"
	if !strings.Contains(strings.Join(lines, "\n"), "url") {
		text += "  url: https://hooks.example.com/in?token=1\n"
	}
	for _, line := range lines {
		text += "  " + line + "\n"
	}
	return text
}

func catalog(t testing.TB) *event.Catalog {
	t.Helper()
	c, err := event.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// try runs manifests on events, and reports.
func try(t testing.TB, manifests, events string, o Options) *Report {
	t.Helper()
	set := folder.NewSet()
	for _, problem := range set.Add("test.yaml", []byte(manifests)) {
		t.Fatal(problem.Message)
	}
	var all []Subscription
	for _, sub := range set.Subscriptions() {
		all = append(all, Subscription{Object: sub, Sources: set.Sources(sub.Namespace)})
	}
	o.Policy = routing.Policy{Catalog: catalog(t)}
	o.Version = "1.0"
	o.Now = func() time.Time { return time.Date(2026, 1, 12, 14, 0, 0, 0, time.UTC) }
	read, err := ReadEvents(o.Policy.Catalog, []byte(events))
	if err != nil {
		t.Fatal(err)
	}
	report, err := Run(t.Context(), all, "clinic-a", read, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// outcomes are those of the only subscription, one for each event.
func outcomes(r *Report) string {
	var all []string
	for _, e := range r.Events {
		for _, result := range e.Results {
			text := string(result.Outcome)
			if result.Reason != "" {
				text += "(" + result.Reason + ")"
			}
			if result.Plan != nil && result.Plan.Time != nil {
				text += "@" + result.Plan.Time.Format("02T15:04")
			}
			all = append(all, text)
		}
	}
	return strings.Join(all, " ")
}

// TestMatch: whether an event matches, and which terms of the filter decide that.
func TestMatch(t *testing.T) {
	t.Parallel()
	const booked = `{"type":"appointment.created","data":{"status":"booked","n":1}}`
	for name, test := range map[string]struct {
		spec  []string
		event string
		want  string
		terms string // that decide
	}{
		"no filter":      {[]string{"events: ['*']"}, booked, "Delivered", ""},
		"pattern":        {[]string{"events: [patient.*, lab.created]"}, booked, "NoMatch(Pattern)", ""},
		"filter is true": {[]string{"events: [appointment.*]", "filter: event.data.status == 'booked'"}, booked, "Delivered", `event.data.status == "booked"=true`},
		"one term is false": {[]string{"events: [appointment.*]", "filter: event.data.n == 1 && event.data.status in ['arrived'] && has(event.data.n)"},
			booked, "NoMatch(Filter)", `event.data.status in ["arrived"]=false`},
		"both are false": {[]string{"events: [appointment.*]", "filter: event.data.n == 2 || !(event.data.status == 'booked')"},
			booked, "NoMatch(Filter)", `event.data.n == 2=false event.data.status == "booked"=true`},
		"previous": {[]string{"events: [encounter.updated]", "filter: event.data.status == 'finished' && event.previous.status != 'finished'"},
			`{"type":"encounter.updated","data":{"status":"finished"},"previous":{"status":"finished"}}`, "NoMatch(Filter)", `event.previous.status != "finished"=false`},
		"an error delivers": {[]string{"events: ['*']", "filter: event.data.n > 'x'"}, booked, "Delivered", `event.data.n > "x"=error`},
		"an error skips":    {[]string{"events: ['*']", "filter: event.data.n > 'x'", "filterErrors: Skip"}, booked, "NoMatch(Filter)", `event.data.n > "x"=error`},
		"labels":            {[]string{"events: ['*']", "filter: subscription.labels.tier == 'gold'"}, booked, "Delivered", `subscription.labels.tier == "gold"=true`},
		"suspended":         {[]string{"events: ['*']", "suspend: true"}, booked, "Waiting(Suspended)", ""},
		"pulled":            {[]string{"events: ['*']", "delivery: {mode: Pull} # no url"}, booked, "Waiting(Pulled)", ""},
		"not accepted":      {[]string{"events: ['*']", "filter: event.data.n >"}, booked, "NoMatch(NotAccepted)", ""},
		"a CloudEvent": {[]string{"events: ['*']", "filter: event.data.n == 1"},
			`{"specversion":"1.0","id":"1","source":"/ehr","type":"lab.created","data":{"n":1}}`, "Delivered", `event.data.n == 1=true`},
		"a batch of CloudEvents": {[]string{"events: [lab.*]"},
			`[{"id":"1","specversion":"1.0","source":"/ehr","type":"lab.created","data":{"n":1}},{"id":"2","specversion":"1.0","source":"/ehr","type":"note.created","data":{}}]`,
			"Delivered NoMatch(Pattern)", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := try(t, manifest(test.spec...), test.event, Options{})
			if got := outcomes(r); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			var terms []string
			if filter := r.Events[0].Results[0].Filter; filter != nil {
				for _, term := range filter.Terms {
					if term.Decides {
						terms = append(terms, term.Text+"="+term.Result)
					}
				}
			}
			if got := strings.Join(terms, " "); got != test.terms {
				t.Errorf("deciding terms %s, want %s", got, test.terms)
			}
		})
	}
}

// TestNotAccepted: the compiler's message is shown, with its place.
func TestNotAccepted(t *testing.T) {
	t.Parallel()
	r := try(t, manifest("events: ['*']", "filter: event.data.n == nonsense"), `{"type":"lab.created","data":{}}`, Options{})
	s := r.Subscriptions[0]
	if s.Accepted || s.Reason != "InvalidFilter" || !strings.Contains(s.Message, "line 1, column 17") || !strings.Contains(s.Message, "nonsense") {
		t.Errorf("got %+v", s)
	}
}

// schedule is a subscription that plans a day before data.start.
func schedule(lines ...string) []string {
	return append([]string{
		"events: [appointment.created, appointment.updated]", "filter: event.data.status != 'cancelled'", "schedule:",
		"  at: timestamp(event.data.start) - duration('24h')", "  key: event.data.id", "  cancelOn:", "  - {events: [appointment.deleted]}",
		"  - {events: [appointment.updated], filter: \"event.data.status == 'cancelled'\"}",
	}, lines...)
}

func appointment(action, at, id, status, start string) string {
	return fmt.Sprintf(`{"type":"appointment.%s","timestamp":%q,"data":{"id":%q,"status":%q,"start":%q}}`, action, at, id, status, start)
}

// TestPlannedTime: at, the window, the clocks' changes and ifPast decide on the planned time, and the report says which.
func TestPlannedTime(t *testing.T) {
	t.Parallel()
	window := func(outside string, more ...string) []string {
		return schedule(append([]string{fmt.Sprintf("  window: {timeZone: America/New_York, from: '09:00', until: '20:00', outside: %s}", outside)}, more...)...)
	}
	for name, test := range map[string]struct {
		spec             []string
		published, start string
		want, says       string
	}{
		"no window":         {schedule(), "2026-01-10T00:00:00Z", "2026-01-15T04:00:00Z", "Scheduled@14T04:00", "planned for then"},
		"inside":            {window("Earlier"), "2026-01-10T00:00:00Z", "2026-01-15T15:00:00Z", "Scheduled@14T15:00", "planned for then"},
		"earlier":           {window("Earlier"), "2026-01-10T00:00:00Z", "2026-01-15T12:00:00Z", "Scheduled@14T01:00", "outside of the window"},
		"later":             {window("Later"), "2026-01-10T00:00:00Z", "2026-01-15T12:00:00Z", "Scheduled@14T14:00", "moves it to Wed 14 Jan 2026 09:00:00 EST"},
		"outside":           {window("Skip"), "2026-01-10T00:00:00Z", "2026-01-15T12:00:00Z", "Skipped(OutsideWindow)", "outside is Skip"},
		"earlier is past":   {window("Earlier"), "2026-01-14T03:00:00Z", "2026-01-15T12:00:00Z", "Skipped(Past)", "which moves it to Tue 13 Jan 2026 20:00:00 EST"},
		"past":              {schedule(), "2026-01-14T12:00:00Z", "2026-01-15T11:00:00Z", "Skipped(Past)", "ifPast is Skip"},
		"past, and goes":    {schedule("  ifPast: Deliver"), "2026-01-14T12:00:00Z", "2026-01-15T11:00:00Z", "Delivered@14T12:00", "ifPast is Deliver"},
		"past, when open":   {window("Later", "  ifPast: Deliver"), "2026-01-14T03:00:00Z", "2026-01-15T02:00:00Z", "Scheduled@14T14:00", "ifPast is Deliver"},
		"too far":           {schedule(), "2026-01-14T03:00:00Z", "2027-06-15T02:00:00Z", "Skipped(TooFarAhead)", "400 days"},
		"before the change": {window("Later"), "2026-03-01T00:00:00Z", "2026-03-08T10:00:00Z", "Scheduled@07T14:00", "09:00:00 EST"},
		"after the change":  {window("Later"), "2026-03-01T00:00:00Z", "2026-03-09T10:00:00Z", "Scheduled@08T13:00", "09:00:00 EDT"},
		"the hour that is skipped": {schedule("  window: {timeZone: America/New_York, from: '02:30', until: '03:30', outside: Later}"),
			"2026-03-01T00:00:00Z", "2026-03-09T05:00:00Z", "Scheduled@08T07:00", "moves it to Sun 8 Mar 2026 03:00:00 EDT"},
		"the hour that comes twice": {schedule("  window: {timeZone: America/New_York, from: '01:30', until: '03:00', outside: Later}"),
			"2026-10-28T00:00:00Z", "2026-11-02T04:30:00Z", "Scheduled@01T05:30", "moves it to Sun 1 Nov 2026 01:30:00 EDT"},
		"recheck": {schedule("  recheck: event.data.status == 'x' && now < timestamp(event.data.start)"), "2026-01-10T00:00:00Z", "2026-01-15T12:00:00Z",
			"Cancelled(Recheck)@14T12:00", "recheck is false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := try(t, manifest(test.spec...), appointment("created", test.published, "a", "booked", test.start), Options{})
			if got := outcomes(r); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			result := r.Events[0].Results[0]
			if said := strings.Join(result.Explanation, " "); !strings.Contains(said, test.says) {
				t.Errorf("it says %q, want %q", said, test.says)
			}
			if result.Outcome == Scheduled && (result.Request == nil || !result.Sent.Equal(*result.Plan.Time)) {
				t.Error("there is no request at the planned time")
			}
			if result.Outcome == Cancelled && (result.Request != nil || result.Recheck == nil || result.Recheck.Terms[0].Result != "false") {
				t.Errorf("a request, or no terms, of a delivery that recheck cancelled: %+v", result.Recheck)
			}
		})
	}
}

// TestSequence: what an event of a sequence replaces, cancels, or leaves because it is older.
func TestSequence(t *testing.T) {
	t.Parallel()
	const start, later = "2026-02-10T12:00:00Z", "2026-02-12T12:00:00Z"
	booked := appointment("created", "2026-02-01T10:00:00Z", "a", "booked", start)
	for name, test := range map[string]struct {
		events []string
		want   string
		ends   string // of the last event
	}{
		"replaced": {[]string{booked, appointment("updated", "2026-02-02T10:00:00Z", "a", "booked", later)},
			"Cancelled(Replaced)@09T12:00 Scheduled@11T12:00", "[{1 Replaced}]"},
		"another key": {[]string{booked, appointment("updated", "2026-02-02T10:00:00Z", "b", "booked", later)},
			"Scheduled@09T12:00 Scheduled@11T12:00", "[]"},
		"replaced by what is past": {[]string{booked, appointment("updated", "2026-02-02T10:00:00Z", "a", "booked", "2026-02-02T11:00:00Z")},
			"Cancelled(Replaced)@09T12:00 Skipped(Past)", "[{1 Replaced}]"},
		"cancelled by its filter": {[]string{booked, appointment("updated", "2026-02-02T10:00:00Z", "a", "cancelled", start)},
			"Cancelled(CancelledByEvent)@09T12:00 Cancels", "[{1 CancelledByEvent}]"},
		"cancelled by a type that events does not name": {[]string{booked, appointment("deleted", "2026-02-02T10:00:00Z", "a", "booked", start)},
			"Cancelled(CancelledByEvent)@09T12:00 Cancels", "[{1 CancelledByEvent}]"},
		"cancels nothing": {[]string{booked, appointment("deleted", "2026-02-02T10:00:00Z", "b", "booked", start)}, "Scheduled@09T12:00 Cancels", "[]"},
		"an older event":  {[]string{booked, appointment("updated", "2026-01-31T10:00:00Z", "a", "booked", later)}, "Scheduled@09T12:00 Ignored(OlderEvent)@11T12:00", "[]"},
		"an older cancellation": {[]string{booked, appointment("deleted", "2026-01-31T10:00:00Z", "a", "booked", later)},
			"Scheduled@09T12:00 Cancels", "[]"},
		"older than a cancellation": {[]string{appointment("deleted", "2026-02-02T10:00:00Z", "a", "booked", start), booked}, "Cancels Ignored(OlderEvent)@09T12:00", "[]"},
		"delivered before the next": {[]string{booked, appointment("updated", "2026-02-09T13:00:00Z", "a", "booked", later)},
			"Delivered@09T12:00 Scheduled@11T12:00", "[]"},
		"delivered before its end": {[]string{booked, appointment("deleted", "2026-02-09T12:00:00Z", "a", "booked", later)}, "Delivered@09T12:00 Cancels", "[]"},
		"no key": {[]string{appointment("created", "2026-02-01T10:00:00Z", "", "booked", start), appointment("deleted", "2026-02-02T10:00:00Z", "", "booked", start)},
			"Scheduled@09T12:00 Cancels", "[]"},
		"no time": {[]string{booked, appointment("updated", "2026-02-02T10:00:00Z", "a", "booked", "soon")}, "Scheduled@09T12:00 Failed(ScheduleFailed)", "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := try(t, manifest(schedule()...), "["+strings.Join(test.events, ",")+"]", Options{})
			if got := outcomes(r); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			last := r.Events[len(r.Events)-1].Results[0]
			if got := fmt.Sprint(last.Ends); got != test.ends {
				t.Errorf("the last event ends %s, want %s", got, test.ends)
			}
			for _, end := range last.Ends {
				if by := r.Events[end.Event-1].Results[0].EndedBy; by == nil || by.Event != len(r.Events) || by.Reason != end.Reason {
					t.Errorf("event %d is ended by %+v", end.Event, by)
				}
			}
		})
	}
}

// everything is a subscription that uses all that makes a request.
var everything = manifest(
	"events: [encounter.updated]", "urlFrom: {secretKeyRef: {name: endpoint, key: url}}",
	"headers: [{name: X-Plain, value: plain}, {name: X-Tenant-Token, valueFrom: {secretKeyRef: {name: endpoint, key: header}}}]",
	"auth: {oauth2ClientCredentials: {tokenURL: 'https://auth.example.com/token', secretRef: {name: client}}}",
	"lookup: {url: \"'https://api.example.com/encounters/' + event.data.id\", auth: {basic: {secretRef: {name: reader}}}}",
	"payload: {redact: [patient.ssn]}",
	"transform:", "  method: PUT", "  urlSuffix: \"'/claims?id=' + event.data.id\"", "  headers: [{name: Idempotency-Key, value: delivery.id}]",
	"  body: \"{'codes': lookup.codes, 'ssn': event.data.patient.ssn, 'name': event.data.patient.name, 'planned': delivery.planned}\"",
) + `---
apiVersion: v1
kind: Secret
metadata: {name: endpoint, namespace: clinic-a}
stringData: {url: "https://hooks.example.com/%[1]s-url?key=%[1]s-query", header: "%[1]s-header"}
---
apiVersion: v1
kind: Secret
metadata: {name: client, namespace: clinic-a}
stringData: {clientID: "%[1]s-id", clientSecret: "%[1]s-client"}
---
apiVersion: v1
kind: Secret
metadata: {name: reader, namespace: clinic-a}
stringData: {username: "%[1]s-user", password: "%[1]s-password"}
`

const finished = `{"id":"evt_1","type":"encounter.updated","timestamp":"2026-03-02T15:00:00Z","data":{"id":"enc_1","patient":{"ssn":"078-05-1120","name":"Ada"}}}`

// TestRequest: the request is the one that the endpoint gets, with its lookup, without what is redacted.
func TestRequest(t *testing.T) {
	t.Parallel()
	manifests := fmt.Sprintf(everything, "s3cret")
	result := try(t, manifests, finished, Options{Lookup: []byte(`{"codes":["99213"]}`)}).Events[0].Results[0]
	if result.Request == nil || result.Lookup == nil {
		t.Fatalf("there is no request, or no lookup: %+v", result)
	}
	r := result.Request
	if r.Method != http.MethodPut || r.URL != "https://hooks.example.com/***/claims?id=enc_1" || r.Body != `{"codes":["99213"],"name":"Ada","planned":null,"ssn":null}` {
		t.Errorf("the request is %s %s %s", r.Method, r.URL, r.Body)
	}
	for name, want := range map[string]string{
		"X-Plain": "plain", "X-Tenant-Token": "*** (key header of Secret endpoint)", "Authorization": "Bearer *** (a token for Secret client)",
		"Idempotency-Key": result.Delivery, "X-Clinik-Attempt": "1", "X-Clinik-Timestamp": "1772463600", "User-Agent": "EventFlow/1.0",
		"webhook-signature": "v1,*** (key current of Secret keys)", "Content-Type": "application/json", "Content-Length": fmt.Sprint(len(r.Body)),
	} {
		if got := header(r, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if l := result.Lookup; l.Method != http.MethodGet || l.URL != "https://api.example.com/encounters/enc_1" || header(l, "Authorization") != "Basic *** (Secret reader)" {
		t.Errorf("the lookup is %+v", l)
	}
	without := try(t, manifests, finished, Options{}).Events[0].Results[0]
	if without.Outcome != Delivered || without.Reason != ReasonLookupNeeded || without.Request != nil || without.Lookup == nil {
		t.Errorf("without the lookup's answer: %+v", without)
	}
	broken := try(t, manifests, finished, Options{Lookup: []byte(`7`)}).Events[0].Results[0]
	if broken.Outcome != Failed || broken.Reason != "TransformFailed" || broken.Request != nil || len(broken.Failures) != 1 || broken.Failures[0].Use != "transform" {
		t.Errorf("a transform that fails: %+v", broken)
	}
}

func header(r *Request, name string) string {
	for _, h := range r.Header {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// TestPlaceholders: a Secret that is missing keeps nothing from being tried, and the report says so.
func TestPlaceholders(t *testing.T) {
	t.Parallel()
	manifests, _, _ := strings.Cut(everything, "---\napiVersion: v1\nkind: Secret\nmetadata: {name: endpoint")
	_, manifests, _ = strings.Cut(manifests, "---\n") // nor the signing key
	manifests += "  tls: {caSecretRef: {name: ca, key: ca.crt}, clientCertificateSecretRef: {name: ours}}\n"
	r := try(t, manifests, finished, Options{Lookup: []byte(`{"codes":[]}`)})
	if got := outcomes(r); got != "Delivered" || len(r.Warnings) != 10 {
		t.Errorf("got %s with the warnings %s", got, strings.Join(r.Warnings, "\n"))
	}
	if u := r.Events[0].Results[0].Request.URL; u != "https://placeholder.invalid/***/claims?id=enc_1" {
		t.Errorf("the URL is %s", u)
	}
}

// TestPulledIsShownAsItIsAnswered: without an endpoint's URL, and without the headers that are about a connection to one.
func TestPulledIsShownAsItIsAnswered(t *testing.T) {
	t.Parallel()
	result := try(t, manifest("events: ['*']", "delivery: {mode: Pull} # no url"), finished, Options{}).Events[0].Results[0]
	if said := strings.Join(result.Explanation, " "); said != "The event matches. The consumer pulls: the delivery waits for it." {
		t.Errorf("it says: %s", said)
	}
	r := result.Request
	if r == nil || r.URL != "" || r.Method != "" || r.Body == "" || header(r, "Content-Type") != "application/json" {
		t.Fatalf("got %+v", r)
	}
	for _, name := range []string{"Host", "User-Agent", "Content-Length"} {
		if value := header(r, name); value != "" {
			t.Errorf("%s is %s", name, value)
		}
	}
	if got := header(r, "webhook-signature"); !strings.Contains(got, "***") {
		t.Errorf("the signature is shown: %s", got)
	}
}

// TestServicesArePlaceholders: an event's request names the Service, which need not be anywhere. A warning says so.
func TestServicesArePlaceholders(t *testing.T) {
	t.Parallel()
	spec := manifest("events: ['*']", "serviceRef: {name: receiver, port: 8443, path: /in} # no url")
	r := try(t, spec, finished, Options{})
	if got := outcomes(r); got != "Delivered" {
		t.Fatalf("got %s: %+v", got, r)
	}
	if u := r.Events[0].Results[0].Request.URL; u != "https://receiver.clinic-a.svc:8443/in" {
		t.Errorf("the URL is %s", u)
	}
	if want := `sub: spec.serviceRef: Service "receiver" is not looked for; a placeholder with port 8443 takes its place`; len(r.Warnings) != 1 || r.Warnings[0] != want {
		t.Errorf("the warnings are %q", r.Warnings)
	}
}

// TestGolden keeps the report's JSON as pipelines read it.
func TestGolden(t *testing.T) {
	t.Parallel()
	events := "[" + strings.Join([]string{
		appointment("created", "2026-02-01T10:00:00Z", "a", "booked", "2026-02-10T12:00:00Z"),
		appointment("updated", "2026-02-02T10:00:00Z", "a", "booked", "2026-02-12T12:00:00Z"),
		appointment("updated", "2026-02-03T10:00:00Z", "a", "cancelled", "2026-02-12T12:00:00Z"),
		finished,
	}, ",") + "]"
	window := "  window: {timeZone: America/New_York, from: '09:00', until: '20:00', days: [Monday, Tuesday, Wednesday], outside: Earlier}"
	_, claim, _ := strings.Cut(fmt.Sprintf(everything, "s3cret"), "---\n") // its first Secret is that of the other manifest
	report := try(t, manifest(schedule(window, "  recheck: now < timestamp(event.data.start)")...)+"---\n"+
		strings.Replace(claim, "name: sub,", "name: claim,", 1), events, Options{Lookup: []byte(`{"codes":["99213"]}`)})
	got, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "report.json")
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the report is another than %s (write it anew with -update):\n%s", file, got)
	}
}
