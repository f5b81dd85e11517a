package egress

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

func TestStaticAuthorization(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		authorization *Authorization
		header        string
		want          string
		wantErr       bool
	}{
		"basic":    {authorization: &Authorization{Basic: &Basic{"Aladdin", "open sesame"}}, header: "Authorization", want: "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
		"bearer":   {authorization: &Authorization{Bearer: "abc"}, header: "Authorization", want: "Bearer abc"},
		"API key":  {authorization: &Authorization{APIKey: &APIKey{"X-Api-Key", "abc"}}, header: "X-Api-Key", want: "abc"},
		"colon":    {authorization: &Authorization{Basic: &Basic{"a:b", "c"}}, wantErr: true},
		"line":     {authorization: &Authorization{Bearer: "a\r\nb: c"}, wantErr: true},
		"reserved": {authorization: &Authorization{APIKey: &APIKey{"webhook-id", "abc"}}, wantErr: true},
		"no name":  {authorization: &Authorization{APIKey: &APIKey{"", "abc"}}, wantErr: true},
		"none":     {authorization: &Authorization{}, wantErr: true},
		"two":      {authorization: &Authorization{Bearer: "a", Basic: &Basic{"a", "b"}}, wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(chan http.Header, 1)
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
			defer server.Close()
			r := newRequest(t, server.URL, func(t *Target) { t.Authorization = tc.authorization })
			result := newClient(t).Send(context.Background(), r)
			if tc.wantErr {
				if result.Reason != delivery.ReasonRequestInvalid {
					t.Errorf("%+v", result)
				}
				return
			}
			if values := (<-got).Values(tc.header); len(values) != 1 || values[0] != tc.want {
				t.Errorf("%q, want %q", values, tc.want)
			}
		})
	}
}

// tokenServer is a token endpoint and an API that takes the newest token alone.
type tokenServer struct {
	*httptest.Server
	requests, minted atomic.Int64
	fail             atomic.Bool
	refuses          atomic.Bool   // the API takes no token
	hold             chan struct{} // requests for tokens wait for it
	form             atomic.Value
}

func newTokenServer(t *testing.T) *tokenServer {
	t.Helper()
	s := &tokenServer{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if s.hold != nil {
			<-s.hold
		}
		user, password, _ := r.BasicAuth()
		_ = r.ParseForm()
		s.form.Store(user + ":" + password + " " + r.PostForm.Encode())
		if s.fail.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": string(rune('a' + s.minted.Add(1) - 1)), "token_type": "Bearer", "expires_in": 3600})
	})
	api := func(w http.ResponseWriter, r *http.Request) {
		if s.refuses.Load() || r.Header.Get("Authorization") != "Bearer "+string(rune('a'+s.minted.Load()-1)) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"ok":true}`))
	}
	mux.HandleFunc("POST /api", api)
	mux.HandleFunc("GET /document", api)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *tokenServer) request(t *testing.T) Request {
	return newRequest(t, s.URL+"/api", func(t *Target) {
		t.Authorization = &Authorization{ClientCredentials: &ClientCredentials{
			TokenURL: s.URL + "/token", ClientID: "id", ClientSecret: "secret", Scopes: []string{"x", "y"}, Audience: "api",
		}}
	})
}

// TestTokenOnce: one request for a token serves all attempts of a tenant, and none of another's.
func TestTokenOnce(t *testing.T) {
	t.Parallel()
	s := newTokenServer(t)
	c, r := newClient(t), s.request(t)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if result := c.Send(context.Background(), r); !result.Delivered() {
				t.Errorf("%+v", result)
			}
		})
	}
	all.Wait()
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests for a token", n)
	}
	if want := "id:secret audience=api&grant_type=client_credentials&scope=x+y"; s.form.Load() != want {
		t.Errorf("%q, want %q", s.form.Load(), want)
	}
	r.Tenant = "another"
	c.Send(context.Background(), r)
	if n := s.requests.Load(); n != 2 {
		t.Errorf("two tenants shared a token: %d requests", n)
	}
}

// age makes all tokens older.
func (c *Client) age(d time.Duration) {
	c.tokens.mu.Lock()
	defer c.tokens.mu.Unlock()
	for _, k := range c.tokens.all {
		k.minted = k.minted.Add(-d)
		if !k.ends.IsZero() {
			k.ends = k.ends.Add(-d)
		}
		k.next = k.next.Add(-d)
	}
}

// TestTokenRefused: an answer of 401 replaces the token once, and the attempt is repeated with the next.
func TestTokenRefused(t *testing.T) {
	t.Parallel()
	s := newTokenServer(t)
	c, r := newClient(t), s.request(t)
	c.Send(context.Background(), r)
	s.minted.Add(1) // the API forgets the first
	c.age(time.Minute)
	if result := c.Send(context.Background(), r); result.Reason != delivery.ReasonTokenRefused {
		t.Fatalf("%+v, want to be repeated", result)
	}
	r.Fresh = true
	if result := c.Send(context.Background(), r); !result.Delivered() || s.requests.Load() != 2 {
		t.Fatalf("%+v after %d requests", result, s.requests.Load())
	}
	s.refuses.Store(true)
	if result := c.Send(context.Background(), r); result.StatusCode != 401 || result.Reason != delivery.ReasonStatusCode {
		t.Errorf("%+v, want no repetition with a young token", result)
	}
	if n := s.requests.Load(); n != 2 {
		t.Errorf("%d requests for a token", n)
	}
}

func TestTokenEnds(t *testing.T) {
	t.Parallel()
	s := newTokenServer(t)
	c, r := newClient(t), s.request(t)
	for want, d := range []time.Duration{0, 59 * time.Minute, time.Minute} {
		c.age(d)
		if result := c.Send(context.Background(), r); !result.Delivered() {
			t.Fatalf("%+v", result)
		}
		if n := s.requests.Load(); n != int64(min(1+want/2, 2)) {
			t.Errorf("%d requests after %s", n, d)
		}
	}
}

// TestTokenFails: failures back off, and an endpoint that hangs costs an attempt no more than its timeout.
func TestTokenFails(t *testing.T) {
	t.Parallel()
	s := newTokenServer(t)
	s.fail.Store(true)
	c, r := newClient(t), s.request(t)
	for range 5 {
		if result := c.Send(context.Background(), r); result.Reason != delivery.ReasonAuthFailed || result.StatusCode != 0 {
			t.Errorf("%+v", result)
		}
	}
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
	s.fail.Store(false)
	c.age(time.Minute)
	if result := c.Send(context.Background(), r); !result.Delivered() {
		t.Errorf("%+v", result)
	}
}

func TestTokenHangs(t *testing.T) {
	t.Parallel()
	s := newTokenServer(t)
	s.hold = make(chan struct{})
	defer close(s.hold)
	c, r := newClient(t), s.request(t)
	r.Target.Timeout = 200 * time.Millisecond
	began := time.Now()
	if result := c.Send(context.Background(), r); result.Reason != delivery.ReasonAuthFailed || time.Since(began) > 5*time.Second {
		t.Errorf("%+v after %s", result, time.Since(began))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if result := c.Send(ctx, r); result.Reason != delivery.ReasonInterrupted {
		t.Errorf("%+v", result)
	}
}

// TestTokenGuarded: a token endpoint is dialled under the same rules.
func TestTokenGuarded(t *testing.T) {
	t.Parallel()
	s := newTokenServer(t)
	c := newClient(t, func(o *Options) { o.AllowedCIDRs = nil })
	if result := c.Send(context.Background(), s.request(t)); result.Reason != delivery.ReasonAuthFailed || s.requests.Load() != 0 {
		t.Errorf("%+v, %d requests", result, s.requests.Load())
	}
}

// TestTokenIsNotRedirected: a client's secret goes to no other place than the spec names, also within one host.
func TestTokenIsNotRedirected(t *testing.T) {
	t.Parallel()
	var moved atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("POST /elsewhere", func(w http.ResponseWriter, _ *http.Request) {
		moved.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"a","token_type":"Bearer"}`))
	})
	mux.HandleFunc("POST /api", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, inBody := range []bool{false, true} {
		r := newRequest(t, server.URL+"/api", func(t *Target) {
			t.Authorization = &Authorization{ClientCredentials: &ClientCredentials{TokenURL: server.URL + "/token", ClientID: "id", ClientSecret: "secret", InBody: inBody}}
		})
		if result := newClient(t).Send(context.Background(), r); result.Reason != delivery.ReasonAuthFailed || moved.Load() != 0 {
			t.Errorf("in the body %t: %+v, and %d requests elsewhere", inBody, result, moved.Load())
		}
	}
}

// TestTokensAreBounded: a tenant keeps no more than its number, and pushes out no other's.
func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	all := newTokens()
	defer all.close()
	fetch := func(context.Context) (*oauth2.Token, error) { return &oauth2.Token{AccessToken: "x"}, nil }
	for i := range 3 * maxTokens {
		for _, tenant := range []string{"a", "b"} {
			if tenant == "b" && i > 0 {
				continue
			}
			if _, err := all.get(t.Context(), tokenKey{tenant, [32]byte{byte(i)}}, fetch); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(all.all) != maxTokens+1 || all.count["a"] != maxTokens || all.count["b"] != 1 {
		t.Errorf("%d tokens, %v", len(all.all), all.count)
	}
}

func TestFetch(t *testing.T) {
	t.Parallel()
	long := make([]byte, MaxDocument+1)
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		change func(*Document)
		want   string
		reason delivery.Reason
	}{
		"JSON":      {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"a":1}`)) }, want: `{"a":1}`},
		"not found": {answer: http.NotFound, reason: delivery.ReasonStatusCode},
		"redirect":  {answer: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, reason: delivery.ReasonStatusCode},
		"longest":   {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(long[:MaxDocument]) }, want: string(long[:MaxDocument])},
		"too long":  {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(long) }, reason: delivery.ReasonResponseInvalid},
		"broken": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			_, _ = w.Write([]byte("half"))
		}, reason: delivery.ReasonConnectionReset},
		"no URL":     {change: func(d *Document) { d.URL = "canary" }, reason: delivery.ReasonRequestInvalid},
		"file":       {change: func(d *Document) { d.URL = "file:///etc/passwd" }, reason: delivery.ReasonRequestInvalid},
		"metadata":   {change: func(d *Document) { d.URL = "http://169.254.169.254/" }, reason: delivery.ReasonAddressNotAllowed},
		"authorized": {answer: func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Header.Get("Authorization"))) }, change: func(d *Document) { d.Authorized = true }, want: "Bearer abc"},
		"not authorized": {answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(r.Method + r.Header.Get("Authorization") + r.Header.Get("X-Secret")))
		}, want: "GET"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { tc.answer(w, r) }))
			defer server.Close()
			target := newRequest(t, server.URL, func(t *Target) {
				t.Authorization, t.Header = &Authorization{Bearer: "abc"}, http.Header{"X-Secret": {"canary"}}
			}).Target
			d := Document{URL: server.URL + "/x", Target: target, Tenant: "a", Begun: time.Now()}
			if tc.change != nil {
				tc.change(&d)
			}
			body, result := newClient(t).Fetch(context.Background(), d)
			if result.Reason != tc.reason || string(body) != tc.want {
				t.Errorf("%+v, %d bytes, want %q", result, len(body), tc.reason)
			}
		})
	}
}

// TestFetchWithToken: a lookup has its token replaced as a delivery has.
func TestFetchWithToken(t *testing.T) {
	t.Parallel()
	s := newTokenServer(t)
	c := newClient(t)
	d := Document{URL: s.URL + "/document", Target: s.request(t).Target, Authorized: true, Begun: time.Now()}
	for i := range 3 {
		body, result := c.Fetch(context.Background(), d)
		if !result.Delivered() || string(body) != `{"ok":true}` {
			t.Fatalf("%d: %+v", i, result)
		}
		s.minted.Add(1)
		c.age(time.Minute)
	}
}

// TestFetchAgain: a kept connection that was closed in the meantime costs nothing but another.
func TestFetchAgain(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	defer server.Close()
	c := newClient(t)
	for range 3 {
		d := Document{URL: server.URL, Target: newRequest(t, server.URL).Target, Begun: time.Now()}
		if _, result := c.Fetch(context.Background(), d); !result.Delivered() {
			t.Fatalf("%+v", result)
		}
		server.CloseClientConnections()
	}
}
