package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// TestAutomationsAreAccepted compiles each subscription of config/samples/automations, with the Secrets beside them: each
// Secret and key that it names is there, and each expression compiles.
func TestAutomationsAreAccepted(t *testing.T) {
	t.Parallel()
	const folder = "samples/automations"
	secrets := map[string]map[string][]byte{}
	for _, document := range documents(t, filepath.Join(folder, "secrets.yaml")) {
		var secret corev1.Secret
		if err := yaml.UnmarshalStrict([]byte(document), &secret); err != nil {
			t.Fatal(err)
		}
		data := map[string][]byte{}
		for key, value := range secret.StringData {
			data[key] = []byte(value)
		}
		secrets[secret.Name] = data
	}
	sources := routing.Sources{Secrets: func(name string) (map[string][]byte, bool, error) {
		data, found := secrets[name]
		return data, found, nil
	}}
	files, err := filepath.Glob(filepath.Join(folder, "*", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := event.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		found++
		var sub v1alpha1.WebhookSubscription
		if err := yaml.UnmarshalStrict([]byte(documents(t, file)[0]), &sub); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if _, rejection, err := routing.Compile(&sub, sources, routing.Policy{Catalog: catalog}); rejection != nil || err != nil {
			t.Errorf("%s: %v, %v", file, rejection, err)
		}
	}
	if found != 11 {
		t.Errorf("found %d subscriptions, want 11", found)
	}
}

// documents are those of a YAML file.
func documents(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^---$`).Split(strings.TrimSpace(string(text)), -1)
}
