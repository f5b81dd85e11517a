package dispatcher

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/controllers/certificates"
	"github.com/clinikapi/eventflow/dispatcher/listener"
)

// serving is a server of a handler, with a certificate of the manager's, and the files that it is in.
func serving(t *testing.T, bounds listener.Options, files certificateFiles, handler http.HandlerFunc) (*server, *x509.CertPool) {
	t.Helper()
	set, _, err := certificates.Long.Renew(certificates.Set{}, []string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files.cert, files.key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for name, text := range map[string][]byte{files.cert: set.Serving.Certificate, files.key: set.Serving.Key} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := &dispatcher{registry: prometheus.NewRegistry(), failed: make(chan error, 1), stop: func() {}}
	d.Logger = logr.Discard()
	s, err := d.listen(t.Context(), "127.0.0.1:0", handler, bounds, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(set.Bundle)
	return s, roots
}

// clientOf makes a connection for each request.
func clientOf(roots *x509.CertPool, own ...tls.Certificate) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "localhost", Certificates: own},
	}}
}

// TestBothWays: each port speaks its own protocol alone, and both share one bound on connections.
func TestBothWays(t *testing.T) {
	t.Parallel()
	secured := make(chan bool, 8)
	s, roots := serving(t, listener.Options{Name: "api", Connections: 64}, certificateFiles{plain: "127.0.0.1:0"}, func(w http.ResponseWriter, r *http.Request) {
		secured <- r.TLS != nil
		_, _ = io.WriteString(w, r.Proto)
	})
	client := clientOf(roots)
	for name, test := range map[string]struct {
		url  string
		want bool // answered by the handler
		tls  bool
	}{
		"https":                      {"https://" + s.address(), true, true},
		"http":                       {"http://" + s.plain.String(), true, false},
		"https to the plain port":    {"https://" + s.plain.String(), false, false},
		"http to the port of https":  {"http://" + s.address(), false, false},
		"https again, after a wrong": {"https://" + s.address(), true, true},
	} {
		response, err := client.Get(test.url)
		if err == nil {
			_ = response.Body.Close()
		}
		if ok := err == nil && response.StatusCode == http.StatusOK; ok != test.want {
			t.Errorf("%s: %v, %v", name, response, err)
			continue
		}
		if test.want {
			if got := <-secured; got != test.tls {
				t.Errorf("%s: the handler sees TLS: %t", name, got)
			}
		}
	}
	d := &dispatcher{shown: &deliveriesServer{}}
	if got := d.listening(s, s); len(got) != 3 || got[1] != s.plain && got[2] != s.plain {
		t.Errorf("deliveries may reach the plain port: guarded are %v", got)
	}
	s.close()
	for _, url := range []string{"https://" + s.address(), "http://" + s.plain.String()} {
		if _, err := client.Get(url); err == nil {
			t.Errorf("%s is answered after the close", url)
		}
	}
}

// TestClientCA: a certificate counts while its authority is in the file, and not longer.
func TestClientCA(t *testing.T) {
	t.Parallel()
	producer, authority := producerCertificate(t, "ehr", "producers")
	stranger, _ := producerCertificate(t, "ehr", "producers")
	file := filepath.Join(t.TempDir(), "ca.crt")
	ca := &clientCA{file: file, logger: logr.Discard()}
	users := make(chan string, 1)
	s, roots := serving(t, listener.Options{Name: "api"}, certificateFiles{askClients: true}, func(_ http.ResponseWriter, r *http.Request) {
		name := ""
		if user := ca.user(r); user != nil {
			name = user.Username
		}
		users <- name
	})
	asks := func(want string, own ...tls.Certificate) {
		t.Helper()
		response, err := clientOf(roots, own...).Get("https://" + s.address())
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := <-users; got != want {
			t.Errorf("the client is %q, want %q", got, want)
		}
	}
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		ca.mu.Lock()
		ca.checked, ca.modified = time.Time{}, time.Time{}
		ca.mu.Unlock()
	}
	asks("", producer) // no file yet
	write(authority)
	asks("ehr", producer)
	asks("", stranger)
	asks("")
	write([]byte("no certificate"))
	asks("", producer)
	write(authority)
	asks("ehr", producer)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	ca.mu.Lock()
	ca.checked = time.Time{}
	ca.mu.Unlock()
	asks("", producer)
}
