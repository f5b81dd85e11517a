package audit

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/audit"
)

// TestVerify: what is right is summed up, and what is not is an error.
func TestVerify(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "trail")
	l, err := audit.Open(audit.Options{Level: audit.All, File: name})
	if err != nil {
		t.Fatal(err)
	}
	l.Add(audit.Reads, audit.Record{Action: "get", User: "nurse"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	call := func(args ...string) (string, error) {
		command, out := Command(), &bytes.Buffer{}
		command.SilenceErrors, command.SilenceUsage = true, true
		command.SetOut(out)
		command.SetArgs(args)
		err := command.ExecuteContext(t.Context())
		return out.String(), err
	}
	if out, err := call("verify", name); err != nil || !strings.HasPrefix(out, "3 records verified, 1 to 3; 0 more were lost; it ends with the stop of its process\nlast hash ") {
		t.Errorf("%q, %v", out, err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, bytes.Replace(text, []byte("nurse"), []byte("other"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := call("verify", name); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("it says %v", err)
	}
	for _, wrong := range []string{os.DevNull, name + "x"} {
		if _, err := call("verify", wrong); err == nil {
			t.Errorf("%s verifies", wrong)
		}
	}
}
