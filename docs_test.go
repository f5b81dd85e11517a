package main

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestOperationsNamesEverything holds docs/operations.md to what there is: metrics, conditions' reasons, and the reasons
// of failed attempts.
func TestOperationsNamesEverything(t *testing.T) {
	t.Parallel()
	text := read(t, "docs/operations.md")
	e := newEndpoint(t)
	p := newPlane(t, e.URL)
	p.publish("evt-1")
	eventually(t, "a delivery", func() bool { return len(e.received()) > 0 })
	response, err := http.Get("http://" + p.ops + "/metrics") //nolint:forbidigo // a test's
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, source := range []struct{ text, pattern string }{
		{string(metrics), `(?m)^# TYPE (eventflow_\w+) `},
		{sources(t, "dispatcher", "controllers"), `Name: +"(eventflow_\w+[a-z])"`}, // also those that have no labels yet
		{read(t, "dispatcher/delivery/reason.go"), `Reason += "(\w+)"`},
		{read(t, "api/v1alpha1/conditions.go"), `(?m)^\s+Reason\w+ += "(\w+)"`},
	} {
		found := regexp.MustCompile(source.pattern).FindAllStringSubmatch(source.text, -1)
		if len(found) < 3 {
			t.Errorf("%s finds %d names", source.pattern, len(found))
		}
		for _, match := range found {
			names = append(names, match[1])
		}
	}
	for _, name := range names {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(text) {
			t.Errorf("docs/operations.md does not name %s", name)
		}
	}
	for _, documented := range regexp.MustCompile(`eventflow_\w+`).FindAllString(text, -1) {
		if !strings.Contains(strings.Join(names, " ")+" ", documented+" ") {
			t.Errorf("docs/operations.md names %s, which does not exist", documented)
		}
	}
}

// TestArchitectureNamesFiles: the files and folders that docs/architecture.md names are there.
func TestArchitectureNamesFiles(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile("`((?:api|config|controllers|dispatcher|hack|test)(?:/[\\w.-]+)*)`").FindAllStringSubmatch(read(t, "docs/architecture.md"), -1)
	if len(named) < 30 {
		t.Errorf("found %d names only", len(named))
	}
	for _, match := range named {
		if _, err := os.Stat(match[1]); err != nil {
			t.Error(err)
		}
	}
}

// TestPostgresNamesItsMetrics holds docs/postgresql.md, whose names autoscalers are set up by, to the store's metrics.
func TestPostgresNamesItsMetrics(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, match := range regexp.MustCompile(`gauge\("(?:eventflow_store_)?(\w+)"`).FindAllStringSubmatch(sources(t, "dispatcher/store/postgres", "dispatcher/store/figures"), -1) {
		names["eventflow_store_"+match[1]] = true
	}
	documented := map[string]bool{}
	for _, name := range regexp.MustCompile(`eventflow_store_\w*`).FindAllString(read(t, "docs/postgresql.md"), -1) {
		documented[name] = true
		if !names[name] && name != "eventflow_store_" {
			t.Errorf("docs/postgresql.md names %s, which does not exist", name)
		}
	}
	for name := range names {
		if !documented[name] {
			t.Errorf("docs/postgresql.md does not name %s", name)
		}
	}
	if len(names) < 4 {
		t.Errorf("found %d metrics", len(names))
	}
}

// TestLinks follows the links between the documents.
func TestLinks(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, "README.md") {
		for _, match := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(read(t, document), -1) {
			target, anchor, _ := strings.Cut(match[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := document
			if target != "" {
				file = filepath.Join(filepath.Dir(document), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %s leads nowhere", document, match[1])
				continue
			}
			if anchor != "" && !regexp.MustCompile(`(?mi)^#+ `+strings.ReplaceAll(regexp.QuoteMeta(anchor), "-", "[^a-z0-9\n]+")+`$`).MatchString(read(t, file)) {
				t.Errorf("%s: %s names no heading", document, match[1])
			}
		}
	}
}

// sources returns the Go files below the folders, tests excepted.
func sources(t *testing.T, folders ...string) string {
	t.Helper()
	var text strings.Builder
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				text.WriteString(read(t, path))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
