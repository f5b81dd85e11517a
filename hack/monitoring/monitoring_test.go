package monitoring

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"go.yaml.in/yaml/v3"
)

const folder = "../../config/components/monitoring/"

// read returns the groups of the PrometheusRule, as Prometheus itself takes them from a file of rules.
func read(t *testing.T) []rulefmt.RuleGroup {
	t.Helper()
	text, err := os.ReadFile(folder + "rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var resource struct {
		Spec yaml.Node `yaml:"spec"`
	}
	if err := yaml.Unmarshal(text, &resource); err != nil {
		t.Fatal(err)
	}
	if text, err = yaml.Marshal(&resource.Spec); err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(text, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil {
		t.FailNow()
	}
	return groups.Groups
}

// alert is a rule that is evaluated.
func alert(t *testing.T, name string) *rules.AlertingRule {
	t.Helper()
	for _, group := range read(t) {
		for _, rule := range group.Rules {
			if rule.Alert != name {
				continue
			}
			expr, err := parser.NewParser(parser.Options{}).ParseExpr(rule.Expr)
			if err != nil {
				t.Fatal(err)
			}
			return rules.NewAlertingRule(name, expr, time.Duration(rule.For), time.Duration(rule.KeepFiringFor),
				labels.FromMap(rule.Labels), labels.FromMap(rule.Annotations), labels.EmptyLabels(), "", true, slog.New(slog.DiscardHandler))
		}
	}
	t.Fatalf("there is no alert %s", name)
	return nil
}

// The labels of the targets of a dispatcher and of a manager.
const (
	d = `{namespace="eventflow-system",webhookdispatcher="default",pod="default-1"}`
	m = `{namespace="eventflow-system",pod="eventflow-manager-1"}`
)

func in(target string, more string) string { return strings.TrimSuffix(target, "}") + "," + more + "}" }

// scenario is what an alert's metrics are, minute by minute: fine, then broken, then mended.
type scenario struct {
	series []string // in the notation of promtool's tests
	// fires and resolved are minutes: the alert fires in the first, not a minute before; and not any more in the second.
	fires, resolved int
	// says is part of the summary or the description.
	says string
}

var scenarios = map[string]scenario{
	"EventflowBacklogOld": {
		series: []string{"eventflow_store_oldest_due_age_seconds" + d + " 0x10 60+60x59 0x20"},
		fires:  51, resolved: 71, says: "Deliveries of eventflow-system/default wait",
	},
	"EventflowEndpointsFailing": {
		series: []string{"eventflow_delivery_endpoints_failing" + d + " 0x9 3x30 0x20"}, fires: 25, resolved: 41, says: "of 3 subscriptions failed",
	},
	"EventflowDeliveriesExhausted": {
		series: []string{
			"eventflow_delivery_finished_total" + in(d, `state="Failed"`) + " 0x9 1+1x5 6x40",
			"eventflow_delivery_finished_total" + in(d, `state="Delivered"`) + " 0+10x60",
		}, fires: 10, resolved: 31, says: "were given up",
	},
	"EventflowStoreSlow": {
		series: []string{
			"eventflow_store_append_seconds_bucket" + in(d, `le="0.01"`) + " 0+100x10 1000x30 1000+100x20",
			"eventflow_store_append_seconds_bucket" + in(d, `le="1"`) + " 0+100x10 1000x30 1000+100x20",
			"eventflow_store_append_seconds_bucket" + in(d, `le="2.5"`) + " 0+100x60",
			"eventflow_store_append_seconds_bucket" + in(d, `le="+Inf"`) + " 0+100x60",
		}, fires: 21, resolved: 48, says: "is slow",
	},
	"EventflowStoreFilling": {
		series: []string{
			"eventflow_store_disk_free_bytes" + d + " 600x10 200x30 600x20", "eventflow_store_disk_used_bytes" + d + " 400x10 800x30 400x20",
			"eventflow_store_disk_reserve_bytes" + d + " 100x60", "eventflow_store_disk_owed_bytes" + d + " 10x60",
		}, fires: 26, resolved: 42, says: "9% of it",
	},
	"EventflowStoreFull": {
		series: []string{"eventflow_store_full" + d + " 0x9 1x10 0x20"}, fires: 11, resolved: 21, says: "is full",
	},
	"EventflowStoreNotReady": {
		series: []string{"eventflow_store_ready" + d + " 1x9 0x10 1x20", "eventflow_store_full" + d + " 0x40"}, fires: 12, resolved: 21, says: "accepts no events",
	},
	"EventflowIngestRefusing": {
		series: []string{
			"eventflow_ingest_requests_total" + in(d, `operation="publish",code="202"`) + " 0+90x70",
			"eventflow_ingest_requests_total" + in(d, `operation="publish",code="503"`) + " 0x10 10+10x29 300x30",
			"eventflow_quota_refused_total" + in(d, `quota="eventsPerSecond"`) + " 0x70",
		}, fires: 23, resolved: 47, says: "refuses events",
	},
	"EventflowQuotaNearlyUsed": {
		series: []string{"eventflow_quota_largest_use_ratio" + in(d, `quota="pendingBytes"`) + " 0.5x9 0.95x30 0.5x20"}, fires: 25, resolved: 41, says: "quota pendingBytes",
	},
	"EventflowCertificateExpiring": { // a week is 604800 s, and the time is that since 1970
		series: []string{"eventflow_certificate_expiry_timestamp_seconds" + in(d, `listener="api"`) + " 605400x29 1209600x20"}, fires: 16, resolved: 31, says: "the listener api",
	},
	"EventflowEncryptionKeyMissing": {
		series: []string{"eventflow_encryption_locked_tenants" + d + " 0x9 2x20 0x20"}, fires: 15, resolved: 31, says: "of 2 namespaces",
	},
	"EventflowMemoryNearLimit": {
		series: []string{
			"process_resident_memory_bytes" + d + " 500x9 970x30 500x20", "eventflow_memory_limit_bytes" + d + " 1000x70",
			"process_resident_memory_bytes" + m + " 5000x70",
			"eventflow_memory_used_bytes" + d + " 10x70", "eventflow_memory_budget_bytes" + d + " 100x70",
		}, fires: 25, resolved: 41, says: "The pod default-1 uses 97%",
	},
	"EventflowDispatcherDown": {
		series: []string{
			"eventflow_build_info" + in(d, `component="dispatcher"`) + " 1x9 stale _x30 1x20",
			"eventflow_build_info" + in(m, `component="manager"`) + " 1x70",
		}, fires: 15, resolved: 42, says: "No pod of eventflow-system/default answers",
	},
	"EventflowManagerDown": {
		series: []string{
			"eventflow_build_info" + in(m, `component="manager"`) + " 1x9 stale _x30 1x20",
			"eventflow_build_info" + in(d, `component="dispatcher"`) + " 1x70",
		}, fires: 20, resolved: 42, says: "No manager",
	},
	"EventflowManagerNotReconciling": {
		series: []string{
			"controller_runtime_reconcile_errors_total" + in(m, `controller="webhookdispatcher"`) + " 0x10 1+1x29 30x30",
			"controller_runtime_reconcile_total" + in(m, `controller="webhookdispatcher",result="error"`) + " 0x10 1+1x29 30x30",
			"controller_runtime_reconcile_total" + in(m, `controller="webhookdispatcher",result="success"`) + " 0x40 1+1x30",
			"eventflow_build_info" + in(m, `component="manager"`) + " 1x80",
			`controller_runtime_reconcile_errors_total{namespace="other",pod="a",controller="b"} 0+1x80`, // is another program's
			`controller_runtime_reconcile_total{namespace="other",pod="a",controller="b",result="error"} 0+1x80`,
		}, fires: 26, resolved: 48, says: "controller webhookdispatcher fails",
	},
}

// TestEachAlertFiresAndResolves drives each alert with what is broken and then mended.
func TestEachAlertFiresAndResolves(t *testing.T) {
	for _, group := range read(t) {
		for _, rule := range group.Rules {
			t.Run(rule.Alert, func(t *testing.T) {
				s, ok := scenarios[rule.Alert]
				if !ok {
					t.Fatal("there is no scenario")
				}
				firing := s.run(t, alert(t, rule.Alert))
				if got := firing[s.fires-1]; got != "" {
					t.Errorf("it fires too early: %s", got)
				}
				if !strings.Contains(firing[s.fires], s.says) {
					t.Errorf("at %d min, it says %q, want %q in it", s.fires, firing[s.fires], s.says)
				}
				if got := firing[s.resolved]; got != "" {
					t.Errorf("at %d min, it still fires: %s", s.resolved, got)
				}
			})
		}
	}
}

// run evaluates the rule every minute, and returns what it says in each, empty while it does not fire.
func (s scenario) run(t *testing.T, rule *rules.AlertingRule) []string {
	t.Helper()
	storage := promqltest.LoadedStorage(t, "load 1m\n  "+strings.Join(s.series, "\n  ")+"\n")
	query := rules.EngineQueryFunc(promqltest.NewTestEngine(t, false, 5*time.Minute, 1_000_000), storage)
	firing := make([]string, s.resolved+1)
	for minute := range firing {
		_, err := rule.Eval(context.Background(), 0, time.Unix(0, 0).Add(time.Duration(minute)*time.Minute), query, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, active := range rule.ActiveAlerts() {
			if active.State == rules.StateFiring {
				firing[minute] += active.Annotations.Get("summary") + " " + active.Annotations.Get("description") + "\n"
			}
		}
	}
	return firing
}

// TestQueriesParse: the dashboard's queries are PromQL, once Grafana has put its variables in.
func TestQueriesParse(t *testing.T) {
	text, err := os.ReadFile(folder + "dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	filled, n := strings.NewReplacer("$__rate_interval", "5m", "$namespace", ".*", "$dispatcher", ".*"), 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			n++
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(filled.Replace(target.Expr)); err != nil {
				t.Errorf("%s: %s: %v", panel.Title, target.Expr, err)
			}
		}
	}
	if n < 30 {
		t.Errorf("found %d queries", n)
	}
}
