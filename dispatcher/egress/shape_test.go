package egress

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

func TestSuffix(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ target, suffix, want string }{
		"none":                 {"/a?b=c", "", "/a?b=c"},
		"path":                 {"/a", "/b%20c/", "/a/b%20c/"},
		"path, slash":          {"/a/", "/b", "/a/b"},
		"path to root":         {"/", "/b", "/b"},
		"path before a query":  {"/a?t=1", "/b", "/a/b?t=1"},
		"query":                {"/a", "?x=1", "/a?x=1"},
		"query to a query":     {"/a?t=1", "?x=1", "/a?t=1&x=1"},
		"more of a query":      {"/a?t=1", "&x=1", "/a?t=1&x=1"},
		"more of no query":     {"/a", "&x=1", "/a?x=1"},
		"path and query":       {"/a?t=1", "/b?x=/?", "/a/b?t=1&x=/?"},
		"neither":              {"/a", "b", ""},
		"other host":           {"/", "@evil.example/", ""},
		"empty segment":        {"/", "//evil.example", ""},
		"up":                   {"/a", "/../b", ""},
		"up, escaped":          {"/a", "/%2e%2E/b", ""},
		"up, escaped twice":    {"/a", "/%252e%252e/b", ""},
		"up in an escape":      {"/a", "/x%2f..%2fb", ""},
		"up, with a backslash": {"/a", "/..%5cb", ""},
		"dot":                  {"/a", "/.", ""},
		"up with a parameter":  {"/a", "/..;x/b", ""},
		"fragment":             {"/a", "?x#y", ""},
		"space":                {"/a", "/b c", ""},
		"line":                 {"/a", "/b HTTP/1.1\r\nX: y", ""},
		"escaped line":         {"/a", "/b%0d%0aX", ""},
		"backslash":            {"/a", `/b\c`, ""},
		"no escape":            {"/a", "/%zz", ""},
		"cut escape":           {"/a", "/%2", ""},
		"not ASCII":            {"/a", "/ü", ""},
		"too long":             {"/a", "/" + strings.Repeat("b", maxSuffix), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := appendSuffix(tc.target, tc.suffix)
			if got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("%q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

// FuzzSuffix: what a suffix is appended to stays the beginning of the path, and nothing leads out of it.
func FuzzSuffix(f *testing.F) {
	f.Add("/b?x=1")
	f.Add("&y")
	f.Add("/%2e%2e/")
	f.Fuzz(func(t *testing.T, suffix string) {
		for _, base := range []string{"/", "/a/b", "/a/?t=1"} {
			got, err := appendSuffix(base, suffix)
			if err != nil {
				continue
			}
			u, err := url.ParseRequestURI(got)
			if err != nil || u.Host != "" || u.Scheme != "" || u.Fragment != "" {
				t.Fatalf("%q: %q, %v", suffix, got, err)
			}
			path, query, _ := strings.Cut(base, "?")
			cleaned, err := url.JoinPath("/", u.EscapedPath())
			if err != nil || !strings.HasPrefix(cleaned, strings.TrimSuffix(path, "/")) || !strings.HasPrefix(u.RawQuery, query) || strings.ContainsAny(got, "\r\n #") {
				t.Fatalf("%q: %q, %q", suffix, got, cleaned)
			}
		}
	})
}

func TestShape(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r }))
	defer server.Close()
	r := newRequest(t, server.URL+"/base?t=1", func(t *Target) { t.Header = http.Header{"X-Team": {"old"}, "X-Other": {"stays"}} })
	r.Shape = &Shape{
		Method: http.MethodPatch, Suffix: "/42?x=1", ContentType: "text/plain",
		Header: []Field{{"x-team", "new"}}, Attributes: []Field{{"ce-id", "evt_1"}},
	}
	if result := newClient(t).Send(context.Background(), r); !result.Delivered() {
		t.Fatalf("%+v", result)
	}
	seen := <-got
	if seen.Method != http.MethodPatch || seen.RequestURI != "/base/42?t=1&x=1" {
		t.Errorf("%s %s", seen.Method, seen.RequestURI)
	}
	for name, want := range map[string]string{"Content-Type": "text/plain", "X-Team": "new", "X-Other": "stays", "Ce-Id": "evt_1"} {
		if values := seen.Header.Values(name); len(values) != 1 || values[0] != want {
			t.Errorf("%s: %q, want %q", name, values, want)
		}
	}
}

func TestShapeCheck(t *testing.T) {
	t.Parallel()
	for name, shape := range map[string]*Shape{
		"method":        {Method: "DELETE"},
		"content type":  {ContentType: "a\r\nb"},
		"suffix":        {Suffix: "x"},
		"name":          {Header: []Field{{"a b", ""}}},
		"line":          {Header: []Field{{"a", "b\r\nc: d"}}},
		"reserved":      {Header: []Field{{"Webhook_Id", "b"}}},
		"authorization": {Header: []Field{{"authorization", "b"}}},
		"CloudEvent":    {Header: []Field{{"ce-id", "b"}}},
		"attribute":     {Attributes: []Field{{"x-id", "b"}}},
		"too long":      {Header: []Field{{"a", strings.Repeat("b", maxFields)}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRequest(t, "http://127.0.0.1:1")
			r.Shape = shape
			if result := newClient(t).Send(context.Background(), r); result.Reason != delivery.ReasonRequestInvalid {
				t.Errorf("%+v", result)
			}
		})
	}
}

// TestAnswer: an outcome gets the answer's body, up to its bound, and the connection is used again.
func TestAnswer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		body   string
		broken bool
		want   string
		reason delivery.Reason
	}{
		"JSON":     {body: `{"ok":false}`, want: `{"ok":false}`},
		"empty":    {},
		"longest":  {body: strings.Repeat("x", MaxAnswer), want: strings.Repeat("x", MaxAnswer)},
		"too long": {body: strings.Repeat("x", MaxAnswer+1)},
		"broken":   {body: "half", broken: true, reason: delivery.ReasonConnectionReset},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Ok", "no")
				if tc.broken {
					w.Header().Set("Content-Length", "100")
				}
				_, _ = w.Write([]byte(tc.body))
			}))
			defer server.Close()
			r := newRequest(t, server.URL)
			r.Answer = &Answer{WantBody: true}
			result := newClient(t).Send(context.Background(), r)
			if result.Reason != tc.reason || result.StatusCode != 200 || string(r.Answer.Body) != tc.want || r.Answer.Header.Get("X-Ok") != "no" {
				t.Errorf("%+v, %d bytes, want %d", result, len(r.Answer.Body), len(tc.want))
			}
		})
	}
}

// TestAnswerThatHangs: the attempt's timeout bounds the reading of the body.
func TestAnswerThatHangs(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"))
	request := newRequest(t, r.url, func(t *Target) { t.Timeout = 500 * time.Millisecond })
	request.Answer = &Answer{WantBody: true}
	if result := newClient(t).Send(context.Background(), request); result.Reason == "" || request.Answer.Body != nil {
		t.Errorf("%+v", result)
	}
}
