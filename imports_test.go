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
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", store).Output()
		if err != nil {
			t.Fatal(err)
		}
		deps := strings.Fields(string(out))
		for _, forbidden := range []string{"engine", "egress", "routing", "ingest"} {
			if slices.Contains(deps, "github.com/clinikapi/eventflow/dispatcher/"+forbidden) {
				t.Errorf("%s links dispatcher/%s", store, forbidden)
			}
		}
	}
}
