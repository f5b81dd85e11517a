package main

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestFirst shows the demo before it builds anything else, and hands on what it was told.
func TestFirst(t *testing.T) {
	t.Parallel()
	out := &strings.Builder{}
	arguments := []string{"-cluster=", "-fail-first=1", "-once"}
	program, rest, err := first(t.Context(), t.TempDir(), arguments, out, io.Discard)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(program); err != nil || !slices.Equal(rest, arguments) {
		t.Errorf("%s %q goes on: %v", program, rest, err)
	}
	arrived, after, found := strings.Cut(out.String(), "build the rest")
	if !found || strings.Count(arrived, "signatures ok\n") != 5 || strings.Count(arrived, "told to fail\n") != 5 || strings.Contains(after, "signatures") {
		t.Errorf("it shows %s", out)
	}
}

// TestFirstRefusesAtOnce what the second part would refuse minutes later.
func TestFirstRefusesAtOnce(t *testing.T) {
	t.Parallel()
	out := &strings.Builder{}
	if _, _, err := first(t.Context(), t.TempDir(), []string{"-then"}, out, io.Discard); err == nil || out.Len() > 0 {
		t.Errorf("it shows %q: %v", out, err)
	}
}

// TestFirstIsSmall: it is there before anything of Event Flow is compiled.
func TestFirstIsSmall(t *testing.T) {
	t.Parallel()
	deps, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/first").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(deps)); !slices.Equal(got, []string{module + "/progress", module + "/first"}) {
		t.Errorf("it links %q", got)
	}
}
