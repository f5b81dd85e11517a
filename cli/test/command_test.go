package test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	_ "time/tzdata"

	"github.com/clinikapi/eventflow/cli/exit"
)

// call runs the command.
func call(t *testing.T, stdin string, args ...string) (stdout string, err error) {
	t.Helper()
	command := Command("1.0")
	command.SilenceErrors, command.SilenceUsage = true, true
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetIn(strings.NewReader(stdin))
	command.SetArgs(args)
	err = command.ExecuteContext(t.Context())
	return out.String(), err
}

// file writes a file, and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const reminder = `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: reminder, namespace: clinic-a}
spec:
  url: https://hooks.example.com/in
  events: [appointment.created, appointment.updated]
  filter: event.data.status != 'cancelled'
  schedule:
    at: timestamp(event.data.start) - duration('24h')
    key: event.data.id
    cancelOn: [{events: [appointment.deleted]}]
  signing: {secretRef: {name: keys, key: current}}
`

const (
	booked  = `{"type":"appointment.created","timestamp":"2026-03-02T09:00:00Z","data":{"id":"a","status":"booked","start":"2026-03-06T10:00:00Z"}}`
	moved   = `{"type":"appointment.updated","timestamp":"2026-03-03T09:00:00Z","data":{"id":"a","status":"booked","start":"2026-03-06T14:00:00Z"}}`
	deleted = `{"type":"appointment.deleted","timestamp":"2026-03-04T09:00:00Z","data":{"id":"a"}}`
)

// TestExitCodes: 0 if all is as expected, 1 if it is not, 2 with one line that says what to do for bad input.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	spec, first, all := file(t, "reminder.yaml", reminder), file(t, "booked.json", booked), file(t, "all.json", "["+booked+","+moved+","+deleted+"]")
	invalid := file(t, "invalid.yaml", strings.Replace(reminder, "!= 'cancelled'", "!=", 1))
	for name, test := range map[string]struct {
		args  []string
		stdin string
		code  int
		says  string
	}{
		"evaluated":             {[]string{"-f", spec, "--event", first}, "", 0, ""},
		"scheduled":             {[]string{"-f", spec, "-e", first, "--expect", "reminder=Scheduled", "--expect", "match"}, "", 0, ""},
		"in lower case":         {[]string{"-f", spec, "-e", first, "--expect", "reminder=scheduled"}, "", 0, ""},
		"a reason":              {[]string{"-f", spec, "-e", first, "--now", "2026-03-07T00:00:00Z", "--expect", "reminder=Past"}, "", 0, ""},
		"of a sequence":         {[]string{"-f", spec, "-e", all, "--expect", "1:reminder=Replaced", "--expect", "2:reminder=CancelledByEvent", "--expect", "reminder=Cancels"}, "", 0, ""},
		"events in two files":   {[]string{"-f", spec, "-e", first, "-e", file(t, "deleted.json", deleted), "--expect", "1:reminder=Cancelled"}, "", 0, ""},
		"from standard input":   {[]string{"-f", "-", "-e", first, "--expect", "reminder=Scheduled"}, reminder, 0, ""},
		"an event from there":   {[]string{"-f", spec, "-e", "-", "--expect", "reminder=Scheduled"}, booked, 0, ""},
		"a folder":              {[]string{"-f", filepath.Dir(spec), "-e", first, "--expect", "reminder=Scheduled"}, "", 0, ""},
		"none":                  {[]string{"-f", spec, "-e", file(t, "lab.json", `{"type":"lab.created","data":{}}`), "--expect", "none", "--expect", "reminder=NoMatch"}, "", 0, ""},
		"not accepted, as said": {[]string{"-f", invalid, "-e", first, "--expect", "reminder=NotAccepted"}, "", 0, ""},

		"another outcome":    {[]string{"-f", spec, "-e", first, "--expect", "reminder=Delivered"}, "", 1, "--expect reminder=Delivered: got Scheduled"},
		"no such name":       {[]string{"-f", spec, "-e", first, "--expect", "remember=Delivered"}, "", 1, "no such subscription"},
		"no such event":      {[]string{"-f", spec, "-e", first, "--expect", "2:reminder=Delivered"}, "", 1, "there are 1 events"},
		"a match":            {[]string{"-f", spec, "-e", first, "--expect", "none"}, "", 1, "got 1 that match"},
		"not accepted":       {[]string{"-f", invalid, "-e", first}, "", 1, "reminder is not accepted (InvalidFilter)"},
		"no file":            {[]string{"-e", first}, "", 2, "-f is missing"},
		"no event":           {[]string{"-f", spec}, "", 2, "--event is missing"},
		"a file not there":   {[]string{"-f", "nowhere.yaml", "-e", first}, "", 2, "-f=nowhere.yaml: no such file"},
		"an event not there": {[]string{"-f", spec, "-e", "nowhere.json"}, "", 2, "--event: read nowhere.json: no such file"},
		"no YAML":            {[]string{"-f", file(t, "x.yaml", "a: ["), "-e", first}, "", 2, "document 1"},
		"an unknown field":   {[]string{"-f", file(t, "x.yaml", strings.Replace(reminder, "filter:", "filtre:", 1)), "-e", first}, "", 2, `unknown field "spec.filtre"`},
		"no subscription":    {[]string{"-f", file(t, "x.yaml", "# nothing"), "-e", first}, "", 2, "there is no WebhookSubscription"},
		"no JSON":            {[]string{"-f", spec, "-e", file(t, "x.json", "{")}, "", 2, "not valid JSON"},
		"an unknown type":    {[]string{"-f", spec, "-e", file(t, "x.json", `{"type":"claim.created","data":{}}`)}, "", 2, `type "claim.created" is not known`},
		"two namespaces":     {[]string{"-f", spec, "-f", file(t, "b.yaml", strings.Replace(reminder, "clinic-a", "clinic-b", 1)), "-e", first}, "", 2, "choose one with --namespace"},
		"another namespace":  {[]string{"-f", spec, "-e", first, "-n", "clinic-c"}, "", 2, "subscriptions in clinic-a only"},
		"no time":            {[]string{"-f", spec, "-e", first, "--now", "tomorrow"}, "", 2, "--now="},
		"no lookup":          {[]string{"-f", spec, "-e", first, "--lookup", spec}, "", 2, "holds no JSON"},
		"no expectation":     {[]string{"-f", spec, "-e", first, "--expect", "perhaps"}, "", 2, "want SUBSCRIPTION=OUTCOME"},
		"no number":          {[]string{"-f", spec, "-e", first, "--expect", "x:reminder=Past"}, "", 2, "counts from 1"},
		"no output":          {[]string{"-f", spec, "-e", first, "-o", "yaml"}, "", 2, "want text or json"},
		"no flag":            {[]string{"--nonsense"}, "", 2, "unknown flag"},
		"an argument":        {[]string{"reminder.yaml"}, "", 2, "name files with -f"},
		"twice from there":   {[]string{"-f", "-", "-e", "-"}, reminder, 2, "standard input can be read for one flag alone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := call(t, test.stdin, test.args...)
			if code := exit.Code(err); code != test.code {
				t.Errorf("exit code %d, want %d: %v\n%s", code, test.code, err, out)
			}
			if err != nil && (!strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("it says %q, want one line with %q", err, test.says)
			}
			if test.code == 2 && out != "" {
				t.Errorf("bad input has the output %s", out)
			}
		})
	}
}

// TestText keeps what people read.
func TestText(t *testing.T) {
	t.Parallel()
	spec := strings.Replace(reminder, "key: event.data.id", "key: event.data.id\n    window: {timeZone: America/New_York, from: '09:00', until: '20:00', outside: Earlier}", 1)
	unknown := `{"type":"appointment.created","timestamp":"2026-03-04T10:00:00Z","data":{"id":"b","status":"cancelled"}}`
	out, err := call(t, "", "-f", file(t, "reminder.yaml", spec), "-e", file(t, "a.json", "["+booked+","+moved+","+unknown+"]"), "--expect", "3:reminder=NoMatch")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Warning: reminder: spec.signing.secretRef: key \"current\" of Secret \"keys\" is not given; a placeholder takes its place\n",
		"\nEvent 1: appointment.created, id evt_00000000000000000000000001, published 2026-03-02T09:00:00Z\n  reminder: Cancelled (Replaced)\n",
		"    spec.schedule.at is Thu 5 Mar 2026 05:00:00 EST; that is outside of the window (09:00 to 20:00 in America/New_York), which moves it to Wed 4 Mar 2026 20:00:00 EST. The delivery is planned for then.\n",
		"    Event 2 (appointment.updated) of the same key replaces it.\n",
		"  reminder: Scheduled for 2026-03-05T14:00:00Z\n",
		"    Request at 2026-03-05T14:00:00Z: POST https://hooks.example.com/in\n      Host: hooks.example.com\n",
		"      X-Clinik-Signature: *** (key current of Secret keys)\n",
		"\n      {\n        \"id\": \"evt_00000000000000000000000002\",\n",
		"  reminder: NoMatch (Filter)\n    spec.filter is false, because event.data.status != \"cancelled\" is false.\n    spec.filter is false:\n      > false  event.data.status != \"cancelled\"   (event.data.status is \"cancelled\")\n",
		"\nAs expected: 3:reminder=NoMatch\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the text lacks %q:\n%s", want, out)
		}
	}
}

// TestTextOfPulled: no address is shown where there is none.
func TestTextOfPulled(t *testing.T) {
	t.Parallel()
	spec := strings.Replace(reminder, "  url: https://hooks.example.com/in\n", "  delivery: {mode: Pull}\n", 1)
	out, err := call(t, "", "-f", file(t, "reminder.yaml", spec), "-e", file(t, "a.json", booked))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "\n    What the consumer pulls at 2026-03-05T10:00:00Z:\n      Content-Type: application/json\n") || strings.Contains(out, "pull.invalid") || strings.Contains(out, "POST") {
		t.Errorf("the text is:\n%s", out)
	}
}

// TestJSON: the report and the expectations are one document.
func TestJSON(t *testing.T) {
	t.Parallel()
	out, err := call(t, "", "-f", file(t, "reminder.yaml", reminder), "-e", file(t, "a.json", booked), "-o", "json", "--expect", "reminder=Scheduled")
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Version      int
		Events       []struct{ Results []struct{ Outcome string } }
		Expectations []struct {
			Expect, Got string
			Met         bool
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	if report.Version != 1 || report.Events[0].Results[0].Outcome != "Scheduled" || len(report.Expectations) != 1 || !report.Expectations[0].Met || report.Expectations[0].Got != "Scheduled" {
		t.Errorf("got %+v", report)
	}
}

// secretManifest is a Secret with random values, and returns all texts that must not be shown.
func secretManifest(t *testing.T, random *rand.Rand) (manifest string, hidden []string) {
	t.Helper()
	next := func() string {
		text := secretText(random)
		hidden = append(hidden, text)
		return text
	}
	user := next()
	hidden = append(hidden, base64.StdEncoding.EncodeToString([]byte(user+":")))
	data := map[string]string{"url": "https://" + user + "@hooks.example.com/" + next() + "?key=" + next()}
	for _, key := range []string{"current", "previous", "header", "token", "apikey", "username", "password", "clientID", "clientSecret"} {
		data[key] = next()
	}
	hidden = append(hidden, base64.StdEncoding.EncodeToString([]byte(data["username"]+":"+data["password"])))
	secret, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]string{"name": "all", "namespace": "clinic-a"}, "stringData": data})
	if err != nil {
		t.Fatal(err)
	}
	return string(secret) + "\n---\n", hidden
}

// TestNoSecretIsShown: whatever a subscription takes from a Secret, no value is in the text, the JSON or an error, as it is or
// encoded, and no signature is either.
func TestNoSecretIsShown(t *testing.T) {
	t.Parallel()
	auths := []string{
		"",
		"bearer: {secretKeyRef: {name: all, key: token}}", "apiKey: {header: X-Api-Key, secretKeyRef: {name: all, key: apikey}}",
		"basic: {secretRef: {name: all}}", "oauth2ClientCredentials: {tokenURL: 'https://auth.example.com/token', secretRef: {name: all}}",
		"oauth2ClientCredentials: {tokenURL: 'https://auth.example.com/token', secretRef: {name: all}, credentialsIn: Body}",
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		secret, hidden := secretManifest(t, random)
		auth, lookup := auths[random.IntN(len(auths))], auths[random.IntN(len(auths))]
		if auth != "" {
			auth = "auth: {" + auth + "}"
		}
		if lookup != "" {
			lookup = "auth: {" + lookup + "}"
		}
		manifests := secret + `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: all, namespace: clinic-a}
spec:
  urlFrom: {secretKeyRef: {name: all, key: url}}
  events: ["*"]
  headers: [{name: X-Token, valueFrom: {secretKeyRef: {name: all, key: header}}}, {name: Cookie, valueFrom: {secretKeyRef: {name: all, key: header}}}]
  ` + auth + `
  lookup: {url: "'https://hooks.example.com/lookup'", ` + lookup + `}
  transform: {urlSuffix: "'/a?b=c'", body: "{'data': event.data, 'lookup': lookup, 'id': delivery.id}", headers: [{name: X-Id, value: delivery.id}]}
  signing: {secretRef: {name: all, key: current}, previousSecretRef: {name: all, key: previous}}
`
		for _, output := range []string{"text", "json"} {
			out, err := call(t, "", "-f", file(t, "all.yaml", manifests), "-e", file(t, "a.json", booked), "--lookup", file(t, "l.json", `{"a":1}`), "-o", output, "--expect", "all=Delivered")
			if err != nil {
				t.Fatalf("with seed %d: %v\n%s", i, err, out)
			}
			for _, value := range hidden {
				if strings.Contains(out, value) {
					t.Errorf("with %s and %s, the %s shows a secret:\n%s", auth, lookup, output, out)
				}
			}
			if signature := regexp.MustCompile(`\b[0-9a-f]{64}\b|v1,[A-Za-z0-9+/]{43}=`).FindString(out); signature != "" {
				t.Errorf("the %s shows the signature %s", output, signature)
			}
		}
	}
}

// secretText is a random text that may stand in a URL and in a header.
func secretText(random *rand.Rand) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	text := make([]byte, 24+random.IntN(40))
	for i := range text {
		text[i] = letters[random.IntN(len(letters))]
	}
	return string(text)
}

// TestListTypes lists the 42 types, a site's own, and the operational ones.
func TestListTypes(t *testing.T) {
	t.Parallel()
	out, err := call(t, "", "--list-types", "--event-resource", "claim")
	if lines := strings.Fields(out); err != nil || len(lines) != 50 || lines[0] != "patient.created" || lines[44] != "claim.deleted" || lines[49] != "eventflow.key.rotated" {
		t.Errorf("got %v, %v", lines, err)
	}
}
