package rights

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const log = `{"verb":"get","user":{"username":"a"},"objectRef":{"resource":"secrets"},"responseStatus":{"code":404}}
{"verb":"list","user":{"username":"a"},"objectRef":{"resource":"secrets"},"responseStatus":{"code":403}}
{"verb":"patch","user":{"username":"a"},"objectRef":{"resource":"deployments","apiGroup":"apps"},"responseStatus":{"code":201}}
{"verb":"patch","user":{"username":"admin"},"impersonatedUser":{"username":"a"},"objectRef":{"resource":"pods","subresource":"status"},"responseStatus":{"code":200}}
{"verb":"delete","user":{"username":"b"},"objectRef":{"resource":"secrets"},"responseStatus":{"code":200}}
{"verb":"get","user":{"username":"a"}}
`

const roles = `---
kind: ClusterRole
metadata: {name: r}
rules:
- {apiGroups: [""], resources: [secrets], verbs: [get, list, delete]}
- {apiGroups: [apps], resources: [deployments], verbs: [create, patch]}
---
kind: Role
metadata: {name: r}
rules:
- {apiGroups: [""], resources: [pods/status], verbs: [get, patch]}
---
kind: RoleBinding
metadata: {name: r}
`

func TestUnused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"audit.log": log, "roles.yaml": roles} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	given, err := Rules(filepath.Join(dir, "roles.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	used, err := Log{file: filepath.Join(dir, "audit.log")}.Used("a")
	if err != nil {
		t.Fatal(err)
	}
	held := map[Right]Right{
		{Verb: "get", Resource: "pods/status"}: {Verb: "patch", Resource: "pods/status"}, // which was used
		{Verb: "list", Resource: "secrets"}:    {Verb: "delete", Resource: "secrets"},    // which was not
	}
	if diff := cmp.Diff([]string{"delete secrets", "list secrets"}, Unused(given["r"], used, held)); diff != "" {
		t.Errorf("unused (-want +got):\n%s", diff)
	}
}
