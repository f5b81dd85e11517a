package routing

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

func routeOf(t testing.TB, namespace, name string, patterns ...event.Pattern) *Route {
	t.Helper()
	entry := entryOf(1)
	entry.Identity, entry.Namespace, entry.Name, entry.Patterns = namespace+"/"+name, namespace, name, patterns
	route, err := entry.Route()
	if err != nil {
		t.Fatal(err)
	}
	return route
}

func tableOf(t testing.TB, routes ...*Route) *Table {
	t.Helper()
	table, err := NewTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func names(routes []*Route) []string {
	found := make([]string, 0, len(routes))
	for _, route := range routes {
		found = append(found, route.Namespace+"/"+route.Name)
	}
	slices.Sort(found)
	return found
}

func matched(subs []*delivery.Subscription) []string {
	found := make([]string, 0, len(subs))
	for _, sub := range subs {
		found = append(found, sub.Tenant+"/"+sub.Name)
	}
	slices.Sort(found)
	return found
}

// TestMatch asks for all 42 types in two namespaces, with a route for every pattern there is, and compares with what
// event.Pattern itself says.
func TestMatch(t *testing.T) {
	t.Parallel()
	patterns := []event.Pattern{event.All}
	for _, resource := range event.Resources {
		patterns = append(patterns, event.Pattern(resource+".*"))
		for _, action := range event.Actions {
			patterns = append(patterns, event.Pattern(resource+"."+string(action)))
		}
	}
	var routes []*Route
	for _, namespace := range []string{"clinic-a", "clinic-b", "clinic"} {
		for i, pattern := range patterns {
			routes = append(routes, routeOf(t, namespace, fmt.Sprintf("one-%d", i), pattern))
		}
		routes = append(routes,
			routeOf(t, namespace, "two-families", "patient.*", "lab.*"),
			routeOf(t, namespace, "mixed", "patient.*", "lab.created", "practitioner.deleted"))
	}
	table := tableOf(t, routes...)
	types := 0
	for _, resource := range event.Resources {
		for _, action := range event.Actions {
			types++
			typ := event.Type(resource + "." + string(action))
			for _, namespace := range []string{"clinic-a", "clinic-b", "clinic"} {
				var want []*Route
				for _, route := range routes {
					if route.Namespace == namespace && slices.ContainsFunc(route.Patterns, func(p event.Pattern) bool { return p.Matches(typ) }) {
						want = append(want, route)
					}
				}
				if diff := cmp.Diff(names(want), matched(table.Match(namespace, typ, nil))); diff != "" {
					t.Errorf("%s in %s: %s", typ, namespace, diff)
				}
				if got := table.Count(namespace, typ); got != len(want) {
					t.Errorf("%s in %s: counted %d, want %d", typ, namespace, got, len(want))
				}
			}
			if got := table.Match("clinic-c", typ, nil); len(got) != 0 {
				t.Errorf("%s in another namespace matched %v", typ, matched(got))
			}
			if got := table.Match("", typ, nil); len(got) != 0 {
				t.Errorf("%s in no namespace matched %v", typ, matched(got))
			}
		}
	}
	if types != 42 {
		t.Errorf("%d types, want 42", types)
	}
}

func TestMatchFindsEachRouteOnceAndAppends(t *testing.T) {
	t.Parallel()
	first := routeOf(t, "clinic-a", "first", "patient.created")
	route := routeOf(t, "clinic-a", "second", "patient.created", "lab.created")
	route.Patterns = []event.Pattern{"patient.created", "*", "patient.*", "patient.created"} // what no Compile makes
	table := tableOf(t, first, route)
	into := []*delivery.Subscription{first.Subscription}
	if diff := cmp.Diff([]string{"clinic-a/first", "clinic-a/first", "clinic-a/second"}, matched(table.Match("clinic-a", "patient.created", into))); diff != "" {
		t.Error(diff)
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	table := tableOf(t, routeOf(t, "clinic-a", "a", "*"), routeOf(t, "clinic-a", "b", "patient.*"), routeOf(t, "clinic-a", "c", "patient.created"))
	into := make([]*delivery.Subscription, 0, 3)
	allocations := testing.AllocsPerRun(100, func() { into = table.Match("clinic-a", "patient.created", into[:0]) })
	if allocations != 0 || len(into) != 3 {
		t.Errorf("%v allocations for %d matches", allocations, len(into))
	}
	alone := testing.AllocsPerRun(100, func() { into = table.Match("clinic-a", "lab.created", nil) })
	if alone != 0 || len(into) != 1 {
		t.Errorf("%v allocations for %d matches of one kind", alone, len(into))
	}
}

func TestTableFindsByKeyAndLists(t *testing.T) {
	t.Parallel()
	a, b := routeOf(t, "clinic-a", "a", "*"), routeOf(t, "clinic-b", "b", "*")
	table := tableOf(t, a, b)
	if got, ok := table.Get(event.NewSubscriptionKey("clinic-b/b")); !ok || got != b {
		t.Errorf("got %v, %v", got, ok)
	}
	if _, ok := table.Get(event.NewSubscriptionKey("clinic-b/a")); ok {
		t.Error("found what is not there")
	}
	if got := slices.Collect(table.All()); !slices.Equal(got, []*Route{a, b}) || table.Len() != 2 {
		t.Errorf("got %v", names(got))
	}
	table.Problems = []Problem{{Namespace: "clinic-c", Name: "c"}}
	for namespace, want := range map[string]bool{"clinic-a": true, "clinic-c": true, "clinic": false, "": false} {
		if got := table.HasNamespace(namespace); got != want {
			t.Errorf("has namespace %q: %v", namespace, got)
		}
	}
	empty := tableOf(t)
	if empty.Len() != 0 || len(empty.Match("clinic-a", "patient.created", nil)) != 0 {
		t.Error("the empty table is not empty")
	}
}

func TestNewTableRefusesAKeyTwice(t *testing.T) {
	t.Parallel()
	a, b := routeOf(t, "clinic-a", "a", "*"), routeOf(t, "clinic-b", "b", "*")
	b.Key = a.Key
	if table, err := NewTable([]*Route{a, b}); err == nil {
		t.Errorf("got %v", table)
	}
}

func TestRouteRefusesDamagedEntries(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*Entry){
		"identity":      func(e *Entry) { e.Identity = "" },
		"namespace":     func(e *Entry) { e.Namespace = "" },
		"name":          func(e *Entry) { e.Name = "" },
		"no pattern":    func(e *Entry) { e.Patterns = nil },
		"pattern":       func(e *Entry) { e.Patterns = []event.Pattern{"patient"} },
		"empty pattern": func(e *Entry) { e.Patterns = []event.Pattern{""} },
		"URL":           func(e *Entry) { e.URL = "" },
		"no key":        func(e *Entry) { e.Keys = nil },
		"timeout":       func(e *Entry) { e.Timeout = 0 },
		"maxInFlight":   func(e *Entry) { e.MaxInFlight = 0 },
		"factor":        func(e *Entry) { e.Retry.Factor = 0 },
		"initial":       func(e *Entry) { e.Retry.Initial = 0 },
		"max":           func(e *Entry) { e.Retry.Max = -1 },
		"maxAge":        func(e *Entry) { e.Retry.MaxAge = 0 },
		"maxAttempts":   func(e *Entry) { e.Retry.MaxAttempts = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entry := entryOf(1)
			edit(entry)
			if route, err := entry.Route(); err == nil {
				t.Errorf("got %+v", route)
			}
		})
	}
}

// TestRouteWithAnOldKeyWaits: an earlier version took keys of any length. Such an entry waits; it neither stops the table
// nor leaves it, for that would cancel its deliveries.
func TestRouteWithAnOldKeyWaits(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"short": "k", "empty": "", "newline": "a signing key of plain text\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entry := entryOf(1)
			entry.Keys = append(entry.Keys, []byte(key))
			route, err := entry.Route()
			if err != nil || route.Endpoint.Target != nil || len(route.Patterns) == 0 {
				t.Errorf("got %+v, %v; want a route that matches, and whose deliveries wait", route, err)
			}
		})
	}
}

// loadTable reads a table as a dispatcher does that starts: every shard decoded, every route built.
func loadTable(t testing.TB, shards [][]byte) *Table {
	var routes []*Route
	for _, shard := range shards {
		entries, err := DecodeShard(shard)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			route, err := entry.Route()
			if err != nil {
				t.Fatal(err)
			}
			routes = append(routes, route)
		}
	}
	table, err := NewTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// encodedShards returns the shards of n subscriptions, ten to a namespace, of which three match encounter.updated.
func encodedShards(t testing.TB, n int) (shards [][]byte, stringBytes int) {
	sorted := make([][]*Entry, Shards)
	for i := range n {
		entry := entryOf(i)
		if i%10 >= 3 {
			entry.Patterns = []event.Pattern{"patient.created", "appointment.*"}
		}
		sorted[ShardOf(entry.Identity)] = append(sorted[ShardOf(entry.Identity)], entry)
		stringBytes += len(entry.Identity) + len(entry.Namespace) + len(entry.Name) + len(entry.URL) + len(entry.Keys[0]) +
			len(entry.Patterns[0]) + len(entry.Patterns[1]) + len("X-Teambilling")
	}
	for _, entries := range sorted {
		shard, err := EncodeShard(entries)
		if err != nil {
			t.Fatal(err)
		}
		shards = append(shards, shard)
	}
	return shards, stringBytes
}

func TestTableMemory(t *testing.T) {
	if race {
		t.Skip("the race detector's own memory would be measured")
	}
	const subscriptions = 20_000
	shards, stringBytes := encodedShards(t, subscriptions)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	table := loadTable(t, shards)
	each := (int(heap()-before) - stringBytes) / subscriptions
	t.Logf("%d bytes each beyond its own strings", each)
	if each > 1024 {
		t.Errorf("%d bytes each beyond its own strings, want at most 1024", each)
	}
	runtime.KeepAlive(table)
	runtime.KeepAlive(shards)
}

func TestTableOfAHundredThousandLoadsInTime(t *testing.T) {
	if race {
		t.Skip("the race detector's own time would be measured")
	}
	shards, _ := encodedShards(t, 100_000)
	start := cpuTime(t)
	table := loadTable(t, shards)
	took := cpuTime(t) - start
	t.Logf("loaded %d in %v", table.Len(), took)
	if took > 3*time.Second {
		t.Errorf("loading %d took %v, want at most 3s", table.Len(), took)
	}
}

func BenchmarkMatch(b *testing.B) {
	shards, _ := encodedShards(b, 100_000)
	table := loadTable(b, shards)
	namespaces := make([]string, 10_000)
	for i := range namespaces {
		namespaces[i] = fmt.Sprintf("clinic-%d", i)
	}
	into := make([]*delivery.Subscription, 0, 3)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		into = table.Match(namespaces[i*7919%len(namespaces)], "encounter.updated", into[:0])
		i++
	}
	if len(into) != 3 {
		b.Fatalf("%d matches, want 3", len(into))
	}
}

func BenchmarkLoad(b *testing.B) {
	shards, _ := encodedShards(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		loadTable(b, shards)
	}
}
