package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestStoresLinkNoClient: the linter reads direct imports alone; this reads all of them.
func TestStoresLinkNoClient(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"./dispatcher/store/pebble", "./dispatcher/store/postgres"} {
		deps := depsOf(t, store)
		for _, forbidden := range []string{"engine", "egress", "routing", "ingest", "query"} {
			if slices.Contains(deps, "github.com/clinikapi/eventflow/dispatcher/"+forbidden) {
				t.Errorf("%s links dispatcher/%s", store, forbidden)
			}
		}
	}
}

// TestQueryKnowsNoTransport: what asks it has a transport of its own.
func TestQueryKnowsNoTransport(t *testing.T) {
	t.Parallel()
	deps := depsOf(t, "./dispatcher/query")
	for _, forbidden := range []string{"net/http", "github.com/clinikapi/eventflow/dispatcher/ingest", "github.com/clinikapi/eventflow/dispatcher/engine"} {
		if slices.Contains(deps, forbidden) {
			t.Errorf("dispatcher/query links %s", forbidden)
		}
	}
}

// depsOf returns all packages that a package links, with itself.
func depsOf(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}
