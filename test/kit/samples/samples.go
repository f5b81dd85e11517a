// Package samples reads the automations of config/samples as a clinic applies them: every manifest as it stands, with its
// own namespace, the Secrets filled in, and the providers' hosts mapped to fakes.
package samples

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Namespace is the one that the samples name.
const Namespace = "clinic-a"

// Setting is what a clinic fills in.
type Setting struct {
	Namespace string
	// Hosts maps the providers' URLs, scheme and host, to others.
	Hosts map[string]string
	// Secrets are the values of Secrets, by name and key.
	Secrets map[string]map[string]string
}

// elsewhere is the URL of a host.
var elsewhere = regexp.MustCompile(`https://[a-z0-9.-]+`)

// Read returns the manifests of a folder of the samples, and of the Secrets beside it. root is the path of
// config/samples/automations. It fails if a host or a value of a Secret is not set.
func Read(t testing.TB, root, folder string, s Setting) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests in %s: %v", folder, err)
	}
	all := []string{secrets(t, filepath.Join(root, "secrets.yaml"), s)}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s.fill(t, file, string(text)))
	}
	return strings.Join(all, "\n---\n")
}

// fill maps what a manifest names.
func (s Setting) fill(t testing.TB, file, text string) string {
	t.Helper()
	text = strings.ReplaceAll(text, "namespace: "+Namespace, "namespace: "+s.Namespace)
	for host, to := range s.Hosts {
		text = strings.ReplaceAll(text, host, to)
	}
	if left := elsewhere.FindString(text); left != "" {
		t.Fatalf("%s: %s is mapped to no fake", file, left)
	}
	return text
}

// secrets fills the Secrets in: their names, keys and types stay.
func secrets(t testing.TB, file string, s Setting) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, document := range regexp.MustCompile(`(?m)^---$`).Split(string(text), -1) {
		var secret struct {
			APIVersion string            `json:"apiVersion"`
			Kind       string            `json:"kind"`
			Metadata   map[string]string `json:"metadata"`
			Type       string            `json:"type"`
			StringData map[string]string `json:"stringData"`
		}
		if err := yaml.UnmarshalStrict([]byte(document), &secret); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		secret.Metadata["namespace"] = s.Namespace
		for key, value := range secret.StringData {
			filled, ok := s.Secrets[secret.Metadata["name"]][key]
			switch {
			case ok:
				secret.StringData[key] = filled
			case secret.Metadata["name"] != "automation-signing": // any text of that length signs
				t.Fatalf("%s: %s of Secret %s is not filled in: it is %q", file, key, secret.Metadata["name"], value)
			}
		}
		filled, err := yaml.Marshal(secret)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(filled))
	}
	return strings.Join(all, "---\n")
}
