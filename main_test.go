package main

import (
	"io"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/clinikapi/eventflow/cli/exit"
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

// TestUnknownCommands: a word that names no command of a group is refused, and the nearest one is named.
func TestUnknownCommands(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args     []string
		wantCode int
		want     string
	}{
		{[]string{"keys", "rotat", "billing"}, exit.BadInput, "did you mean rotate?"},
		{[]string{"audit", "foo"}, exit.BadInput, `unknown command "foo" for "eventflow audit"`},
		{[]string{"completion", "foo"}, exit.BadInput, `unknown command "foo"`},
		{[]string{"keys"}, 0, ""},
	} {
		root := rootCommand()
		root.SetArgs(test.args)
		root.SetOut(io.Discard)
		err := root.ExecuteContext(t.Context())
		if exit.Code(err) != test.wantCode || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: exit code %d, %v; want %d, %q", test.args, exit.Code(err), err, test.wantCode, test.want)
		}
	}
}
