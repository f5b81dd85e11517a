package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"helm.sh/helm/v3/pkg/strvals"
	"sigs.k8s.io/yaml"
)

const (
	root   = "../../.."
	folder = root + "/charts/eventflow"
)

// sameImage is the image that config/default names.
var sameImage = []string{"image.repository=eventflow", "image.tag=dev"}

// TestSameObjects renders the chart and a kustomization, and wants the same objects, but for the namespace, which Helm itself
// creates, and for what Helm labels.
func TestSameObjects(t *testing.T) {
	t.Parallel()
	const database = "dispatcher.create=true,dispatcher.spec.replicas=2," +
		"dispatcher.spec.store.postgres.connectionSecretRef.name=eventflow-pg-app,dispatcher.spec.store.postgres.connectionSecretRef.key=uri," +
		"dispatcher.spec.store.postgres.caSecretRef.name=eventflow-pg-ca,dispatcher.spec.store.postgres.caSecretRef.key=ca\\.crt"
	for name, tt := range map[string]struct {
		resources  []string
		components []string
		values     []string
	}{
		"default":               {resources: []string{"default"}},
		"no default dispatcher": {resources: []string{"default"}, components: []string{"no-default-dispatcher"}, values: []string{"createDefaultDispatcher=false"}},
		"secret policy":         {resources: []string{"default"}, components: []string{"secret-policy"}, values: []string{"secretPolicy=true"}},
		"deliveries API":        {resources: []string{"default"}, components: []string{"deliveries-api"}, values: []string{"deliveriesAPI=true"}},
		"network policy":        {resources: []string{"default"}, components: []string{"network-policy"}, values: []string{"networkPolicy=true"}},
		"monitoring":            {resources: []string{"default"}, components: []string{"monitoring"}, values: []string{"metrics.podMonitor=true,metrics.rules=true,metrics.dashboard=true"}},
		"PostgreSQL":            {resources: []string{"overlays/postgresql"}, values: []string{database}},
		"high availability": {
			resources: []string{"overlays/high-availability"},
			values:    []string{database, "spread=DoNotSchedule,priorityClass.create=true"},
		},
		"OpenShift": {resources: []string{"overlays/openshift"}, values: []string{"openshift=true,dispatcher.create=true"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := objects(t, built(t, tt.resources, tt.components))
			got := objects(t, rendered(t, true, append(tt.values, sameImage...)...))
			if len(want) < 15 {
				t.Fatalf("kustomize builds %d objects", len(want))
			}
			for _, key := range slices.Sorted(maps.Keys(want)) {
				if !reflect.DeepEqual(got[key], want[key]) {
					t.Errorf("%s: the chart has\n%s\nconfig/ has\n%s", key, text(t, got[key]), text(t, want[key]))
				}
			}
			for key := range got {
				if want[key] == nil {
					t.Errorf("the chart alone has %s", key)
				}
			}
		})
	}
}

// TestEveryValue: each value changes what is rendered, as the schema says.
func TestEveryValue(t *testing.T) {
	t.Parallel()
	plain := rendered(t, true)
	tested := map[string]bool{}
	for set, want := range map[string]string{
		"image.repository=registry.example.com/x":           "image: registry.example.com/x:0.0.0-dev",
		"image.tag=1.2.3":                                   "image: ghcr.io/clinikapi/eventflow:1.2.3",
		"image.digest=sha256:" + strings.Repeat("0", 64):    "image: ghcr.io/clinikapi/eventflow@sha256:0000",
		"image.pullPolicy=Always":                           "imagePullPolicy: Always",
		"image.pullSecrets[0].name=registry":                "imagePullSecrets:\n        - name: registry",
		"replicas=3":                                        "replicas: 3",
		"resources.limits.memory=2Gi":                       "memory: 2Gi",
		"priorityClass.create=true":                         "kind: PriorityClass\nmetadata:\n  name: eventflow\n",
		"priorityClass.name=system-cluster-critical":        "priorityClassName: system-cluster-critical",
		"priorityClass.create=true,priorityClass.value=7":   "\nvalue: 7\n",
		"spread=DoNotSchedule":                              "whenUnsatisfiable: DoNotSchedule",
		"nodeSelector.disk=ssd":                             "nodeSelector:\n        disk: ssd",
		"tolerations[0].operator=Exists":                    "tolerations:\n        - operator: Exists",
		"affinity.nodeAffinity.x=y":                         "affinity:\n        nodeAffinity:",
		"podAnnotations.a=b":                                "        a: b",
		"podDisruptionBudget=false":                         "",
		"openshift=true":                                    "",
		"extraArgs[0]=--v=1":                                "- --v=1",
		"crds.install=false":                                "",
		"crds.keep=false":                                   "",
		"createDefaultDispatcher=false":                     "--create-default-dispatcher=false",
		"dispatcher.create=true":                            "kind: WebhookDispatcher\nmetadata:\n  name: default\n  namespace: hooks\n",
		"dispatcher.create=true,dispatcher.name=other":      "kind: WebhookDispatcher\nmetadata:\n  name: other\n",
		"dispatcher.create=true,dispatcher.spec.replicas=0": "\nspec:\n  replicas: 0",
		"dispatcher.create=true,openshift=true":             "template:\n    securityContext:",
		"dispatcher.create=true,priorityClass.name=high":    "template:\n    priorityClassName: high",
		"dispatcherNamespaces[0]=clinic-a":                  "namespace: clinic-a",
		"deliveriesAPI=true":                                "- --deliveries-api",
		"secretPolicy=true":                                 "kind: ValidatingAdmissionPolicy\n",
		"secretLabel=a/b=c":                                 "--secret-label=a/b=c",
		"networkPolicy=true":                                "kind: NetworkPolicy\n",
		"metrics.enabled=false":                             "--metrics-bind-address=0",
		"metrics.podMonitor=true":                           "kind: PodMonitor\n",
		"metrics.rules=true":                                "kind: PrometheusRule\n",
		"metrics.dashboard=true":                            "grafana_dashboard: \"1\"\n",
	} {
		got := rendered(t, true, set)
		if got == plain || !strings.Contains(got, want) {
			t.Errorf("%s: the chart does not have %q, or nothing that is new", set, want)
		}
		for one := range strings.SplitSeq(set, ",") {
			name, _, _ := strings.Cut(one, "=")
			name, _, _ = strings.Cut(name, "[")
			tested[name] = true
		}
	}
	for name := range leaves(t) {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(tested)), func(set string) bool { return set == name || strings.HasPrefix(set, name+".") }) {
			t.Errorf("no line here sets %s", name)
		}
	}
	for absent, set := range map[string]string{
		"runAsUser: 65532": "openshift=true", "kind: PodDisruptionBudget": "podDisruptionBudget=false",
		"kind: CustomResourceDefinition": "crds.install=false", "resource-policy": "crds.keep=false",
	} {
		if !strings.Contains(plain, absent) || strings.Contains(rendered(t, true, set), absent) {
			t.Errorf("%s leaves %s as it is", set, absent)
		}
	}
}

// leaves are the names of all values.
func leaves(t *testing.T) map[string]bool {
	t.Helper()
	content, err := os.ReadFile(folder + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			found[name] = true
		}
	}
	if len(found) < 25 {
		t.Fatalf("README.md has %d values", len(found))
	}
	return found
}

// TestRefusals: the schema finds what is misspelt.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"replica=2", "replicas=two", "image.digest=sha256:12", "spread=Never", "secretLabel=x", "dispatcher.specs=1"} {
		values := map[string]any{}
		if err := strvals.ParseInto(set, values); err != nil {
			t.Fatal(err)
		}
		if _, err := render(folder, "hooks", true, values); err == nil {
			t.Errorf("%s is taken", set)
		}
	}
}

// TestDispatcherWaitsForItsDefinition: a new cluster's API server would refuse the release as a whole. Once created, no call
// of Helm deletes it, whatever that call knows of the cluster.
func TestDispatcherWaitsForItsDefinition(t *testing.T) {
	t.Parallel()
	if strings.Contains(rendered(t, false, "dispatcher.create=true"), "\nkind: WebhookDispatcher\n") {
		t.Error("a new cluster is asked for a WebhookDispatcher")
	}
	for key, object := range objects(t, rendered(t, true, "dispatcher.create=true")) {
		if strings.HasPrefix(key, "WebhookDispatcher ") || strings.HasPrefix(key, "CustomResourceDefinition ") {
			raw := text(t, object)
			if strings.Contains(raw, "resource-policy") {
				t.Errorf("%s: objects() is to take Helm's annotations out", key)
			}
		}
	}
	if n := strings.Count(rendered(t, true, "dispatcher.create=true"), "helm.sh/resource-policy: keep"); n != 5 {
		t.Errorf("%d objects are kept, want four definitions and the dispatcher", n)
	}
}

// TestLint is helm lint --strict.
func TestLint(t *testing.T) {
	t.Parallel()
	linter := lint.All(folder, nil, "hooks", true)
	for _, message := range linter.Messages {
		if message.Severity > support.InfoSev {
			t.Error(message)
		}
	}
}

// TestKustomizationsBuild builds each kustomization of config/.
func TestKustomizationsBuild(t *testing.T) {
	t.Parallel()
	n := 0
	err := filepath.WalkDir(root+"/config", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "kustomization.yaml" || strings.Contains(path, "/components/") {
			return err
		}
		n++
		if _, err := kustomize(filepath.Dir(path)); err != nil {
			t.Error(err)
		}
		return nil
	})
	if err != nil || n < 10 {
		t.Errorf("built %d (%v)", n, err)
	}
}

// TestGenerated: what make generate writes is there. make verify checks that too, later.
func TestGenerated(t *testing.T) {
	t.Parallel()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	if err := generate(root, copied); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "templates/rights.yaml", "templates/secret_policy.yaml", "files/crds/webhooks.clinikapi.com_webhookdispatchers.yaml"} {
		got, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(copied, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("charts/eventflow/%s is not current: make generate", name)
		}
	}
}

// rendered renders the chart for namespace hooks.
func rendered(t *testing.T, known bool, sets ...string) string {
	t.Helper()
	values := map[string]any{}
	for _, set := range sets {
		if err := strvals.ParseInto(set, values); err != nil {
			t.Fatal(err)
		}
	}
	manifests, err := render(folder, "hooks", known, values)
	if err != nil {
		t.Fatal(err)
	}
	return manifests
}

// built builds folders of config/ with components, for namespace hooks.
func built(t *testing.T, resources, components []string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config, err := filepath.Abs(root + "/config")
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Rel(dir, config)
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]any{"namespace": "hooks"}
	for key, names := range map[string][]string{"resources": resources, "components": components} {
		paths := []string{}
		for _, name := range names {
			if key == "components" {
				name = "components/" + name
			}
			paths = append(paths, filepath.Join(below, name))
		}
		content[key] = paths
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text(t, content)), 0o600); err != nil {
		t.Fatal(err)
	}
	manifests, err := kustomize(dir)
	if err != nil {
		t.Fatal(err)
	}
	return manifests
}

// objects are the manifests by kind and name, without what Helm alone has.
func objects(t *testing.T, manifests string) map[string]any {
	t.Helper()
	found := map[string]any{}
	for document := range strings.SplitSeq("\n"+manifests, "\n---\n") {
		object := map[string]any{}
		if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		if len(object) == 0 || object["kind"] == "Namespace" {
			continue
		}
		metadata := object["metadata"].(map[string]any)
		strip(metadata, "labels", "app.kubernetes.io/managed-by", "app.kubernetes.io/part-of", "helm.sh/chart")
		strip(metadata, "annotations", "helm.sh/resource-policy")
		namespace, _ := metadata["namespace"].(string)
		key := object["kind"].(string) + " " + namespace + "/" + metadata["name"].(string)
		if found[key] != nil {
			t.Fatalf("%s is there twice", key)
		}
		found[key] = object
	}
	return found
}

// strip takes keys out of labels or annotations, and these with the last one.
func strip(metadata map[string]any, field string, keys ...string) {
	content, ok := metadata[field].(map[string]any)
	if !ok {
		return
	}
	for _, key := range keys {
		delete(content, key)
	}
	if len(content) == 0 {
		delete(metadata, field)
	}
}

func text(t *testing.T, object any) string {
	t.Helper()
	content, err := json.MarshalIndent(object, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
