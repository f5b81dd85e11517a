package v1alpha1_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// rule is what the API server lets pass, and what it refuses with which message. Both are patches, in YAML, of a valid
// object; a null removes. An … in a message stands for any text.
type rule struct {
	good []string
	bad  map[string]string
}

// TestRules shows the API server a good and a bad object for each rule.
func TestRules(t *testing.T) {
	t.Parallel()
	for kind, rules := range map[string]map[string]rule{
		"WebhookSubscription": subscriptionRules,
		"WebhookDispatcher":   dispatcherRules,
		"WebhookReplay":       replayRules,
		"WebhookDestination":  destinationRules,
	} {
		for name, r := range rules {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				check(t, r, func(ctx context.Context, patch string) error {
					return apiServer.Create(ctx, object(t, kind, patch), client.DryRunAll, client.FieldValidation("Strict"))
				})
			})
		}
	}
}

// TestStatusRules does the same for what the manager and the dispatcher write.
func TestStatusRules(t *testing.T) {
	t.Parallel()
	for kind, rules := range map[string]map[string]rule{
		"WebhookSubscription": subscriptionStatusRules,
		"WebhookDispatcher":   dispatcherStatusRules,
		"WebhookReplay":       replayStatusRules,
	} {
		created := object(t, kind, "metadata: {name: status-rules}")
		if err := apiServer.Create(t.Context(), created); err != nil {
			t.Fatalf("create a %s: %v", kind, err)
		}
		for name, r := range rules {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				check(t, r, func(ctx context.Context, patch string) error {
					changed := created.DeepCopy()
					merge(changed.Object, parse(t, patch))
					return apiServer.Status().Update(ctx, changed, client.DryRunAll)
				})
			})
		}
	}
}

func check(t *testing.T, r rule, submit func(ctx context.Context, patch string) error) {
	t.Helper()
	if len(r.good) == 0 || len(r.bad) == 0 {
		t.Error("a rule needs a good and a bad object")
	}
	for _, patch := range r.good {
		if err := submit(t.Context(), patch); err != nil {
			t.Errorf("%s: want it accepted, got %v", shortened(patch), err)
		}
	}
	for patch, want := range r.bad {
		if err := submit(t.Context(), patch); !matches(err, want) {
			t.Errorf("%s: want it refused with %q, got %v", shortened(patch), want, err)
		}
	}
}

// matches reports whether err's text has want's parts, which … separates, in their order.
func matches(err error, want string) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	for part := range strings.SplitSeq(want, "…") {
		_, after, found := strings.Cut(text, strings.TrimSpace(part))
		if !found {
			return false
		}
		text = after
	}
	return true
}

func shortened(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// base are valid objects with nothing optional set.
var base = map[string]string{
	"WebhookSubscription": `
metadata: {name: billing-sync}
spec:
  url: https://billing.example.com/hooks
  events: ["*"]
  signing: {secretRef: {name: billing-key, key: current}}
`,
	"WebhookDispatcher": `
metadata: {name: default}
`,
	"WebhookReplay": `
metadata: {name: after-the-outage}
spec:
  subscriptionRef: {name: billing-sync}
`,
	"WebhookDestination": `
metadata: {name: billing}
spec: {hosts: [billing.example.com], namespaceSelector: {}}
`,
}

// object returns the kind's valid object with patch laid over it.
func object(t *testing.T, kind, patch string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{Object: parse(t, base[kind])}
	merge(o.Object, parse(t, patch))
	o.SetAPIVersion("webhooks.clinikapi.com/v1alpha1")
	o.SetKind(kind)
	if kind != "WebhookDestination" {
		o.SetNamespace(metav1.NamespaceDefault)
	}
	return o
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	var parsed map[string]any
	if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatalf("parse %q: %v", shortened(text), err)
	}
	return parsed
}

// merge lays a patch over an object (RFC 7396).
func merge(object, patch map[string]any) {
	for key, value := range patch {
		inner, isMap := value.(map[string]any)
		existing, wasMap := object[key].(map[string]any)
		switch {
		case value == nil:
			delete(object, key)
		case isMap:
			if !wasMap {
				existing = map[string]any{}
				object[key] = existing
			}
			merge(existing, inner)
		default:
			object[key] = value
		}
	}
}

// TestEveryRuleIsTested compares the generated schemas with the tables: a rule without a bad object fails.
func TestEveryRuleIsTested(t *testing.T) {
	t.Parallel()
	for kind, file := range map[string]string{
		"WebhookSubscription": "webhooks.clinikapi.com_webhooksubscriptions.yaml",
		"WebhookDispatcher":   "webhooks.clinikapi.com_webhookdispatchers.yaml",
		"WebhookReplay":       "webhooks.clinikapi.com_webhookreplays.yaml",
		"WebhookDestination":  "webhooks.clinikapi.com_webhookdestinations.yaml",
	} {
		content, err := os.ReadFile(filepath.Join(crds, file))
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(content, &crd); err != nil {
			t.Fatal(err)
		}
		refusals := refusals(map[string][]map[string]rule{
			"WebhookSubscription": {subscriptionRules, subscriptionStatusRules, subscriptionTransitions},
			"WebhookDispatcher":   {dispatcherRules, dispatcherStatusRules, embeddedTransitions, encryptedTransitions, postgresTransitions},
			"WebhookReplay":       {replayRules, replayStatusRules, replayTransitions},
			"WebhookDestination":  {destinationRules},
		}[kind])
		for _, want := range refusalsOf("", crd.Spec.Versions[0].Schema.OpenAPIV3Schema) {
			tested := slices.ContainsFunc(refusals, func(refusal string) bool {
				path, _, _ := strings.Cut(refusal, " ")
				return strings.TrimSuffix(path, ":") == cmp.Or(want.path, "<nil>") && strings.Contains(refusal, want.text)
			})
			if !tested {
				t.Errorf("%s: no bad object for %s: %q", kind, want.path, want.text)
			}
		}
	}
}

func refusals(tables []map[string]rule) []string {
	var all []string
	for _, table := range tables {
		for _, r := range table {
			for _, want := range r.bad {
				all = append(all, strings.ReplaceAll(want, "[1]", "[0]"))
			}
		}
	}
	return all
}

// refusal is the field that a message of the API server begins with, and what the message says.
type refusal struct{ path, text string }

// foreign are the parts of the schemas that Kubernetes itself defines.
var foreign = []string{
	"apiVersion", "kind", "metadata", "spec.template.affinity", "spec.template.resources", "spec.template.tolerations[0]",
	"spec.template.topologySpreadConstraints[0]", "spec.template.imagePullSecrets[0]", "spec.template.env[0]", "spec.template.envFrom[0]",
	"spec.template.volumeMounts[0]", "spec.template.securityContext", "spec.template.volumes[0].configMap", "spec.template.volumes[0].secret",
	"spec.template.volumes[0].emptyDir", "spec.template.volumes[0].projected", "spec.template.volumes[0].csi", "spec.template.volumes[0].persistentVolumeClaim",
	"spec.subscriptions.namespaceSelector", "spec.quotas.overrides[0].namespaceSelector", "spec.egress.rules[0].namespaceSelector", "status.conditions[0]",
}

// refusalsOf lists how the API server refuses what a schema, found at path, does not allow.
func refusalsOf(path string, schema *apiextensionsv1.JSONSchemaProps) []refusal {
	if slices.Contains(foreign, path) {
		return nil
	}
	var all []refusal
	add := func(format string, arguments ...any) {
		all = append(all, refusal{path, fmt.Sprintf(format, arguments...)})
	}
	for _, validation := range schema.XValidations {
		add("%s", validation.Message)
	}
	if schema.Minimum != nil {
		add("should be greater than or equal to %.0f", *schema.Minimum)
	}
	if schema.Maximum != nil {
		add("should be less than or equal to %.0f", *schema.Maximum)
	}
	if schema.MinLength != nil {
		add("should be at least %d chars long", *schema.MinLength)
	}
	if schema.MaxLength != nil {
		add("may not be more than %d bytes", *schema.MaxLength)
	}
	if schema.MinItems != nil {
		add("should have at least %d items", *schema.MinItems)
	}
	if schema.MaxItems != nil {
		add("must have at most %d items", *schema.MaxItems)
	}
	if schema.Pattern != "" {
		add("should match '%s'", schema.Pattern)
	}
	if len(schema.Enum) > 0 {
		add("Unsupported value")
	}
	if schema.XListType != nil && *schema.XListType != "atomic" {
		all = append(all, refusal{path + "[0]", "Duplicate value"})
	}
	for _, name := range schema.Required {
		all = append(all, refusal{strings.TrimPrefix(path+"."+name, "."), "Required value"})
	}
	for name, property := range schema.Properties {
		all = append(all, refusalsOf(strings.TrimPrefix(path+"."+name, "."), &property)...)
	}
	if schema.Items != nil {
		all = append(all, refusalsOf(path+"[0]", schema.Items.Schema)...)
	}
	return all
}
