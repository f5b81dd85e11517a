package main

import (
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"eventflow": main, plugin: main})
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"oneline": func(ts *testscript.TestScript, _ bool, _ []string) {
				if text := ts.ReadFile("stderr"); strings.Count(text, "\n") != 1 {
					ts.Fatalf("want one line on stderr, got:\n%s", text)
				}
			},
		},
	})
}
