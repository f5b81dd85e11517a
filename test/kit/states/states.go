// Package states helps tests to show what a resource says in each of its states: to kubectl get, to kstatus, and in
// Kubernetes Events. The tables in docs/states.md are made by such tests.
package states

import (
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	kstatus "sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// Kstatus is what kstatus, by which Flux and others wait, says of an object: Current, InProgress or Failed.
func Kstatus(t *testing.T, object any) string {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		t.Fatal(err)
	}
	result, err := kstatus.Compute(&unstructured.Unstructured{Object: content})
	if err != nil {
		t.Fatal(err)
	}
	return result.Status.String()
}

// Table is a table in Markdown.
func Table(header []string, rows [][]string) string {
	var text strings.Builder
	line := func(cells []string) { text.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(header)
	text.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	for _, row := range rows {
		line(row)
	}
	return text.String()
}

// Documented holds the part of a document with the given name, between two comments, to table. With update it writes it.
func Documented(t *testing.T, document, name, table string, update bool) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin "+name+": make generate -->\n", "<!-- end "+name+" -->"
	before, rest, found := strings.Cut(string(text), begin)
	current, after, complete := strings.Cut(rest, end)
	if !found || !complete {
		t.Fatalf("%s has no part %s", document, name)
	}
	if current == table {
		return
	}
	if !update {
		t.Fatalf("%s is not current: run make generate. Part %s is\n%s\nand not\n%s", document, name, table, current)
	}
	if err := os.WriteFile(document, []byte(before+begin+table+end+after), 0o644); err != nil { //nolint:gosec // a document may be read
		t.Fatal(err)
	}
}
