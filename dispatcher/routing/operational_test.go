package routing

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clinikapi/eventflow/api/event"
)

// TestOperationalTypesAreAskedFor: a route gets what is said of subscriptions by its family or its type, and never by all; one that
// asks for both gets both, and cancelOn is no other.
func TestOperationalTypesAreAskedFor(t *testing.T) {
	t.Parallel()
	routes := []*Route{
		routeOf(t, "clinic-a", "all", event.All),
		routeOf(t, "clinic-a", "both", event.All, "eventflow.*", event.Pattern(event.KeyRotated)),
		routeOf(t, "clinic-a", "one", event.Pattern(event.EndpointGone), "patient.*"),
		routeOf(t, "clinic-b", "family", "eventflow.*"),
	}
	table := tableOf(t, routes...)
	for _, typ := range append(slices.Clone(event.OperationalTypes), "patient.created") {
		for _, namespace := range []string{"clinic-a", "clinic-b"} {
			want := []string{}
			for _, route := range routes {
				if route.Namespace == namespace && slices.ContainsFunc(route.Patterns, func(p event.Pattern) bool { return p.Matches(typ) }) {
					want = append(want, namespace+"/"+route.Name)
				}
			}
			if diff := cmp.Diff(want, matched(table.Match(namespace, typ, nil))); diff != "" || table.Count(namespace, typ) != len(want) {
				t.Errorf("%s in %s: counted %d, %s", typ, namespace, table.Count(namespace, typ), diff)
			}
		}
	}
	if got := matched(table.Match("clinic-a", event.KeyRotated, nil)); !slices.Equal(got, []string{"clinic-a/both"}) {
		t.Errorf("a rotated key is for %v", got)
	}
	if got := routes[1].Patterns; !slices.Equal(got, []event.Pattern{event.All, "eventflow.*"}) {
		t.Errorf("kept patterns %v", got)
	}
	if !table.Operational() || tableOf(t, routes[0]).Operational() {
		t.Error("the table does not know whether anybody asks for them")
	}
}

// TestCancelOnAllIsNotOperational: what is said of subscriptions cancels nothing that did not name it.
func TestCancelOnAllIsNotOperational(t *testing.T) {
	t.Parallel()
	route := routeOf(t, "clinic-a", "all", event.All)
	table := tableOf(t, route)
	table.cancels = map[selector][]*Route{selectorOf("clinic-a", event.All): {route}}
	if got := table.Cancels("clinic-a", event.DeliveryFailed); len(got) != 0 {
		t.Errorf("%v would be cancelled", names(got))
	}
	if got := table.Cancels("clinic-a", "patient.created"); len(got) != 1 {
		t.Errorf("%v would be cancelled", names(got))
	}
}
