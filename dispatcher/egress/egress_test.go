package egress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

func TestNew(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		options Options
		wantErr string
	}{
		"zero":              {},
		"version":           {options: Options{Version: "v1.2.3-rc.1+abc"}},
		"version, no token": {options: Options{Version: "1 2"}, wantErr: "version"},
		"version, newline":  {options: Options{Version: "1\r\nX: y"}, wantErr: "version"},
		"negative bound":    {options: Options{MaxIdleConns: -1}, wantErr: "idle"},
		"allowed, none":     {options: Options{AllowedCIDRs: []netip.Prefix{{}}}, wantErr: "allowed"},
		"denied, none":      {options: Options{DeniedCIDRs: []netip.Prefix{{}}}, wantErr: "denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := New(tc.options)
			if (err == nil) != (tc.wantErr == "") || (err != nil && !strings.Contains(err.Error(), tc.wantErr)) {
				t.Errorf("error %v, want one about %q", err, tc.wantErr)
			}
		})
	}
}

func TestTargetCheck(t *testing.T) {
	t.Parallel()
	keys := testKeys(t, testKey)
	for name, tc := range map[string]struct {
		target  *Target
		wantErr string
	}{
		"https":               {target: &Target{URL: "https://example.com/hook?token=x", Keys: keys}},
		"http":                {target: &Target{URL: "http://example.com", Keys: keys}},
		"scheme in capitals":  {target: &Target{URL: "HTTPS://example.com", Keys: keys}},
		"port":                {target: &Target{URL: "https://example.com:8443", Keys: keys}},
		"IPv6":                {target: &Target{URL: "https://[2001:db8::1]:8443", Keys: keys}},
		"empty port":          {target: &Target{URL: "https://example.com:", Keys: keys}},
		"header":              {target: &Target{URL: "https://example.com", Keys: keys, Header: http.Header{"X-A": {"b, ü"}}}},
		"no key":              {target: &Target{URL: "https://example.com"}, wantErr: "key"},
		"empty URL":           {target: &Target{Keys: keys}, wantErr: "URL"},
		"other scheme":        {target: &Target{URL: "ftp://canary", Keys: keys}, wantErr: "URL"},
		"relative":            {target: &Target{URL: "/canary", Keys: keys}, wantErr: "URL"},
		"no host":             {target: &Target{URL: "https:///canary", Keys: keys}, wantErr: "URL"},
		"only a port":         {target: &Target{URL: "https://:443/canary", Keys: keys}, wantErr: "URL"},
		"opaque":              {target: &Target{URL: "https:canary", Keys: keys}, wantErr: "URL"},
		"newline in URL":      {target: &Target{URL: "https://canary/\n", Keys: keys}, wantErr: "URL"},
		"bad escape":          {target: &Target{URL: "https://canary/%zz", Keys: keys}, wantErr: "URL"},
		"port 0":              {target: &Target{URL: "https://canary:0", Keys: keys}, wantErr: "port"},
		"port too large":      {target: &Target{URL: "https://canary:65536", Keys: keys}, wantErr: "port"},
		"header name":         {target: &Target{URL: "https://x", Keys: keys, Header: http.Header{"X canary": {"v"}}}, wantErr: "header"},
		"newline in a header": {target: &Target{URL: "https://x", Keys: keys, Header: http.Header{"X-A": {"canary\r\nX: y"}}}, wantErr: "X-A"},
		"NUL in a header":     {target: &Target{URL: "https://x", Keys: keys, Header: http.Header{"X-A": {"canary\x00"}}}, wantErr: "X-A"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tc.target.Check()
			if (err == nil) != (tc.wantErr == "") || (err != nil && !strings.Contains(err.Error(), tc.wantErr)) {
				t.Fatalf("error %v, want one about %q", err, tc.wantErr)
			}
			if err == nil {
				return
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error shows the target: %v", err)
			}
			result := newClient(t).Send(context.Background(), Request{Target: tc.target, Body: []byte(fullBody)})
			if result.Reason != delivery.ReasonRequestInvalid || result.Started.IsZero() {
				t.Errorf("Send: %+v, want %s", result, delivery.ReasonRequestInvalid)
			}
		})
	}
}

func TestHTTPNotAllowed(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer(noContent))
	c := newClient(t, func(o *Options) { o.AllowHTTP = false })
	for _, url := range []string{r.url, strings.Replace(r.url, "http", "HTTP", 1)} {
		if result := c.Send(context.Background(), newRequest(t, url)); result.Reason != delivery.ReasonHTTPNotAllowed {
			t.Errorf("%+v, want %s", result, delivery.ReasonHTTPNotAllowed)
		}
	}
	if n := r.accepted.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

func TestConnectionRefused(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	for _, scheme := range []string{"http", "https"} {
		if result := newClient(t).Send(context.Background(), newRequest(t, scheme+"://"+address)); result.Reason != delivery.ReasonConnectionRefused {
			t.Errorf("%s: %+v, want %s", scheme, result, delivery.ReasonConnectionRefused)
		}
	}
}

// tlsServer answers 204 over TLS and returns its URL and a pool that trusts it.
func tlsServer(t *testing.T, change func(*tls.Config)) (string, *x509.CertPool) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{}
	change(server.TLS)
	server.StartTLS()
	t.Cleanup(server.Close)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return server.URL, pool
}

// expired returns a certificate for 127.0.0.1 that was valid once, and trusts itself.
func expired(t *testing.T) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, parsed
}

func TestTLS(t *testing.T) {
	t.Parallel()
	stale, staleRoot := expired(t)
	for name, tc := range map[string]struct {
		change func(*tls.Config)
		roots  func(trusting *x509.CertPool) *x509.CertPool
		host   string
		want   delivery.Reason
	}{
		"trusted":        {},
		"TLS 1.2":        {change: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }},
		"TLS 1.1":        {change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, want: delivery.ReasonTLSFailed},
		"unknown issuer": {roots: func(*x509.CertPool) *x509.CertPool { return x509.NewCertPool() }, want: delivery.ReasonCertificateUntrusted},
		"system roots":   {roots: func(*x509.CertPool) *x509.CertPool { return nil }, want: delivery.ReasonCertificateUntrusted},
		"other name":     {host: "localhost", want: delivery.ReasonCertificateWrongHost},
		"expired": {
			change: func(c *tls.Config) { c.Certificates = []tls.Certificate{stale} },
			roots: func(*x509.CertPool) *x509.CertPool {
				pool := x509.NewCertPool()
				pool.AddCert(staleRoot)
				return pool
			},
			want: delivery.ReasonCertificateExpired,
		},
		"client certificate wanted":          {change: func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, want: delivery.ReasonTLSFailed},
		"client certificate wanted, TLS 1.2": {change: func(c *tls.Config) { c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12 }, want: delivery.ReasonTLSFailed},
		"HTTP/2 preferred":                   {change: func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.change == nil {
				tc.change = func(*tls.Config) {}
			}
			url, pool := tlsServer(t, tc.change)
			if tc.roots != nil {
				pool = tc.roots(pool)
			}
			if tc.host != "" {
				url = strings.Replace(url, "127.0.0.1", tc.host, 1)
			}
			c := newClient(t, func(o *Options) { o.RootCAs = pool; o.AllowHTTP = false })
			for range 2 { // a resumed session must not change anything
				result := c.Send(context.Background(), newRequest(t, url))
				if result.Reason != tc.want {
					t.Errorf("%+v, want reason %q", result, tc.want)
				}
				c.Close()
			}
		})
	}
}

func TestTLSHandshakeFailures(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		serve func(net.Conn)
		want  delivery.Reason
	}{
		"plain HTTP":  {serve: func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, want: delivery.ReasonTLSFailed},
		"closed":      {serve: func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 1)) }, want: delivery.ReasonConnectionReset},
		"never ready": {serve: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, want: delivery.ReasonTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, func(conn net.Conn) {
				tc.serve(conn)
				if tc.want == delivery.ReasonConnectionReset {
					_ = conn.(*net.TCPConn).SetLinger(0)
					return
				}
				_, _ = io.Copy(io.Discard, conn)
			})
			request := newRequest(t, strings.Replace(r.url, "http", "https", 1), func(t *Target) { t.Timeout = 200 * time.Millisecond })
			if result := newClient(t).Send(context.Background(), request); result.Reason != tc.want {
				t.Errorf("%+v, want %s", result, tc.want)
			}
			await(t, "the connection closed", func() bool { return r.connections() == 0 })
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                                 0,
		"0":                                0,
		"120":                              2 * time.Minute,
		"0120":                             2 * time.Minute,
		"2592000":                          maxRetryAfter,
		"2592001":                          maxRetryAfter,
		"99999999999999999999999":          maxRetryAfter,
		"-1":                               0,
		"+1":                               0,
		"1.5":                              0,
		"1s":                               0,
		"soon":                             0,
		"Thu, 15 Jan 2026 09:16:00 GMT":    time.Minute,
		"Thursday, 15-Jan-26 09:16:00 GMT": time.Minute,
		"Thu Jan 15 09:16:00 2026":         time.Minute,
		"Thu, 15 Jan 2026 09:14:00 GMT":    0,
		"Fri, 31 Dec 9999 23:59:59 GMT":    maxRetryAfter,
		"Sat, 01 Jan 0001 00:00:00 GMT":    0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "7", "-7", "Thu, 15 Jan 2026 09:16:00 GMT", "99999999999999999999"} {
		f.Add(seed, int64(0))
	}
	f.Fuzz(func(t *testing.T, value string, now int64) {
		if got := retryAfter(value, time.Unix(now, 0)); got < 0 || got > maxRetryAfter {
			t.Errorf("%q: %v", value, got)
		}
	})
}

func FuzzTarget(f *testing.F) {
	f.Add("https://example.com/x", "X-Team", "billing")
	f.Add("http://[::1]:80", "x-clinik-attempt", "\x00")
	keys := signature.Keys{new(signature.Key)}
	f.Fuzz(func(t *testing.T, url, name, value string) {
		target := &Target{URL: url, Keys: keys, Header: http.Header{name: {value}}}
		p, err := target.prepare()
		if err != nil {
			return
		}
		if p.plaintext != strings.HasPrefix(strings.ToLower(url), "http:") {
			t.Errorf("%q: plaintext is %v", url, p.plaintext)
		}
		lines := strings.Split(strings.TrimSuffix(string(p.head), crlf), crlf)
		wanted := 3 // the request line, Host, Content-Type
		if !Reserved(name) {
			wanted++
		}
		if strings.Contains(url, "@") {
			wanted = len(lines) // Authorization may come on top
		}
		if len(lines) != wanted || !strings.HasPrefix(lines[0], "POST ") || strings.Count(lines[0], " ") != 2 {
			t.Errorf("%q: the request begins %q", url, lines)
		}
		for _, line := range lines {
			if strings.ContainsAny(line, "\r\n\x00") {
				t.Errorf("%q: a line of the request is %q", url, line)
			}
		}
	})
}
