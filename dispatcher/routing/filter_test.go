package routing

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/expression"
)

func TestCompileFilter(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		filter     string
		errors     v1alpha1.FilterErrors
		want       Entry
		wantReason string
		wantInText []string
	}{
		"none":         {},
		"a comparison": {filter: "event.data.status == 'final'", want: Entry{Filter: "event.data.status == 'final'"}},
		"skip":         {filter: "event.data.n > 3", errors: v1alpha1.FilterErrorsSkip, want: Entry{Filter: "event.data.n > 3", SkipFilterErrors: true}},
		"labels": {filter: "subscription.labels.team == 'a'", want: Entry{
			Filter: "subscription.labels.team == 'a'", Labels: map[string]string{"team": "a"},
		}},
		"no expression":      {filter: "event.data.status =", wantReason: v1alpha1.ReasonInvalidFilter, wantInText: []string{"spec.filter: line 1, column "}},
		"no such variable":   {filter: "event.kind == ''\n || evt.data.x", wantReason: v1alpha1.ReasonInvalidFilter, wantInText: []string{"line 2, column 5", "evt"}},
		"no truth":           {filter: "1 + 1", wantReason: v1alpha1.ReasonInvalidFilter},
		"neither of the two": {errors: "Retry", wantReason: v1alpha1.ReasonInvalidSpec, wantInText: []string{"spec.filterErrors"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := minimal()
			sub.Labels = map[string]string{"team": "a"}
			sub.Spec.Filter, sub.Spec.FilterErrors = test.filter, test.errors
			entry, rejection, err := Compile(sub, secretsOf(clinicSecrets()), Policy{Catalog: catalog(t)})
			if err != nil {
				t.Fatal(err)
			}
			if rejection != nil {
				if rejection.Reason != test.wantReason {
					t.Fatalf("rejected for %s: %s", rejection.Reason, rejection.Message)
				}
				for _, part := range test.wantInText {
					if !strings.Contains(rejection.Message, part) {
						t.Errorf("%q does not say %q", rejection.Message, part)
					}
				}
				return
			}
			got := Entry{Filter: entry.Filter, SkipFilterErrors: entry.SkipFilterErrors, Labels: entry.Labels}
			if diff := cmp.Diff(test.want, got); diff != "" || test.wantReason != "" {
				t.Errorf("accepted, want reason %q; %s", test.wantReason, diff)
			}
		})
	}
}

// filteredRoute is a route with a filter, written down and read back.
func filteredRoute(t testing.TB, name, filter string, skip bool, patterns ...event.Pattern) *Route {
	t.Helper()
	entry := entryOf(1)
	entry.Identity, entry.Namespace, entry.Name, entry.Patterns = "clinic-a/"+name, "clinic-a", name, patterns
	entry.Filter, entry.SkipFilterErrors = filter, skip
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

func TestFilterKeeps(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		filter     string
		skip       bool
		data       string
		want       bool
		wantReason expression.Reason
	}{
		"true":                           {filter: "event.data.n > 3", data: `{"n":4}`, want: true},
		"false":                          {filter: "event.data.n > 3", data: `{"n":3}`},
		"the subscription":               {filter: "subscription.name == 'a' && subscription.namespace == 'clinic-a'", data: `{}`, want: true},
		"an error delivers":              {filter: "event.data.n > 3", data: `{"n":"x"}`, want: true, wantReason: expression.WrongType},
		"an error skips":                 {filter: "event.data.n > 3", data: `{"n":"x"}`, skip: true, wantReason: expression.WrongType},
		"of a newer version":             {filter: "event.data.newFunction(3)(", data: `{}`, want: true, wantReason: expression.Internal},
		"of a newer version, and errors": {filter: "event.data.newFunction(3)(", data: `{}`, skip: true, wantReason: expression.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := filteredRoute(t, "a", test.filter, test.skip, "lab.created").Rules
			ev := expression.NewEvent("evt_1", "lab.created", time.Unix(0, 0), []byte(test.data), nil)
			got, err := f.Keeps(&expression.Variables{Event: ev})
			failure, _ := errors.AsType[*expression.Error](err)
			if got != test.want || (failure == nil) != (test.wantReason == "") || failure != nil && failure.Reason != test.wantReason {
				t.Errorf("keeps is %t (%v), want %t (%s)", got, err, test.want, test.wantReason)
			}
		})
	}
}

// TestTableFilters: each filter stands where its subscription does in what Match returns.
func TestTableFilters(t *testing.T) {
	t.Parallel()
	routes := []*Route{
		filteredRoute(t, "exact", "event.data.n == 1", false, "lab.created"),
		routeOf(t, "clinic-a", "plain", "lab.created", "patient.created"),
		filteredRoute(t, "family", "event.data.n == 2", false, "lab.*"),
		filteredRoute(t, "all", "event.data.n == 3", false, "*", "lab.created"),
		routeOf(t, "clinic-b", "plain", "lab.created"),
	}
	table := tableOf(t, routes...)
	for _, test := range []struct {
		tenant string
		typ    event.Type
		want   map[string]bool // by name: has a filter; nil if Filters is
	}{
		{"clinic-a", "lab.created", map[string]bool{"exact": true, "plain": false, "family": true, "all": true}},
		{"clinic-a", "lab.updated", map[string]bool{"family": true, "all": true}},
		{"clinic-a", "patient.created", map[string]bool{"plain": false, "all": true}},
		{"clinic-a", "claim.created", map[string]bool{"all": true}},
		{"clinic-b", "lab.created", nil},
	} {
		subs, filters := table.Match(test.tenant, test.typ, nil), table.Rules(test.tenant, test.typ)
		if test.want == nil {
			if filters != nil {
				t.Errorf("%s %s: there are filters", test.tenant, test.typ)
			}
			continue
		}
		if len(filters) != len(subs) || len(subs) != len(test.want) {
			t.Fatalf("%s %s: %d subscriptions, %d filters, want %d", test.tenant, test.typ, len(subs), len(filters), len(test.want))
		}
		for i, sub := range subs {
			route, _ := table.Get(sub.Key)
			if filters[i] != route.Rules || (filters[i] != nil) != test.want[sub.Name] {
				t.Errorf("%s %s: %s has another's filter", test.tenant, test.typ, sub.Name)
			}
		}
	}
}

// TestProgramsAreShared: routes with the same expression have one program, for as long as there is such a route.
func TestProgramsAreShared(t *testing.T) {
	t.Parallel()
	const text = "event.data.shared == 'by two routes'"
	func() { // so that nothing refers to the routes afterwards
		a, b := filteredRoute(t, "a", text, false, "*"), filteredRoute(t, "b", text, false, "*")
		if a.Rules.filter.program != b.Rules.filter.program {
			t.Error("there are two programs")
		}
		runtime.KeepAlive(a)
		runtime.KeepAlive(b)
	}()
	deadline := time.Now().Add(10 * time.Second)
	for {
		runtime.GC()
		programs.mu.Lock()
		_, there := programs.values[source{expression.Filter, text}]
		programs.mu.Unlock()
		if !there {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the program is kept though no route has it")
		}
		runtime.Gosched()
	}
}

// TestProgramsAreCompiledOnce: while a route of any table has an expression, it is not compiled again. The text here would not
// compile at all.
func TestProgramsAreCompiledOnce(t *testing.T) {
	t.Parallel()
	const text = "event.data.once == "
	program, err := expression.Compile(expression.Filter, "event.data.once == 1")
	if err != nil {
		t.Fatal(err)
	}
	programs.put(source{expression.Filter, text}, program)
	if got, err := programOf(expression.Filter, text); err != nil || got != program {
		t.Errorf("it is compiled again: %v", err)
	}
	runtime.KeepAlive(program)
}

// TestFiltersTakeRoom: what filters take of a dispatcher's memory is bounded with the table's room, and so by tenant: a short
// text can compile to much.
func TestFiltersTakeRoom(t *testing.T) {
	t.Parallel()
	sub := minimal()
	sub.Spec.Filter = "event.id.matches('a{900}b{900}')"
	entry, rejection, err := Compile(sub, secretsOf(clinicSecrets()), Policy{Catalog: catalog(t)})
	if err != nil || rejection != nil {
		t.Fatal(rejection, err)
	}
	const most = 101 << 20 // of 1 GiB, as limits has it for tables
	fit := int64(Large) * int64(ShardRoom/entry.Cost())
	if taken := fit * int64(entry.FilterSize); taken > most || fit == 0 {
		t.Errorf("%d such filters fit into a table, and take %d bytes of memory, want at most %d", fit, taken, most)
	}
}
