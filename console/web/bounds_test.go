package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/clinikapi/eventflow/console/deliveries"
)

// TestEveryHeader: each answer has each of them, those of files and refusals included.
func TestEveryHeader(t *testing.T) {
	t.Parallel()
	handler, cookie := newServer(t, &cluster{}, deliveries.None{})
	for _, host := range []string{host, "evil.example.com"} {
		for _, target := range []string{"/subscriptions", "/nothing", "/static/nothing"} {
			r := request(http.MethodGet, target, nil)
			r.Host = host
			got := do(handler, cookie, r).Header()
			for name, want := range map[string]string{
				"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin",
				"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
				"Permissions-Policy": "camera=(), geolocation=(), microphone=()",
			} {
				if got.Get(name) != want {
					t.Errorf("%s at %s: %s is %q", target, host, name, got.Get(name))
				}
			}
			for _, want := range []string{"default-src 'none'", "script-src 'nonce-", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
				if csp := got.Get("Content-Security-Policy"); !strings.Contains(csp, want) {
					t.Errorf("%s at %s: the policy %q lacks %s", target, host, csp, want)
				}
			}
		}
	}
}

// TestLaunchCookie: only GET of the one path gives it, no script reads it, and no other site sends it.
func TestLaunchCookie(t *testing.T) {
	t.Parallel()
	handler, launch := newLogging(t, &cluster{}, deliveries.None{}, logr.Discard())
	for name, r := range map[string]*http.Request{
		"by POST":      request(http.MethodPost, launch.Path(), url.Values{}),
		"another path": request(http.MethodGet, strings.Replace(launch.Path(), "/launch", "/launched", 1), nil),
	} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		if answer.Code != http.StatusUnauthorized || len(answer.Result().Cookies()) > 0 {
			t.Errorf("%s: %d with %d cookies", name, answer.Code, len(answer.Result().Cookies()))
		}
	}
	_, cookie := newServer(t, &cluster{}, deliveries.None{})
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Domain != "" || cookie.Path != "/" {
		t.Errorf("the cookie is %v", cookie)
	}
}

// TestSameSite: sameSite by itself, without the protection that stands beside it.
func TestSameSite(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		auth       Auth
		method     string
		site, mode string
		dest       string
		want       bool
	}{
		"its own form":       {Bearer{}, "POST", "same-origin", "navigate", "document", true},
		"a link to it":       {Bearer{}, "GET", "cross-site", "navigate", "document", true},
		"a form to it":       {Bearer{}, "POST", "cross-site", "navigate", "document", false},
		"a script's read":    {Bearer{}, "GET", "cross-site", "no-cors", "document", false},
		"a frame":            {Bearer{}, "GET", "cross-site", "navigate", "iframe", false},
		"a link, to a local": {&Launch{}, "GET", "cross-site", "navigate", "document", false},
		"typed, to a local":  {&Launch{}, "GET", "none", "navigate", "document", true},
	} {
		r := httptest.NewRequest(test.method, "/subscriptions", http.NoBody)
		r.Header.Set("Sec-Fetch-Site", test.site)
		r.Header.Set("Sec-Fetch-Mode", test.mode)
		r.Header.Set("Sec-Fetch-Dest", test.dest)
		s := &Server{options: Options{Auth: test.auth}}
		if got := s.sameSite(r); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestKnownHost: a local console answers to names with its own port alone.
func TestKnownHost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		auth Auth
		want bool
	}{{&Launch{}, false}, {Bearer{}, true}} {
		s := &Server{options: Options{Auth: test.auth, Hosts: []string{"hooks.example.com"}}}
		if got := s.knownHost("hooks.example.com:8443"); got != test.want {
			t.Errorf("%T: %v", test.auth, got)
		}
	}
}

// TestToken: of two Authorization headers, a proxy may have checked the other one.
func TestToken(t *testing.T) {
	t.Parallel()
	for want, values := range map[string][]string{
		"t": {"bearer t"}, "": {"Bearer t", "Bearer u"}, " ": {"Basic t"}, "  ": {"Bearer"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Header["Authorization"] = values
		if got := Token(r); got != strings.TrimSpace(want) {
			t.Errorf("%v: %q", values, got)
		}
	}
}

// TestFormsAreBounded: what is longer is not read.
func TestFormsAreBounded(t *testing.T) {
	t.Parallel()
	handler, cookie := newServer(t, &cluster{}, deliveries.None{})
	for size, wantStatus := range map[int]int{maxBody / 2: http.StatusSeeOther, maxBody + 1: http.StatusRequestEntityTooLarge} {
		answer := do(handler, cookie, request(http.MethodPost, "/preferences", url.Values{"theme": {"dark"}, "x": {strings.Repeat("x", size)}}))
		if answer.Code != wantStatus || (wantStatus != http.StatusSeeOther && len(answer.Result().Cookies()) > 0) {
			t.Errorf("a form of %d bytes was answered %d", size, answer.Code)
		}
	}
}

// TestPreferencesLeadNowhereElse: back is a path of the console, and a cookie's value is one of those that there are.
func TestPreferencesLeadNowhereElse(t *testing.T) {
	t.Parallel()
	handler, cookie := newServer(t, &cluster{}, deliveries.None{})
	for back, want := range map[string]string{
		"/deliveries?state=Failed": "/deliveries?state=Failed", "//evil.example.com": "/subscriptions", "https://evil.example.com": "/subscriptions",
		"/\\evil.example.com": "/subscriptions", "/\t/evil.example.com": "/subscriptions", "": "/subscriptions",
	} {
		answer := do(handler, cookie, request(http.MethodPost, "/preferences", url.Values{"back": {back}}))
		if got := answer.Header().Get("Location"); got != want {
			t.Errorf("%q led to %q", back, got)
		}
	}
	r := request(http.MethodGet, "/subscriptions", nil)
	r.AddCookie(&http.Cookie{Name: "eventflow-theme", Value: "hostile"})
	if page := do(handler, cookie, r).Body.String(); !strings.Contains(page, `data-theme="auto"`) || strings.Contains(page, "hostile") {
		t.Error("the page holds what the cookie said")
	}
}

// TestGitOwnedKeysStay: a rotation changes nothing that Git owns.
func TestGitOwnedKeysStay(t *testing.T) {
	t.Parallel()
	s := sub()
	s.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"}
	c := &cluster{subs: all(s)}
	handler, cookie := newServer(t, c, deliveries.None{})
	for _, step := range []string{"begin", "promote", "end"} {
		answer := do(handler, cookie, request(http.MethodPost, "/namespaces/clinic-a/subscriptions/billing/rotate", url.Values{"step": {step}, "version": {"7"}}))
		if answer.Code == http.StatusSeeOther || len(c.calls) > 0 {
			t.Errorf("%s: %d, and %v was done", step, answer.Code, c.calls)
		}
	}
}

// TestChosenAreBounded: more than maxChosen are not replayed, and the page says so.
func TestChosenAreBounded(t *testing.T) {
	t.Parallel()
	s := &source{}
	handler, cookie := newServer(t, &cluster{}, s)
	f := url.Values{"what": {"chosen"}}
	for i := range maxChosen + 1 {
		f.Add("id", fmt.Sprintf("dlv_%d", i))
	}
	page := do(handler, cookie, request(http.MethodPost, "/namespaces/clinic-a/replay", f)).Body.String()
	if len(s.replayed) != maxChosen || !strings.Contains(page, "more than 200 were chosen") {
		t.Errorf("%d were replayed: %s", len(s.replayed), page)
	}
}

// TestPayloadsAreAudited: by each way to one, with the user and the event, and without a byte of it.
func TestPayloadsAreAudited(t *testing.T) {
	t.Parallel()
	for target, f := range map[string]url.Values{
		"/namespaces/clinic-a/deliveries/dlv_1/payload": {},
		"/try": {"namespace": {"clinic-a"}, "event": {"evt_1"}, "load": {"1"}},
	} {
		var lines strings.Builder
		logger := funcr.New(func(_, line string) { lines.WriteString(line + "\n") }, funcr.Options{})
		handler, launch := newLogging(t, &cluster{subs: all(reminder(""))}, payloads{}, logger)
		answer := do(handler, &http.Cookie{Name: launch.cookie, Value: launch.session}, request(http.MethodPost, target, f))
		if !strings.Contains(answer.Body.String(), "PHI") {
			t.Fatalf("%s: %d: %s", target, answer.Code, answer.Body)
		}
		for _, want := range []string{`"user"="alice"`, "asked for a payload", "evt_1", "clinic-a"} {
			if !strings.Contains(lines.String(), want) {
				t.Errorf("%s: the log lacks %s: %s", target, want, lines.String())
			}
		}
		if strings.Contains(lines.String(), "PHI") {
			t.Errorf("%s: the log holds data: %s", target, lines.String())
		}
	}
}

// TestTriedAreCut: a page shows maxTried subscriptions, those that match first, and says how many there are more.
func TestTriedAreCut(t *testing.T) {
	t.Parallel()
	c := &cluster{subs: all(reminder(""))}
	for i := range maxTried + 20 {
		s := sub()
		s.Name = fmt.Sprintf("other-%03d", i)
		c.subs["clinic-a/"+s.Name] = s
	}
	handler, cookie := newServer(t, c, deliveries.None{})
	page := do(handler, cookie, request(http.MethodPost, "/try", url.Values{"namespace": {"clinic-a"}, "text": {booked}})).Body.String()
	if n := strings.Count(page, "Does not match"); n != maxTried-1 || !strings.Contains(page, "21 more") || !strings.Contains(page, "1 of 121") {
		t.Errorf("%d are shown: %.2000s", n, page)
	}
}
