package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/test/kit/metrics"
)

// alert is what a PrometheusRule says of one.
type alert struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var rules struct {
		Spec struct{ Groups []struct{ Rules []alert } }
	}
	if err := yaml.Unmarshal([]byte(read(t, "config/components/monitoring/rules.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	var all []alert
	for _, group := range rules.Spec.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) < 12 {
		t.Fatalf("found %d alerts", len(all))
	}
	return all
}

// queries are those of the dashboard's panels, and of its variables.
func queries(t *testing.T) []string {
	t.Helper()
	var dashboard struct {
		Panels     []struct{ Targets []struct{ Expr string } }
		Templating struct {
			List []struct{ Type, Query string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "config/components/monitoring/dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all = append(all, target.Expr)
		}
	}
	for _, variable := range dashboard.Templating.List {
		if variable.Type == "query" {
			all = append(all, variable.Query)
		}
	}
	if len(all) < 30 {
		t.Fatalf("found %d queries", len(all))
	}
	return all
}

// metricNames are words of a query that only a metric's name looks like.
var metricNames = regexp.MustCompile(`\b(?:eventflow|process|workqueue|controller_runtime|container|go)_\w+`)

// TestQueriesNameMetricsThatExist: what an alert or the dashboard asks for is listed in docs/metrics.md, which is held to the
// registries. A renamed metric would make an alert silent.
func TestQueriesNameMetricsThatExist(t *testing.T) {
	t.Parallel()
	listed := metrics.Read(read(t, metrics.Document))
	all := queries(t)
	for _, alert := range alerts(t) {
		all = append(all, alert.Expr)
	}
	asked := 0
	for _, query := range all {
		for _, name := range metricNames.FindAllString(query, -1) {
			asked++
			family := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			_, plain := listed[name]
			if !plain && listed[family].Type != "histogram" {
				t.Errorf("%q asks for %s, which docs/metrics.md does not list", query, name)
			}
		}
	}
	if asked < 60 {
		t.Errorf("found %d names", asked)
	}
}

// TestEveryAlertHasARunbook: a section says what it means and what to do, and every section is that of an alert.
func TestEveryAlertHasARunbook(t *testing.T) {
	t.Parallel()
	const base = "https://github.com/clinikapi/eventflow/blob/main/docs/runbooks.md#"
	var headings []string
	for _, match := range regexp.MustCompile(`(?m)^## (Eventflow\w+)$`).FindAllStringSubmatch(read(t, "docs/runbooks.md"), -1) {
		headings = append(headings, match[1])
	}
	for _, a := range alerts(t) {
		i := slices.Index(headings, a.Alert)
		if i < 0 {
			t.Errorf("docs/runbooks.md has no section %s", a.Alert)
			continue
		}
		headings = slices.Delete(headings, i, i+1)
		if a.Annotations["runbook_url"] != base+strings.ToLower(a.Alert) {
			t.Errorf("%s has the runbook %s", a.Alert, a.Annotations["runbook_url"])
		}
		if a.Annotations["summary"] == "" || a.Annotations["description"] == "" || !slices.Contains([]string{"critical", "warning", "info"}, a.Labels["severity"]) {
			t.Errorf("%s has no summary, description or severity", a.Alert)
		}
	}
	if len(headings) > 0 {
		t.Errorf("docs/runbooks.md has sections of alerts that do not exist: %v", headings)
	}
}
