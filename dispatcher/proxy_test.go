package dispatcher

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
)

// TestProxySecretsAreReadAgain: what a mounted Secret holds is taken up, and what cannot be read leaves what was.
func TestProxySecretsAreReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(0, 1)
	files := &proxyFiles{dir: dir, now: func() time.Time { return now }, log: logr.Discard()}
	if got := files.get(); got.User != "" || got.Password != "" || got.Roots != nil {
		t.Errorf("of an empty folder: %+v", got)
	}
	write("username", "eventflow")
	write("password", "one")
	if got := files.get(); got.User != "" {
		t.Error("the files are read for each connection")
	}
	now = now.Add(proxyFilesAge)
	if got := files.get(); got.User != "eventflow" || got.Password != "one" {
		t.Errorf("got %q", got.User)
	}
	write("password", "two")
	write("ca.crt", "no certificate")
	now = now.Add(proxyFilesAge)
	if got := files.get(); got.Password != "one" {
		t.Error("a half of what cannot be used is used")
	}
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(proxyFilesAge)
	if got := files.get(); got.Password != "two" {
		t.Error("the password is the one of before")
	}
}

func TestProxyOfFlags(t *testing.T) {
	t.Parallel()
	if (&Options{}).proxy(logr.Discard()) != nil {
		t.Error("there is a proxy although no flag names one")
	}
	got := (&Options{EgressProxy: "https://proxy.example.com:3128", EgressProxyConnect: "Host"}).proxy(logr.Discard())
	if got.Address != "proxy.example.com:3128" || !got.TLS || !got.ByHost || got.Secrets != nil {
		t.Errorf("got %+v", got)
	}
	got = (&Options{EgressProxy: "http://[::1]:3128", EgressProxyConnect: "Address", EgressProxySecrets: "/absent"}).proxy(logr.Discard())
	if got.Address != "[::1]:3128" || got.TLS || got.ByHost || got.Secrets().User != "" {
		t.Errorf("got %+v", got)
	}
}
