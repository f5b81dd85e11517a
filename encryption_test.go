package main

import (
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// secrets are in what is published and configured, and must be in no file of the dispatcher's.
var secrets = []string{"PATIENT-MARKER", "mrn-MARKER-1", strings.TrimPrefix(signingKey, "whsec_")}

// writeKey adds a key-encryption key, and makes it the current one.
func writeKey(t *testing.T, dir, id string) {
	t.Helper()
	for name, text := range map[string]string{id: strings.Repeat(id, 32)[:32], "current": id} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// files calls visit for each file and folder below dir, with the content of files.
func files(t *testing.T, dir string, visit func(path string, info fs.FileInfo, content []byte)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		var content []byte
		if err == nil && !entry.IsDir() {
			content, err = os.ReadFile(path)
		}
		visit(path, info, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// encryptedPlane is a dispatcher that encrypts; nothing has been published yet.
func encryptedPlane(t *testing.T, e *endpoint) *plane {
	t.Helper()
	p := &plane{t: t, dir: t.TempDir(), store: "pebble:data/store", arguments: []string{
		"--routes=routes", "--ingest-auth=none", "--egress-allow-http", "--egress-allow-cidr=127.0.0.0/8", "--encryption-keys=keys",
	}}
	for _, dir := range []string{"routes", "keys", "data"} {
		if err := os.Mkdir(filepath.Join(p.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeKey(t, filepath.Join(p.dir, "keys"), "2026")
	p.route(e.URL)
	p.start()
	return p
}

func (p *plane) publishMarker() {
	p.t.Helper()
	status, answer := p.post(`{"id":"mrn-MARKER-1","type":"patient.created","data":{"name":"PATIENT-MARKER"}}`)
	if status != http.StatusAccepted {
		p.t.Fatalf("got %d %s", status, answer)
	}
}

// TestEncryptedAtRest: a dispatcher that was killed with an event pending has nothing of it in its files, nor the signing
// key that delivers it; another one with the keys delivers it.
func TestEncryptedAtRest(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.fail(http.StatusServiceUnavailable)
	p := encryptedPlane(t, e)
	p.publishMarker()
	eventually(t, "an attempt", func() bool { return len(e.received()) > 0 })
	p.end(syscall.SIGKILL)
	read := 0
	files(t, filepath.Join(p.dir, "data"), func(path string, info fs.FileInfo, content []byte) {
		want := fs.FileMode(0o600)
		if info.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		for _, secret := range secrets {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("%s contains %s", path, secret)
			}
		}
		read += len(content)
	})
	if read < 1000 {
		t.Errorf("only %d bytes were read", read)
	}
	e.fail(http.StatusNoContent)
	p.start()
	eventually(t, "a delivery", func() bool { return len(p.deliveries()) == 1 && p.deliveries()[0].State == "Delivered" })
	if got := e.received(); !strings.Contains(string(got[len(got)-1].body), "PATIENT-MARKER") {
		t.Errorf("delivered %s", got[len(got)-1].body)
	}
}

// TestEncryptionKeysAreRotated: with both keys there, a restart goes on, and after that the new one is enough.
func TestEncryptionKeysAreRotated(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.fail(http.StatusServiceUnavailable)
	p := encryptedPlane(t, e)
	p.publishMarker()
	p.end(syscall.SIGTERM)
	keys := filepath.Join(p.dir, "keys")
	writeKey(t, keys, "2027")
	p.start()
	eventually(t, "the seed wrapped by the new key", func() bool {
		wrapped := false
		files(t, filepath.Join(keys, "seeds"), func(_ string, _ fs.FileInfo, content []byte) {
			// The key's id is in the clear before what it wraps: 1, 4, "2027" begin the base64 text.
			wrapped = wrapped || strings.Contains(string(content), `"seed":"AQQyMDI3`)
		})
		return wrapped
	})
	p.end(syscall.SIGTERM)
	if err := os.Remove(filepath.Join(keys, "2026")); err != nil {
		t.Fatal(err)
	}
	e.fail(http.StatusNoContent)
	p.start()
	eventually(t, "a delivery", func() bool { return len(p.deliveries()) == 1 && p.deliveries()[0].State == "Delivered" })
}

// TestWithoutTheEncryptionKeys: a dispatcher that lost its keys does not start with them, and delivers no ciphertext without.
func TestWithoutTheEncryptionKeys(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.fail(http.StatusServiceUnavailable)
	p := encryptedPlane(t, e)
	p.publishMarker()
	eventually(t, "an attempt", func() bool { return len(e.received()) > 0 })
	p.end(syscall.SIGTERM)
	if err := os.Rename(filepath.Join(p.dir, "keys", "current"), filepath.Join(p.dir, "current")); err != nil {
		t.Fatal(err)
	}
	p.launch()
	<-p.ended
	if log := p.log.String(); p.err == nil || !strings.Contains(log, "--encryption-keys: no key-encryption keys in keys") {
		t.Errorf("ended with %v, %s", p.err, log)
	}
	p.arguments = p.arguments[:4]
	attempts := len(e.received())
	p.start()
	status, answer := p.post(`{"id":"evt-2","type":"patient.created","data":{"plain":true}}`)
	if status != http.StatusAccepted {
		t.Fatalf("got %d %s", status, answer)
	}
	eventually(t, "an attempt of what is in the clear", func() bool { return len(e.received()) > attempts })
	for _, a := range e.received()[attempts:] {
		if !strings.Contains(string(a.body), `"plain"`) {
			t.Errorf("delivered %q", a.body)
		}
	}
}
