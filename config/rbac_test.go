package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/test/rights"
)

// TestRightsAreExplained keeps that docs/rbac.md says of each rule what it is for.
func TestRightsAreExplained(t *testing.T) {
	t.Parallel()
	roles, err := rights.Rules("rbac/role.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../docs/rbac.md")
	if err != nil {
		t.Fatal(err)
	}
	for role, given := range roles {
		if !strings.Contains(string(text), "`"+role+"`") {
			t.Errorf("docs/rbac.md does not name %s", role)
		}
		for _, right := range given {
			explained := false
			for line := range strings.Lines(string(text)) {
				explained = explained || strings.HasPrefix(line, "|") && strings.Contains(line, "`"+right.Resource+"`") && strings.Contains(line, right.Verb)
			}
			if !explained {
				t.Errorf("docs/rbac.md does not say why %s has the right to %s", role, right)
			}
		}
	}
}
