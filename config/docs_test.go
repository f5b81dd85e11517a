package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	fenced   = regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```\n")
	indented = regexp.MustCompile(`(?m)^ {4}apiVersion: .*\n(?:(?: {4}.*)?\n)+`)
)

// testDocuments shows the API server each manifest of the documents.
func testDocuments(t *testing.T) {
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := ""
	for _, document := range append(documents, "../README.md") {
		content, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, manifest := range manifests(string(content)) {
			if output, err := runKubectl(t, manifest, "apply", "--dry-run=server", "--validate=strict", "-f", "-"); err != nil {
				t.Errorf("%s: the API server refuses it: %s\n%s", document, output, manifest)
			} else {
				kinds += output
			}
		}
	}
	for _, kind := range []string{"webhookdispatcher", "horizontalpodautoscaler", "secret"} {
		if !strings.Contains(kinds, kind) {
			t.Errorf("no document has a %s", kind)
		}
	}
}

// manifests are a document's blocks of code that the API server is to take.
func manifests(document string) (found []string) {
	for _, match := range fenced.FindAllStringSubmatch(document, -1) {
		if strings.HasPrefix(match[1], "apiVersion: ") {
			found = append(found, match[1])
		}
	}
	for _, block := range indented.FindAllString(document, -1) {
		found = append(found, strings.ReplaceAll("\n"+block, "\n    ", "\n"))
	}
	return found
}
