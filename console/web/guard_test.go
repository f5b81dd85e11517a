package web

import (
	"cmp"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/kube"
)

const host = "127.0.0.1:4711"

// cluster is Objects that hold some subscriptions, and count what is asked of them.
type cluster struct {
	kube.Objects
	rows []kube.Row
	subs map[string]*v1alpha1.WebhookSubscription
	err  error
	// specs, if set, is called by each Specs.
	specs          func()
	dispatchers    []v1alpha1.WebhookDispatcher
	dispatchersErr error

	// calls are check, secret and save, as they came; refuse says what each of them answers.
	calls   []string
	refuse  map[string]error
	saved   []*v1alpha1.WebhookSubscription
	patches []string
	secrets []string
	values  []string // of the Secrets
}

func (c *cluster) ReadOnly() string { return "" }

func (c *cluster) Namespaces(context.Context) ([]string, error) {
	return []string{"clinic-a", "clinic-b"}, c.err
}

func (c *cluster) Subscriptions(_ context.Context, namespace string, _ bool) (*kube.Snapshot, error) {
	list := &kube.Snapshot{Time: time.Now()}
	if namespace == "" {
		list.Rows = c.rows
		return list, c.err
	}
	for _, r := range c.rows {
		if r.Namespace == namespace {
			list.Rows = append(list.Rows, r)
		}
	}
	return list, c.err
}

func (c *cluster) Subscription(_ context.Context, namespace, name string) (*v1alpha1.WebhookSubscription, error) {
	if sub := c.subs[namespace+"/"+name]; sub != nil && c.err == nil {
		return sub.DeepCopy(), nil
	}
	if c.err != nil {
		return nil, c.err
	}
	return nil, kube.ErrNotFound
}

func (c *cluster) Specs(_ context.Context, namespace string) (subs []v1alpha1.WebhookSubscription, more bool, err error) {
	if c.specs != nil {
		c.specs()
	}
	for _, sub := range c.subs {
		if sub.Namespace == namespace {
			subs = append(subs, *sub)
		}
	}
	return subs, false, c.err
}

func (c *cluster) Check(context.Context, *v1alpha1.WebhookSubscription) error {
	c.calls = append(c.calls, "check")
	return cmp.Or(c.refuse["check"], c.err)
}

func (c *cluster) CheckPatch(context.Context, string, string, []byte) error {
	c.calls = append(c.calls, "check")
	return cmp.Or(c.refuse["check"], c.err)
}

func (c *cluster) Save(_ context.Context, sub *v1alpha1.WebhookSubscription) error {
	c.calls, c.saved = append(c.calls, "save"), append(c.saved, sub)
	return cmp.Or(c.refuse["save"], c.err)
}

func (c *cluster) Patch(_ context.Context, _, _ string, patch []byte) error {
	c.calls, c.patches = append(c.calls, "save"), append(c.patches, string(patch))
	return cmp.Or(c.refuse["save"], c.err)
}

func (c *cluster) CreateSecret(_ context.Context, namespace, name, _ string, value []byte) error {
	c.calls, c.secrets, c.values = append(c.calls, "secret"), append(c.secrets, namespace+"/"+name), append(c.values, string(value))
	return cmp.Or(c.refuse["secret"], c.err)
}

func (c *cluster) Dispatchers(context.Context) ([]v1alpha1.WebhookDispatcher, error) {
	return c.dispatchers, cmp.Or(c.dispatchersErr, c.err)
}

// newServer returns a local console on objects, and a function that opens it as the launch address does.
func newServer(t *testing.T, objects kube.Objects, source deliveries.Source) (http.Handler, *http.Cookie) {
	t.Helper()
	handler, launch := newLogging(t, objects, source, logr.Discard())
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request(http.MethodGet, launch.Path(), nil))
	cookies := answer.Result().Cookies()
	if answer.Code != 303 || len(cookies) != 1 {
		t.Fatalf("the launch address answered %d with %d cookies", answer.Code, len(cookies))
	}
	return handler, cookies[0]
}

// newLogging returns a local console that logs what users do.
func newLogging(t *testing.T, objects kube.Objects, source deliveries.Source, logger logr.Logger) (http.Handler, *Launch) {
	t.Helper()
	catalog, err := event.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	launch := NewLaunch("4711")
	s, err := New(Options{
		Auth: launch, Hosts: []string{host, "localhost:4711"}, Where: "test", Catalog: catalog, Now: time.Now, Logger: logger, Namespace: "clinic-a",
		Open: func(*http.Request) (*Backend, error) {
			return &Backend{Objects: objects, Deliveries: source, User: "alice"}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler(), launch
}

func request(method, target string, form url.Values) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(form.Encode()))
	r.Host = host
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r
}

// do sends a request as a browser with the cookie does.
func do(handler http.Handler, cookie *http.Cookie, r *http.Request) *httptest.ResponseRecorder {
	r.AddCookie(cookie)
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, r)
	return answer
}

// TestEachGuardStandsBeforeEachRoute: reads included, and the files that pages load.
func TestEachGuardStandsBeforeEachRoute(t *testing.T) {
	t.Parallel()
	touched := &cluster{}
	handler, cookie := newServer(t, touched, deliveries.None{})
	guards := map[string]struct {
		change     func(*http.Request)
		noCookie   bool
		wantStatus int
	}{
		"no cookie":             {func(*http.Request) {}, true, 401},
		"another cookie":        {func(r *http.Request) { r.AddCookie(&http.Cookie{Name: cookie.Name, Value: "guessed"}) }, true, 401},
		"a rebound name":        {func(r *http.Request) { r.Host = "evil.example.com:4711" }, false, 421},
		"another port":          {func(r *http.Request) { r.Host = "127.0.0.1:80" }, false, 421},
		"cross-site":            {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, false, 403},
		"a sibling's subdomain": {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, false, 403},
		"a link elsewhere": {func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Sec-Fetch-Mode", "navigate")
			r.Header.Set("Sec-Fetch-Dest", "document")
		}, false, 403},
		"a foreign origin": {func(r *http.Request) { r.Header.Set("Origin", "https://evil.example.com") }, false, 403},
		"an opaque origin": {func(r *http.Request) { r.Header.Set("Origin", "null") }, false, 403},
	}
	patterns := []string{"GET /static/console.css", "GET /nothing", "GET /launch"}
	for _, r := range routes {
		patterns = append(patterns, r.pattern)
	}
	for name, guard := range guards {
		for _, pattern := range patterns {
			if pattern == "GET /launch" && guard.noCookie {
				continue // its token is checked by TestLaunch
			}
			method, path, _ := strings.Cut(pattern, " ")
			path = strings.NewReplacer("{namespace}", "clinic-a", "{name}", "x", "{id}", "dlv_1", "{$}", "").Replace(path)
			r := request(method, path, url.Values{})
			if !guard.noCookie {
				r.AddCookie(cookie)
			}
			guard.change(r)
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, r)
			if answer.Code != guard.wantStatus {
				t.Errorf("%s, %s: %d, want %d", name, pattern, answer.Code, guard.wantStatus)
			}
			if len(touched.saved)+len(touched.patches)+len(touched.secrets) > 0 {
				t.Fatalf("%s, %s: something was done", name, pattern)
			}
		}
	}
}

func TestLaunch(t *testing.T) {
	t.Parallel()
	handler, _ := newServer(t, &cluster{}, deliveries.None{})
	for _, target := range []string{"/launch", "/launch?token=", "/launch?token=guessed"} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request(http.MethodGet, target, nil))
		if answer.Code != 401 || len(answer.Result().Cookies()) > 0 {
			t.Errorf("%s: %d with %d cookies, want 401 and none", target, answer.Code, len(answer.Result().Cookies()))
		}
	}
}

// TestHeaders: no page may run what is not the console's, and no browser keeps one.
func TestHeaders(t *testing.T) {
	t.Parallel()
	handler, cookie := newServer(t, &cluster{}, deliveries.None{})
	seen := map[string]bool{}
	for _, target := range []string{"/subscriptions", "/deliveries", "/dispatchers", "/nothing"} {
		answer := do(handler, cookie, request(http.MethodGet, target, nil))
		csp := answer.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
			t.Errorf("%s: Content-Security-Policy %q", target, csp)
		}
		if seen[csp] {
			t.Errorf("%s: the nonce was used before", target)
		}
		seen[csp] = true
		if got := answer.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s: Cache-Control %q", target, got)
		}
	}
}

// TestBearer: a console behind a login needs a token in each request, and may be linked to.
func TestBearer(t *testing.T) {
	t.Parallel()
	catalog, _ := event.NewCatalog()
	s, err := New(Options{
		Auth: Bearer{}, Hosts: []string{"hooks.example.com"}, Catalog: catalog, Now: time.Now, Logger: logr.Discard(),
		Open: func(*http.Request) (*Backend, error) {
			return &Backend{Objects: &cluster{}, Deliveries: deliveries.None{}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		header     map[string]string
		wantStatus int
	}{
		"no token":              {nil, 401},
		"basic":                 {map[string]string{"Authorization": "Basic YTpi"}, 401},
		"a user's name":         {map[string]string{"X-Remote-User": "admin", "X-Forwarded-User": "admin", "Impersonate-User": "admin"}, 401},
		"a token":               {map[string]string{"Authorization": "Bearer t"}, 200},
		"a link from elsewhere": {map[string]string{"Authorization": "Bearer t", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200},
		"a script elsewhere":    {map[string]string{"Authorization": "Bearer t", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403},
		"a frame elsewhere":     {map[string]string{"Authorization": "Bearer t", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403},
	} {
		r := httptest.NewRequest(http.MethodGet, "/subscriptions", http.NoBody)
		r.Host = "hooks.example.com"
		for k, v := range test.header {
			r.Header.Set(k, v)
		}
		answer := httptest.NewRecorder()
		s.Handler().ServeHTTP(answer, r)
		if answer.Code != test.wantStatus {
			t.Errorf("%s: %d, want %d", name, answer.Code, test.wantStatus)
		}
	}
}
