package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/event/sample"
	"github.com/clinikapi/eventflow/dispatcher/simulate"
)

const root = "../.."

// fenced finds the blocks of a page: the language, the name of a file behind it, and the text.
var fenced = regexp.MustCompile("(?s)\n```([a-z]+)(?: ([\\w.-]+))?\n(.*?)```\n")

type block struct{ language, file, text string }

func blocks(t *testing.T, page, language string) (all []block) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range fenced.FindAllStringSubmatch(string(text), -1) {
		if match[1] == language {
			all = append(all, block{match[1], match[2], match[3]})
		}
	}
	if len(all) == 0 {
		t.Fatalf("docs/%s has no block of %s", page, language)
	}
	return all
}

// whole makes a manifest of a spec that a page shows a part of.
func whole(spec string) string {
	for field, value := range map[string]string{"url": "https://hooks.example.com/in", "events": `["*"]`, "signing": "{secretRef: {name: keys, key: current}}"} {
		if !regexp.MustCompile(`(?m)^  ` + field + `:`).MatchString(spec) {
			spec = strings.TrimRight(spec, "\n") + "\n  " + field + ": " + value + "\n"
		}
	}
	return "apiVersion: webhooks.clinikapi.com/v1alpha1\nkind: WebhookSubscription\nmetadata: {name: example, namespace: clinic-a, labels: {site: site_sample01}}\n" + spec
}

var present = time.Date(2026, 3, 2, 15, 0, 0, 0, time.UTC)

// sampleFile writes the sample of a type, with more data, into a file.
func sampleFile(t *testing.T, typ event.Type, more map[string]any) string {
	t.Helper()
	e, err := sample.New(typ, present)
	if err != nil {
		t.Fatal(err)
	}
	if more != nil {
		data := map[string]any{}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			t.Fatal(err)
		}
		for key, value := range more {
			data[key] = value
		}
		if e.Data, err = json.Marshal(data); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, string(typ)+".json", string(text))
}

// reported runs the command, and returns its report.
func reported(t *testing.T, args ...string) *simulate.Report {
	t.Helper()
	out, err := call(t, "", append(args, "-o", "json")...)
	if err != nil {
		t.Fatalf("eventflow test %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	report := &simulate.Report{}
	if err := json.Unmarshal([]byte(out), report); err != nil {
		t.Fatal(err)
	}
	return report
}

// TestSpecsOfTheDocs: every spec that a page shows is accepted, and does something sensible with a sample.
func TestSpecsOfTheDocs(t *testing.T) {
	t.Parallel()
	lookup := file(t, "lookup.json", `{"phone":"+15550100101"}`)
	for _, page := range []string{"automations.md", "filters.md", "transforms.md"} {
		for i, b := range blocks(t, page, "yaml") {
			t.Run(fmt.Sprint(page, i), func(t *testing.T) {
				t.Parallel()
				spec := file(t, "spec.yaml", whole(b.text))
				e := sampleFile(t, "appointment.created", map[string]any{"phone": "+15550100101"})
				result := reported(t, "-f", spec, "-e", e, "--lookup", lookup).Events[0].Results[0]
				if (result.Outcome != simulate.Delivered && result.Outcome != simulate.Scheduled) || result.Request == nil || len(result.Failures) > 0 {
					t.Errorf("%s\nbecomes %s (%s) %v %v", b.text, result.Outcome, result.Reason, result.Explanation, result.Failures)
				}
			})
		}
	}
}

// TestFiltersOfTheDocs: every filter that the page shows is accepted, and has a result for an event that has its fields.
func TestFiltersOfTheDocs(t *testing.T) {
	t.Parallel()
	e := sampleFile(t, "appointment.updated", map[string]any{"flag": "high", "code": map[string]any{"coding": []any{}}, "medications": []any{}})
	for _, b := range blocks(t, "filters.md", "cel") {
		spec := file(t, "spec.yaml", whole("spec:\n  filter: |\n    "+b.text))
		result := reported(t, "-f", spec, "-e", e).Events[0].Results[0]
		if result.Filter == nil || result.Filter.Result == "error" || len(result.Filter.Terms) == 0 {
			t.Errorf("%s has no result: %+v, %v", b.text, result.Filter, result.Failures)
		}
	}
}

// TestTimesOfTheDocs: every spec.schedule.at in the table of docs/automations.md plans the sample of an appointment.
func TestTimesOfTheDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs", "automations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## at: when")
	section, _, _ = strings.Cut(section, "\n## ")
	want := map[string]time.Time{
		"a day before":              present.Add(50 * time.Hour),
		"two hours after the visit": present.Add(76*time.Hour + 30*time.Minute),
		"two days after the event":  present.Add(48 * time.Hour),
	}
	rows := regexp.MustCompile("(?m)^\\| ([a-z][^|]*) \\| `([^`]+)` \\|$").FindAllStringSubmatch(section, -1)
	if len(rows) != len(want) {
		t.Fatalf("the table has the rows %v", rows)
	}
	for _, row := range rows {
		spec := file(t, "spec.yaml", whole("spec:\n  schedule:\n    at: "+row[2]))
		result := reported(t, "-f", spec, "-e", sampleFile(t, "appointment.created", nil)).Events[0].Results[0]
		if result.Outcome != simulate.Scheduled || !result.Plan.Time.Equal(want[row[1]]) {
			t.Errorf("%s: %s plans %s, %+v", row[1], row[2], result.Outcome, result.Plan)
		}
	}
}

// TestCommandsOfTheDocs: every command of docs/automations.md runs, on the files that the page shows.
func TestCommandsOfTheDocs(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	for _, b := range blocks(t, "automations.md", "json") {
		if b.file != "" {
			files[b.file] = file(t, b.file, b.text)
		}
	}
	ran := 0
	for _, b := range blocks(t, "automations.md", "sh") {
		for command := range strings.SplitSeq(strings.ReplaceAll(b.text, "\\\n", " "), "\n") {
			words := strings.Fields(command)
			if len(words) < 2 || words[0] != "eventflow" || words[1] != "test" {
				continue
			}
			ran++
			for i, word := range words {
				if path := files[word]; path != "" {
					words[i] = path
				} else if strings.HasPrefix(word, "config/") {
					words[i] = filepath.Join(root, word)
				}
			}
			if out, err := call(t, "", words[2:]...); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		}
	}
	if ran < 2 {
		t.Errorf("the page shows %d commands", ran)
	}
}

// TestAutomations: each subscription of config/samples/automations, as it stands, does with the samples what it is for.
func TestAutomations(t *testing.T) {
	t.Parallel()
	encounter := file(t, "encounter.json", `{"data":{"patientId":"pt_sample01","date":"2026-03-02","diagnoses":["I10"],"observations":[{"code":"99213"}],"medicationRequests":[{"code":"314076"}]}}`)
	for name, test := range map[string]struct {
		folder  string
		typ     event.Type
		outcome simulate.Outcome
		planned string
		body    string // a part of it
	}{
		"sms-confirmation":    {"sms", "appointment.created", simulate.Delivered, "2026-03-02T15:00:00Z", "confirmed+for+Thursday%2C+March+5%2C+12%3A00+PM"},
		"sms-reminder":        {"sms", "appointment.created", simulate.Scheduled, "2026-03-04T17:00:00Z", "Thursday+at+12%3A00+PM"},
		"sms-follow-up":       {"sms", "appointment.created", simulate.Scheduled, "2026-03-05T19:30:00Z", "How+did+it+go"},
		"billing-claim":       {"billing", "encounter.updated", simulate.Delivered, "", `"codes":["99213"]`},
		"care-team-slack":     {"care-team", "observation.created", simulate.Delivered, "", `potassium = 6.4 mmol/L (high)`},
		"care-team-email":     {"care-team", "observation.created", simulate.Delivered, "", `dr.rivera@example.com`},
		"onboarding-welcome":  {"onboarding", "patient.created", simulate.Delivered, "", `Dear Ada`},
		"onboarding-intake":   {"onboarding", "patient.created", simulate.Delivered, "", `"patientId":"pt_sample01"`},
		"onboarding-reminder": {"onboarding", "patient.created", simulate.Scheduled, "2026-03-04T15:00:00Z", `still empty`},
		"pharmacy-order":      {"pharmacy", "prescription.created", simulate.Delivered, "", `"medication":"Lisinopril 10 mg"`},
		"pharmacy-sms":        {"pharmacy", "prescription.created", simulate.Delivered, "", "Your+prescription+for+Lisinopril+10+mg"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			automations := filepath.Join(root, "config", "samples", "automations")
			report := reported(t, "-f", filepath.Join(automations, "secrets.yaml"), "-f", filepath.Join(automations, test.folder),
				"-e", sampleFile(t, test.typ, nil), "--lookup", encounter)
			for _, result := range report.Events[0].Results {
				if result.Subscription != name {
					continue
				}
				if result.Outcome != test.outcome || len(result.Failures) > 0 || result.Request == nil || !strings.Contains(result.Request.Body, test.body) {
					t.Errorf("got %s (%s) %v %v %+v", result.Outcome, result.Reason, result.Explanation, result.Failures, result.Request)
				}
				if test.planned != "" && result.Plan.Time.Format(time.RFC3339) != test.planned {
					t.Errorf("planned for %s, want %s", result.Plan.Time, test.planned)
				}
				return
			}
			t.Error("there is no such subscription")
		})
	}
}
