package ingest

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// TestUnorderedEventsAreNoticed: they are counted, and logged at most once a minute.
func TestUnorderedEventsAreNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		f := newFixture(t, func(o *Options) {
			table, err := routing.NewTable([]*routing.Route{{
				Identity: "clinic-a/ordered", Namespace: "clinic-a", Name: "ordered", Key: event.NewSubscriptionKey("clinic-a/ordered"),
				Patterns: []event.Pattern{"patient.*"}, Endpoint: &engine.Endpoint{Ordered: true},
			}})
			if err != nil {
				t.Fatal(err)
			}
			o.Routes = func() *routing.Table { return table }
			o.Logger = funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{})
		})
		for range 3 {
			f.publish(`[{"type":"patient.created","data":{"name":"x"}},{"type":"patient.created","data":{"resourceId":"1"}},{"type":"lab.created","data":{}}]`)
		}
		if got := testutil.ToFloat64(f.metrics.unordered); got != 3 || len(lines) != 1 || !strings.Contains(lines[0], "ByResource") {
			t.Errorf("counted %v, logged %q", got, lines)
		}
		<-time.After(unorderedInterval)
		if f.publish(`{"type":"patient.created","data":{}}`); len(lines) != 2 {
			t.Errorf("logged %q", lines)
		}
	})
}

func TestOrderFollowsTheResource(t *testing.T) {
	t.Parallel()
	order := func(namespace string, typ event.Type, data string) uint64 {
		p := &parser{}
		return p.order(namespace, &incoming{eventType: typ, data: []byte(data)})
	}
	first := order("a", "patient.created", `{"resourceId":"pt_1"}`)
	if first == 0 {
		t.Fatal("an event with a resourceId is not ordered")
	}
	for name, test := range map[string]struct {
		namespace string
		typ       event.Type
		data      string
		wantSame  bool
	}{
		"other action":             {"a", "patient.deleted", `{"resourceId":"pt_1"}`, true},
		"other data, spaces":       {"a", "patient.updated", ` { "x": {"resourceId": 7}, "resourceId" : "pt_1" } `, true},
		"escaped":                  {"a", "patient.updated", `{"resourceI\u0064":"pt\u005f1"}`, true},
		"other resource":           {"a", "patient.created", `{"resourceId":"pt_2"}`, false},
		"other type":               {"a", "lab.created", `{"resourceId":"pt_1"}`, false},
		"other namespace":          {"b", "patient.created", `{"resourceId":"pt_1"}`, false},
		"FHIR":                     {"a", "patient.created", `{"resourceType":"Patient","id":"pt_1"}`, true},
		"FHIR, id first":           {"a", "patient.created", `{"id":"pt_1","x":{"id":"pt_2"},"resourceType":"Patient"}`, true},
		"FHIR with resourceId":     {"a", "patient.created", `{"resourceType":"Patient","id":"row_7","resourceId":"pt_1"}`, true},
		"surrogates alone":         {"a", "patient.created", `{"a\ud83d":"\ude00","resourceId":"pt_1"}`, true},
		"only within a nested one": {"a", "patient.created", `{"x":{"resourceId":"pt_1"}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := order(test.namespace, test.typ, test.data); (got == first) != test.wantSame {
				t.Errorf("got %d beside %d, want the same: %v", got, first, test.wantSame)
			}
		})
	}
	for _, data := range []string{`{}`, `{"resourceId":""}`, `{"resourceId":null}`, `{"resourceId":{}}`, `{"id":"pt_1"}`, `{"resourceType":"Patient","id":"pt_1","resourceId":null}`} {
		if got := order("a", "patient.created", data); got != 0 {
			t.Errorf("%s has order %d, want none", data, got)
		}
	}
	if order("a", "patient.created", `{"resourceId":17}`) == 0 {
		t.Error("a number is not ordered by")
	}
}
