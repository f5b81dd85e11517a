package ingest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestKnownHost(t *testing.T) {
	t.Parallel()
	hosts := []string{"eventflow-dispatcher-default.eventflow-system", "events.example.com"}
	for host, want := range map[string]bool{
		"":                             true, // HTTP/1.0; browsers always send one
		"10.1.2.3":                     true,
		"10.1.2.3:30080":               true,
		"[::1]:8080":                   true,
		"[fd00::1]":                    true,
		"[fe80::1%25eth0]:8080":        true,
		"localhost:8080":               true,
		"LOCALHOST":                    true,
		"eventflow.localhost":          true,
		"eventflow-dispatcher-default": true,
		"eventflow-dispatcher-default.eventflow-system":                         true,
		"eventflow-dispatcher-default.eventflow-system.svc":                     true,
		"eventflow-dispatcher-default.eventflow-system.svc.cluster.local.:8080": true,
		"ip-10-0-0-1.eu-central-1.compute.internal":                             true,
		"node-1.local":           true,
		"events.example.com":     true,
		"Events.Example.com:443": true,
		"events.example.com.":    true,
		"evil.com":               false,
		"localhost.evil.com":     false,
		"evil.com:8080":          false,
		"a.events.example.com":   false,
		"10.1.2.3.evil.com":      false,
		"10-1-2-3.nip.io":        false,
		"eventflow-dispatcher-default.eventflow-system.svc.evil.com": false,
		"evil.localhost.com": false,
		"notlocal.xlocal":    false,
	} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			if got := knownHost(host, hosts); got != want {
				t.Errorf("got %t, want %t", got, want)
			}
		})
	}
}

// TestRebinding: without authentication, a web page whose host name was made to lead here gets nothing, whatever it sends;
// what is no browser publishes under any name.
func TestRebinding(t *testing.T) {
	t.Parallel()
	body := `{"type":"patient.created","data":{}}`
	publish := "/v1/namespaces/clinic-a/events"
	for name, tc := range map[string]struct {
		method, path, host string
		header             map[string]string
		authenticated      bool
		want               int
	}{
		"a page publishes":                    {method: "POST", path: publish, host: "evil.com:8080", header: map[string]string{"Origin": "http://evil.com:8080"}, want: 421},
		"a page that hides its origin":        {method: "POST", path: publish, host: "evil.com", header: map[string]string{"Sec-Fetch-Site": "same-origin"}, want: 421},
		"a page reads":                        {method: "GET", path: deliveriesPath, host: "evil.com", want: 421},
		"a page asks for headers alone":       {method: "HEAD", path: deliveriesPath, host: "evil.com", want: 421},
		"a page replays":                      {method: "POST", path: deliveriesPath + "/replay", host: "evil.com", header: map[string]string{"Origin": "http://evil.com"}, want: 421},
		"a producer through an Ingress":       {method: "POST", path: publish, host: "hooks.example.org", want: 202},
		"a producer by the Service":           {method: "POST", path: publish, host: "eventflow-dispatcher-default.eventflow-system.svc", want: 202},
		"a page at the address":               {method: "POST", path: publish, host: "127.0.0.1:8080", header: map[string]string{"Origin": "http://127.0.0.1:8080"}, want: 202},
		"an operator with a port forwarded":   {method: "GET", path: deliveriesPath, host: "localhost:8080", want: 200},
		"an operator at a node's port":        {method: "GET", path: deliveriesPath, host: "192.0.2.7:30080", want: 200},
		"an operator under an allowed name":   {method: "GET", path: deliveriesPath, host: "events.example.com", want: 200},
		"a page of an allowed name":           {method: "POST", path: publish, host: "events.example.com", header: map[string]string{"Origin": "https://events.example.com"}, want: 202},
		"with authentication, under any name": {method: "GET", path: deliveriesPath, host: "hooks.example.org", authenticated: true, want: 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(o *Options) {
				o.Hosts = []string{"events.example.com"}
				if tc.authenticated {
					o.Authorizer = admitAll{}
				}
			})
			r := httptest.NewRequest(tc.method, tc.path, http.NoBody)
			if tc.path == publish {
				r = httptest.NewRequest(tc.method, tc.path, strings.NewReader(body))
			}
			r.Host = tc.host
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer clinic-a")
			for key, value := range tc.header {
				r.Header.Set(key, value)
			}
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			if w.Code != tc.want {
				t.Fatalf("got %d %s, want %d", w.Code, w.Body, tc.want)
			}
			if tc.want == 421 && tc.method != "HEAD" {
				wantProblem(t, w, misdirected, "--ingest-host")
			}
		})
	}
}

// admitAll is an Authorizer that is not None.
type admitAll struct{}

func (admitAll) Authorize(context.Context, string, string, Access) error { return nil }
