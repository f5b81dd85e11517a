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

// TestZonesAreInTheBinary: the image has no other files, and a window's zone must not depend on the machine's.
func TestZonesAreInTheBinary(t *testing.T) {
	t.Parallel()
	for _, program := range []string{".", "./dispatcher/expression"} {
		if !slices.Contains(depsOf(t, program), "time/tzdata") {
			t.Errorf("%s does not link time/tzdata", program)
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

// TestClientLinksThisModuleAlone: a producer takes nothing of Kubernetes with it, and neither plane is a user of the other's API.
func TestClientLinksThisModuleAlone(t *testing.T) {
	t.Parallel()
	const module = "github.com/clinikapi/eventflow/"
	for _, dependency := range depsOf(t, "./api/client") {
		first, _, _ := strings.Cut(dependency, "/")
		if strings.Contains(first, ".") && dependency != module+"api/client" && dependency != module+"api/event" {
			t.Errorf("api/client links %s", dependency)
		}
	}
	for _, plane := range []string{"./controllers/...", "./dispatcher/..."} {
		if slices.Contains(depsOf(t, plane), module+"api/client") {
			t.Errorf("%s links api/client", plane)
		}
	}
}

// TestDispatcherLinksNoClientset: all groups of Kubernetes are a third of what is compiled before the first webhook.
func TestDispatcherLinksNoClientset(t *testing.T) {
	t.Parallel()
	for _, dependency := range depsOf(t, "./cli/demo") { // and so ./dispatcher
		for _, forbidden := range []string{"k8s.io/client-go/kubernetes", "k8s.io/client-go/informers", "k8s.io/client-go/applyconfigurations", "k8s.io/client-go/discovery", "sigs.k8s.io/controller-runtime", "k8s.io/api/apps", "k8s.io/kube-openapi/pkg/validation"} {
			if strings.HasPrefix(dependency, forbidden) {
				t.Errorf("the dispatcher links %s", dependency)
			}
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
