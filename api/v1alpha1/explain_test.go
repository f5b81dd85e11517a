package v1alpha1_test

import (
	"os"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// TestEveryFieldIsExplained: kubectl explain has a sentence for each field of a subscription, and docs/api-reference.md has its row.
func TestEveryFieldIsExplained(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../config/crd/bases/webhooks.clinikapi.com_webhooksubscriptions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &definition); err != nil {
		t.Fatal(err)
	}
	reference, err := os.ReadFile("../../docs/api-reference.md")
	if err != nil {
		t.Fatal(err)
	}
	fields := 0
	for _, version := range definition.Spec.Versions {
		walkFields(definition.Spec.Names.Kind, version.Schema.OpenAPIV3Schema, func(path, name string, field *apiextensionsv1.JSONSchemaProps) {
			fields++
			if !strings.Contains(field.Description, " ") {
				t.Errorf("%s has no description", path)
			}
			if !strings.Contains(string(reference), "\n| `"+name+"` |") {
				t.Errorf("docs/api-reference.md has no row for %s", path)
			}
		})
	}
	if fields < 100 {
		t.Errorf("only %d fields were looked at", fields)
	}
}

// walkFields visits the fields of a schema, but for those that every object of Kubernetes has.
func walkFields(path string, schema *apiextensionsv1.JSONSchemaProps, visit func(path, name string, field *apiextensionsv1.JSONSchemaProps)) {
	for name := range schema.Properties {
		field := schema.Properties[name]
		at := path + "." + name
		switch {
		case !strings.Contains(path, ".") && (name == "apiVersion" || name == "kind" || name == "metadata"):
			continue
		case strings.HasSuffix(path, ".conditions[]"): // the fields of a condition are Kubernetes' own
			continue
		}
		visit(at, name, &field)
		walkFields(at, &field, visit)
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		walkFields(path+"[]", schema.Items.Schema, visit)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		walkFields(path+"{}", schema.AdditionalProperties.Schema, visit)
	}
}
