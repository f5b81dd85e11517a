package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testSecretPolicy keeps that whoever writes a subscription may read the Secrets that it names.
func testSecretPolicy(t *testing.T) {
	folder := kustomization(t, "components: [%s/components/secret-policy]")
	kubectl(t, "apply", "-k", folder)
	kubectl(t, "create", "namespace", "clinic-p")
	defer func() {
		kubectl(t, "delete", "-k", folder)
		kubectl(t, "delete", "namespace", "clinic-p", "--wait=false")
	}()
	kubectl(t, "create", "rolebinding", "writer", "--clusterrole=eventflow-editor", "--user=writer", "--namespace=clinic-p")
	kubectl(t, "create", "role", "own-keys", "--verb=get", "--resource=secrets", "--resource-name=own", "--resource-name=other", "--namespace=clinic-p")
	kubectl(t, "create", "rolebinding", "own-keys", "--role=own-keys", "--user=writer", "--namespace=clinic-p")
	awaitPolicy(t)

	from := func(secret string) string {
		return fmt.Sprintf("{name: X-%[1]s, valueFrom: {secretKeyRef: {name: %[1]s, key: k}}}", secret)
	}
	many := make([]string, 20)
	for i := range many {
		many[i] = from(fmt.Sprintf("own-%d", i))
	}
	same := make([]string, 32)
	for i := range same {
		same[i] = fmt.Sprintf("{name: X-%d, valueFrom: {secretKeyRef: {name: own, key: k}}}", i)
	}
	for name, tt := range map[string]struct{ spec, want string }{
		"its own key":                {spec: "signing: {secretRef: {name: own, key: k}}"},
		"its own keys":               {spec: "signing: {secretRef: {name: own, key: k}, previousSecretRef: {name: other, key: k}}"},
		"one Secret for all headers": {spec: "signing: {secretRef: {name: own, key: k}}, headers: [" + strings.Join(same, ", ") + "]"},
		"a foreign key":              {spec: "signing: {secretRef: {name: foreign, key: k}}", want: "you may not get Secret foreign"},
		"a foreign earlier key":      {spec: "signing: {secretRef: {name: own, key: k}, previousSecretRef: {name: foreign, key: k}}", want: "you may not get Secret foreign"},
		"a foreign next key":         {spec: "signing: {secretRef: {name: own, key: k}, nextSecretRef: {name: foreign, key: k}}", want: "you may not get Secret foreign"},
		"a foreign header":           {spec: "signing: {secretRef: {name: own, key: k}}, headers: [" + from("foreign") + "]", want: "you may not get Secret foreign"},
		"a foreign CA":               {spec: "signing: {secretRef: {name: own, key: k}}, tls: {caSecretRef: {name: foreign, key: k}}", want: "you may not get Secret foreign"},
		"a foreign password":         {spec: "signing: {secretRef: {name: own, key: k}}, auth: {basic: {secretRef: {name: foreign}}}", want: "you may not get Secret foreign"},
		"a foreign client":           {spec: "signing: {secretRef: {name: own, key: k}}, lookup: {url: \"'https://x.example.com/'\", auth: {oauth2ClientCredentials: {tokenURL: 'https://id.example.com/token', secretRef: {name: foreign}}}}", want: "you may not get Secret foreign"},
		"its own password":           {spec: "signing: {secretRef: {name: own, key: k}}, auth: {basic: {secretRef: {name: own}}}"},
		"many Secrets":               {spec: "signing: {secretRef: {name: own, key: k}}, headers: [" + strings.Join(many, ", ") + "]", want: "you may not get Secret own-0"},
	} {
		t.Run(name, func(t *testing.T) {
			manifest := fmt.Sprintf(`
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: policy, namespace: clinic-p}
spec: {url: "https://hooks.example.com/in", events: ["*"], %s}`, tt.spec)
			output, err := runKubectl(t, manifest, "create", "--dry-run=server", "-f", "-", "--as=writer")
			if (err != nil) != (tt.want != "") || !strings.Contains(output, tt.want) {
				t.Errorf("want %q, got %v: %s", tt.want, err, output)
			}
			admin, err := runKubectl(t, manifest, "create", "--dry-run=server", "-f", "-") // may get all
			if err != nil {
				t.Errorf("somebody who may read all Secrets is refused: %s", admin)
			}
		})
	}
	checkUpdates(t)
}

// checkUpdates keeps that a change of the spec is looked at, and one beside it is not.
func checkUpdates(t *testing.T) {
	t.Helper()
	manifest := `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: theirs, namespace: clinic-p}
spec: {url: "https://hooks.example.com/in", events: ["*"], signing: {secretRef: {name: foreign, key: k}}}`
	if output, err := runKubectl(t, manifest, "create", "-f", "-"); err != nil {
		t.Fatal(output)
	}
	kubectl(t, "label", "-n", "clinic-p", "webhooksubscription", "theirs", "team=x", "--as=writer")
	output, err := runKubectl(t, "", "patch", "-n", "clinic-p", "webhooksubscription", "theirs", "--type=merge", "-p", `{"spec":{"url":"https://thief.example.com/"}}`, "--as=writer")
	if err == nil || !strings.Contains(output, "you may not get Secret foreign") {
		t.Errorf("want the Secret kept from another URL (%v): %s", err, output)
	}
}

// awaitPolicy waits until the API server goes by the policy, which takes it a moment.
func awaitPolicy(t *testing.T) {
	t.Helper()
	manifest := `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: early, namespace: clinic-p}
spec: {url: "https://hooks.example.com/in", events: ["*"], signing: {secretRef: {name: foreign, key: k}}}`
	for range 300 {
		output, err := runKubectl(t, manifest, "create", "--dry-run=server", "-f", "-", "--as=writer")
		if err != nil && strings.Contains(output, "you may not get Secret") {
			return
		}
	}
	t.Fatal("the policy is not in force")
}

// kustomization writes one that refers to this folder, which %s stands for.
func kustomization(t *testing.T, text string) string {
	t.Helper()
	folder := t.TempDir()
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(folder, here) // kustomize takes no absolute path
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), fmt.Appendf(nil, text, relative), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

// testGitOps applies a dispatcher from Git, by the client and by the server, over one that the manager made.
func testGitOps(t *testing.T) {
	made := `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookDispatcher
metadata: {name: default, namespace: eventflow-system, annotations: {webhooks.clinikapi.com/created-by: eventflow-manager}}`
	git := `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookDispatcher
metadata: {name: default, namespace: eventflow-system}
spec: {store: {embedded: {size: 20Gi, storageClassName: fast}}, retention: {delivered: 48h}}`
	for name, apply := range map[string][]string{
		"by the client": {"apply", "-f", "-"},
		"by the server": {"apply", "--server-side", "--field-manager=gitops", "-f", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			if output, err := runKubectl(t, made, "apply", "--server-side", "--field-manager=eventflow-manager", "-f", "-"); err != nil {
				t.Fatal(output)
			}
			defer kubectl(t, "delete", "-n", "eventflow-system", "webhookdispatcher", "default")
			if output, err := runKubectl(t, git, apply...); err != nil {
				t.Fatal(output)
			}
			before := kubectl(t, "get", "-n", "eventflow-system", "webhookdispatcher", "default", "-o", "jsonpath={.metadata.generation}/{.metadata.resourceVersion}")
			if output, err := runKubectl(t, git, apply...); err != nil {
				t.Fatal(output)
			}
			if after := kubectl(t, "get", "-n", "eventflow-system", "webhookdispatcher", "default", "-o", "jsonpath={.metadata.generation}/{.metadata.resourceVersion}"); after != before {
				t.Errorf("a second apply changed it from %s to %s", before, after)
			}
			if output, err := runKubectl(t, git, append([]string{"diff"}, apply[1:]...)...); err != nil {
				t.Errorf("want no difference to the manifest (%v):\n%s", err, output)
			}
		})
	}
}

// TestAnotherNamespace keeps that all of config/default follows the namespace of a kustomization.
func TestAnotherNamespace(t *testing.T) {
	output := kubectl(t, "kustomize", "another-namespace")
	for line := range strings.Lines(output) {
		if strings.Contains(line, "eventflow-system") {
			for _, about := range []string{"description", "such as", "#"} {
				if strings.Contains(line, about) {
					line = ""
				}
			}
			if line != "" {
				t.Errorf("it is left in namespace eventflow-system: %s", strings.TrimSpace(line))
			}
		}
	}
	for _, want := range []string{"\n  name: webhooks\n", "namespace: webhooks\n"} {
		if !strings.Contains(output, want) {
			t.Errorf("want %q in it", want)
		}
	}
}

// TestComponents builds what docs/gitops.md and docs/rbac.md name.
func TestComponents(t *testing.T) {
	for text, want := range map[string]string{
		"resources: [%[1]s/default]\ncomponents: [%[1]s/components/no-default-dispatcher]": "--create-default-dispatcher=false",
		"resources: [%[1]s/default]\ncomponents: [%[1]s/components/deliveries-api]":        "--deliveries-api",
		"namespace: clinic-a\ncomponents: [%s/components/dispatcher-namespace]":            "namespace: clinic-a",
		"namespace: clinic-a\ncomponents: [%s/components/tenant-namespace]":                "namespace: clinic-a",
		"resources: [%s/namespaced]": "--namespaces=$(POD_NAMESPACE)",
	} {
		if output := kubectl(t, "kustomize", kustomization(t, text)); !strings.Contains(output, want) {
			t.Errorf("%s: want %s in it:\n%s", text, want, output)
		}
	}
}

// TestNamespacedHasRolesAlone keeps that config/namespaced binds nothing cluster-wide, and all that config/default binds
// otherwise.
func TestNamespacedHasRolesAlone(t *testing.T) {
	output := kubectl(t, "kustomize", "namespaced")
	if strings.Contains(output, "kind: ClusterRoleBinding") {
		t.Error("it has a ClusterRoleBinding")
	}
	for _, role := range []string{"eventflow-manager", "eventflow-dispatcher-namespace", "eventflow-tenant-namespace", "eventflow-dispatcher-status"} {
		if !strings.Contains(output, "kind: RoleBinding\nmetadata:\n  labels:\n    app.kubernetes.io/part-of: eventflow\n  name: "+role+"\n  namespace: eventflow-system\n") &&
			!strings.Contains(output, "kind: RoleBinding\nmetadata:\n  name: "+role+"\n  namespace: eventflow-system\n") {
			t.Errorf("it has no RoleBinding %s", role)
		}
	}
}
