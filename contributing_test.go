package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCommitSubjects holds hack/commits to what it says of subjects.
func TestCommitSubjects(t *testing.T) {
	t.Parallel()
	script, err := filepath.Abs("hack/commits")
	if err != nil {
		t.Fatal(err)
	}
	for subject, want := range map[string]bool{
		"feat(chart): a Helm chart with the same objects": true,
		"docs: a changelog":                          true,
		"feat(api)!: names are shorter":              true,
		"fix(ingest,delivery): terms as they are":    true,
		"Let a store tell the engine":                false,
		"feat: ":                                     false,
		"feat(chart) without a colon":                false,
		"fixes(chart): a type that is none":          false,
		"fix(chart): with a full stop.":              false,
		"fix(chart): " + strings.Repeat("long ", 20): false,
	} {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, args := range [][]string{
				{"init", "--quiet", "--initial-branch=work"},
				{"-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgSign=false", "commit", "--quiet", "--allow-empty", "--message=" + subject},
			} {
				command := exec.CommandContext(t.Context(), "git", args...)
				command.Dir = dir
				if output, err := command.CombinedOutput(); err != nil {
					t.Fatalf("git: %v\n%s", err, output)
				}
			}
			command := exec.CommandContext(t.Context(), script)
			command.Dir = dir
			if output, err := command.CombinedOutput(); (err == nil) != want {
				t.Errorf("taken: %t, want %t\n%s", err == nil, want, output)
			}
		})
	}
}

// TestActionsArePinned: a workflow runs what was reviewed, by commit, and says of which version that is.
func TestActionsArePinned(t *testing.T) {
	t.Parallel()
	workflows, err := filepath.Glob(".github/workflows/*.yaml")
	if err != nil || len(workflows) < 3 {
		t.Fatalf("found %v (%v)", workflows, err)
	}
	pinned := regexp.MustCompile(`^uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	for _, workflow := range workflows {
		for line := range strings.Lines(read(t, workflow)) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "- ")
			if strings.HasPrefix(line, "uses:") && !pinned.MatchString(line) {
				t.Errorf("%s: %s", workflow, line)
			}
		}
	}
}
