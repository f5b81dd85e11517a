package postgres_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

func authority(t *testing.T) *postgrestest.Authority {
	t.Helper()
	a, err := postgrestest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// tlsServer starts a server with a certificate for localhost. It takes connections without TLS, too: a client that fell
// back to one would get in.
func tlsServer(t *testing.T, a *postgrestest.Authority, until time.Time) *postgrestest.Server {
	t.Helper()
	certificate, err := a.Issue(until, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	s, err := postgrestest.Start(postgrestest.Options{Certificate: certificate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// urlOf is a server's database by another name of its host, and with other parameters.
func urlOf(s *postgrestest.Server, host, parameters string) string {
	url, _, _ := strings.Cut(s.URL("postgres"), "?")
	return strings.Replace(url, "127.0.0.1", host, 1) + "?" + parameters
}

// TestTLS connects by what the manager gives to pods with caSecretRef: the URL has no sslmode, PGSSLMODE is verify-full,
// and PGSSLROOTCERT names the certificates.
func TestTLS(t *testing.T) {
	trusted, stranger := authority(t), authority(t)
	own, expired := tlsServer(t, trusted, time.Now().Add(time.Hour)), tlsServer(t, trusted, time.Now().Add(-time.Hour))
	folder := t.TempDir()
	file := func(name string, content ...[]byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, slices.Concat(content...), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	right := file("ca.crt", trusted.PEM())
	wrong := file("other.crt", stranger.PEM())
	both := file("bundle.crt", stranger.PEM(), trusted.PEM())
	none := file("none.crt", []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	const unknown, otherHost = "signed by none of the trusted certificates", "for another host name"
	for name, test := range map[string]struct {
		url      string
		rootCert string
		mode     string // verify-full if empty
		want     string // "" if it connects
	}{
		"as mounted":                            {url: urlOf(own, "localhost", ""), rootCert: right},
		"one of several certificates":           {url: urlOf(own, "localhost", ""), rootCert: both},
		"all of it in the URL":                  {url: urlOf(own, "localhost", "sslmode=verify-full&sslrootcert="+right), rootCert: wrong, mode: "disable"},
		"the first host is down":                {url: strings.Replace(urlOf(own, "localhost", ""), "@", "@localhost:1,", 1), rootCert: right},
		"verify-ca looks at no name":            {url: urlOf(own, "127.0.0.1", "sslmode=verify-ca"), rootCert: right},
		"another authority":                     {url: urlOf(own, "localhost", ""), rootCert: wrong, want: unknown},
		"another authority, verify-ca":          {url: urlOf(own, "localhost", "sslmode=verify-ca"), rootCert: wrong, want: unknown},
		"another host":                          {url: urlOf(own, "127.0.0.1", ""), rootCert: right, want: otherHost},
		"a certificate that is over":            {url: urlOf(expired, "localhost", ""), rootCert: right, want: "certificate cannot be verified"},
		"a server without TLS":                  {url: urlOf(server, "127.0.0.1", ""), rootCert: right, want: "must be by TLS, which the server may not offer"},
		"an authority that is not there":        {url: urlOf(own, "localhost", ""), rootCert: filepath.Join(folder, "absent.crt"), want: "sslrootcert, cannot be read"},
		"an authority that has no certificate":  {url: urlOf(own, "localhost", ""), rootCert: none, want: "sslrootcert holds no certificate"},
		"an authority elsewhere than the mount": {url: urlOf(own, "localhost", "sslrootcert=/etc/eventflow/ca/ca.crt"), rootCert: right, want: "sslrootcert, cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PGSSLMODE", "verify-full")
			if test.mode != "" {
				t.Setenv("PGSSLMODE", test.mode)
			}
			t.Setenv("PGSSLROOTCERT", test.rootCert)
			s, err := postgres.Open(t.Context(), postgres.Options{URL: test.url, Schema: newSchema()})
			if err == nil {
				checkEncrypted(t, own)
				err = s.Close()
			}
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want an error with %q", err, test.want)
			}
			if connects := !strings.Contains(test.want, "sslrootcert"); errors.Is(err, postgres.ErrUnreachable) != connects {
				t.Errorf("%v: is it that the database is unreachable? want %t", err, connects)
			}
			for _, secret := range []string{folder, "localhost", "127.0.0.1"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%v: it names %s", err, secret)
				}
			}
		})
	}
}

// checkEncrypted expects the store's connections to a server, all of them, to be by TLS.
func checkEncrypted(t *testing.T, s *postgrestest.Server) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var all, encrypted int
	err = conn.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
WHERE application_name = 'eventflow'`).Scan(&all, &encrypted)
	if err != nil || all == 0 || encrypted != all {
		t.Errorf("%d of %d connections are encrypted (%v)", encrypted, all, err)
	}
}
