package ingest

import (
	"testing"

	"github.com/clinikapi/eventflow/api/event"
)

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
		"only within a nested one": {"a", "patient.created", `{"x":{"resourceId":"pt_1"}}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := order(test.namespace, test.typ, test.data); (got == first) != test.wantSame {
				t.Errorf("got %d beside %d, want the same: %v", got, first, test.wantSame)
			}
		})
	}
	for _, data := range []string{`{}`, `{"resourceId":""}`, `{"resourceId":null}`, `{"resourceId":{}}`} {
		if got := order("a", "patient.created", data); got != 0 {
			t.Errorf("%s has order %d, want none", data, got)
		}
	}
	if order("a", "patient.created", `{"resourceId":17}`) == 0 {
		t.Error("a number is not ordered by")
	}
}
