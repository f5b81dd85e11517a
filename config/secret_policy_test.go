package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"testing"

	"cel.dev/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/test/kit/references"
)

// TestSecretPolicyKnowsEachField keeps that the policy asks about the Secret of every field that can name one.
func TestSecretPolicyKnowsEachField(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("components/secret-policy/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	document, _, _ := bytes.Cut(text, []byte("\n---\n"))
	var policy admissionv1.ValidatingAdmissionPolicy
	if err := yaml.UnmarshalStrict(document, &policy); err != nil {
		t.Fatal(err)
	}
	env, err := cel.NewEnv(cel.Variable("object", cel.DynType), cel.Variable("variables", cel.DynType))
	if err != nil {
		t.Fatal(err)
	}
	fields := references.Secrets("theirs")
	if len(fields) < 13 {
		t.Errorf("%d fields name Secrets, want 13 at least", len(fields))
	}
	for field, spec := range fields {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			// A spec is not valid without a signing key: another one is there, unless the field is that one.
			if field != "signing.secretRef" {
				spec.Signing.SecretRef.Name = "own"
			}
			encoded, err := json.Marshal(map[string]any{"spec": spec})
			if err != nil {
				t.Fatal(err)
			}
			var object map[string]any
			if err := json.Unmarshal(encoded, &object); err != nil {
				t.Fatal(err)
			}
			variables := map[string]any{}
			for _, variable := range policy.Spec.Variables {
				if variable.Name == "secrets" { // the API server's authorizer
					continue
				}
				program := compile(t, env, variable.Expression)
				value, _, err := program.Eval(map[string]any{"object": object, "variables": variables})
				if err != nil {
					t.Fatalf("%s: %v", variable.Name, err)
				}
				variables[variable.Name] = value
				if variable.Name != "s0" {
					continue
				}
				names, err := value.ConvertToNative(reflect.TypeFor[[]string]())
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(names.([]string), "theirs") {
					t.Errorf("the policy does not look at it, but at %v", names)
				}
			}
		})
	}
}

func compile(t *testing.T, env *cel.Env, expression string) cel.Program {
	t.Helper()
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	program, err := env.Program(ast)
	if err != nil {
		t.Fatal(err)
	}
	return program
}
