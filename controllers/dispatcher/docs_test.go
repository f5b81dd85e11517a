package dispatcher

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// TestDocumentedPaths holds the documents to what is in a pod: the file of certificates, and the variables that name it.
func TestDocumentedPaths(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	d := &v1alpha1.WebhookDispatcher{Spec: v1alpha1.WebhookDispatcherSpec{Store: v1alpha1.Store{Postgres: database(true)}}}
	var there []string // names of variables, and paths
	for _, variable := range environment(d) {
		there = append(there, *variable.Name)
		if variable.Value != nil {
			there = append(there, *variable.Value)
		}
	}
	d.Spec.Ingest.ClientCA = &v1alpha1.ClientCA{}
	for _, mount := range append(volumeMounts(d), ingestMounts(d)...) {
		there = append(there, *mount.MountPath)
	}
	documented := map[string]bool{}
	for _, document := range append(documents, "../../README.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`/etc/eventflow[\w./-]*\w|\bPG[A-Z]{3,}\b`).FindAllString(string(text), -1) {
			documented[name] = true
			if !slices.Contains(there, name) {
				t.Errorf("%s names %s, which a pod has not: it has %v", document, name, there)
			}
		}
	}
	for _, name := range []string{"PGSSLMODE", "PGSSLROOTCERT", caPath + "/ca.crt"} {
		if !documented[name] {
			t.Errorf("no document names %s", name)
		}
	}
}
