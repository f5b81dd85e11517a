package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// answer is what a server answers: a status, a body, and Retry-After if it is set. A status of 0 breaks the connection.
type answer struct {
	status     int
	body       string
	retryAfter string
}

// server is a dispatcher that answers in order, the last answer again, and notes what it was asked. It is a transport, so that
// time is that of synctest.
type server struct {
	answers []answer
	asked   []string // method, URL and body
	headers []http.Header
	at      []time.Time
}

// RoundTrip implements http.RoundTripper.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.asked = append(s.asked, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+string(body)))
	s.headers, s.at = append(s.headers, r.Header), append(s.at, time.Now())
	a := s.answers[min(len(s.asked), len(s.answers))-1]
	if a.status == 0 {
		return nil, errors.New("connection reset by peer")
	}
	recorder := httptest.NewRecorder()
	if a.retryAfter != "" {
		recorder.Header().Set("Retry-After", a.retryAfter)
	}
	recorder.WriteHeader(a.status)
	_, _ = recorder.WriteString(a.body)
	return recorder.Result(), nil
}

const base = "http://dispatcher/behind/v1/namespaces/clinic-a/"

// of returns a client of a server.
func of(t *testing.T, s *server, retryFor time.Duration) *Client {
	t.Helper()
	c, err := New(Config{URL: "http://dispatcher/behind/", Transport: s, Token: StaticToken("t"), UserAgent: "test", RetryFor: retryFor})
	if err != nil {
		t.Fatal(err)
	}
	c.random = func(time.Duration) time.Duration { return 0 }
	return c
}

const accepted = `{"id":"e1","deliveries":2}`

// TestPublishTriesAgain: until it is answered for, never before Retry-After, and no longer than it may.
func TestPublishTriesAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers  []answer
		retryFor time.Duration
		want     string // the seconds at which it asks
		wantErr  string
		repeated bool
	}{
		"accepted":                       {[]answer{{202, accepted, ""}}, 0, "0", "", false},
		"known already":                  {[]answer{{200, accepted, ""}}, 0, "0", "", true},
		"unavailable, then there":        {[]answer{{503, "", "7"}, {202, accepted, ""}}, 0, "0 7", "", false},
		"over its quota, by a date":      {[]answer{{429, "", "Sat, 01 Jan 2000 00:00:09 GMT"}, {202, accepted, ""}}, 0, "0 9", "", false},
		"broken after it was stored":     {[]answer{{}, {200, accepted, ""}}, 0, "0 0.125", "", true},
		"a proxy's, with growing pauses": {[]answer{{502, "", ""}, {504, "", ""}, {408, "", ""}, {202, accepted, ""}}, 0, "0 0.125 0.375 0.875", "", false},
		"a pause that is in the past":    {[]answer{{503, "", "Sat, 01 Jan 1999 00:00:00 GMT"}, {202, accepted, ""}}, 0, "0 0.125", "", false},
		"for as long as it may":          {[]answer{{503, "", "2"}}, 5 * time.Second, "0 2 4", "503", false},
		"not for a minute by itself":     {[]answer{{503, "", "60"}}, 0, "0", "503", false},
		"not at all":                     {[]answer{{503, "", "1"}}, -1, "0", "503", false},
		"refused at once":                {[]answer{{403, "", ""}}, 0, "0", "403", false},
		"redirected, refused":            {[]answer{{307, "", ""}}, 0, "0", "307", false},
		"no dispatcher":                  {[]answer{{200, "<html>", ""}}, 0, "0", "not a dispatcher's", false},
		"an endless answer":              {[]answer{{200, strings.Repeat(" ", maxAnswer+1), ""}}, 0, "0", "more than", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // whose time begins with the year 2000
				s := &server{answers: test.answers}
				began := time.Now()
				got, err := of(t, s, test.retryFor).Publish(t.Context(), "clinic-a", Event{Type: "lab.created", Data: json.RawMessage(`{}`)})
				if (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("error %v, want %q", err, test.wantErr)
				}
				if err == nil && (got.Deliveries != 2 || got.ID != "e1" || got.Repeated != test.repeated) {
					t.Errorf("got %+v", got)
				}
				var at []string
				for _, asked := range s.at {
					at = append(at, fmt.Sprint(asked.Sub(began).Seconds()))
				}
				if got := strings.Join(at, " "); got != test.want {
					t.Errorf("asked at %s, want %s", got, test.want)
				}
				if len(slices.Compact(s.asked)) != 1 {
					t.Errorf("an attempt sends other bytes: %q", s.asked)
				}
			})
		})
	}
}

// TestPublishEndsWithItsContext: a pause does not outlast it, and the error says both.
func TestPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		_, err := of(t, &server{answers: []answer{{503, "", "20"}}}, 0).Publish(ctx, "clinic-a", Event{Type: "lab.created"})
		var p *Problem
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &p) || p.Status != 503 || time.Since(began) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// TestPublishKeepsBytes: data is sent as it stands, and an event has an id.
func TestPublishKeepsBytes(t *testing.T) {
	t.Parallel()
	s := &server{answers: []answer{{202, `[{"id":"a","deliveries":1},{"id":"b","deliveries":0}]`, ""}}}
	c := of(t, s, -1)
	at := time.Date(2026, 1, 15, 10, 15, 0, 1000, time.FixedZone("", 3600))
	got, err := c.PublishAll(t.Context(), "clinic-a", []Event{
		{ID: "a", Type: "lab.updated", Timestamp: at, Data: json.RawMessage(`{ "x": "<&>\ud83d", "n": 1.0 }`), Previous: json.RawMessage(`{"n":0}`)},
		{Type: "lab.created", Data: json.RawMessage(`{}`)},
	})
	if err != nil || len(got) != 2 || got[0] != (Accepted{ID: "a", Deliveries: 1}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	want := `^POST ` + regexp.QuoteMeta(base+`events [{"id":"a","type":"lab.updated","timestamp":"2026-01-15T09:15:00.000001Z",`+
		`"data":{ "x": "<&>\ud83d", "n": 1.0 },"previous":{"n":0}},`) + `\{"id":"evt_[0-9a-v]{26}","type":"lab.created","data":\{\}\}\]$`
	if !regexp.MustCompile(want).MatchString(s.asked[0]) {
		t.Errorf("it sends %s, want %s", s.asked[0], want)
	}
	for header, want := range map[string]string{"Content-Type": "application/json", "Authorization": "Bearer t", "User-Agent": "test"} {
		if got := s.headers[0].Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	for name, e := range map[string]Event{"id": {ID: "a b"}, "data": {Data: json.RawMessage(`{"PHI":`)}, "previous": {Previous: json.RawMessage(`PHI`)}} {
		_, one := c.Publish(t.Context(), "clinic-a", e)
		_, all := c.PublishAll(t.Context(), "clinic-a", []Event{e})
		for _, err := range []error{one, all} {
			if err == nil || !strings.Contains(err.Error(), "the event's "+name) || strings.Contains(err.Error(), "PHI") || len(s.asked) > 1 {
				t.Errorf("%s is sent, or shown: %v", name, err)
			}
		}
	}
	if _, err := of(t, &server{answers: []answer{{202, `[]`, ""}}}, -1).PublishAll(t.Context(), "clinic-a", []Event{{}}); err == nil {
		t.Error("an answer is about fewer events than were sent")
	}
}

// TestRequests: each method asks what docs/publishing.md has for it.
func TestRequests(t *testing.T) {
	t.Parallel()
	const one = `{"id":"dlv_1","event":{"id":"e1","type":"lab.created"},"subscription":"labs","state":"Failed","attemptCount":51,
		"createdTime":"2026-01-15T09:15:00.000Z","reason":"ByUser","replayOf":"dlv_0","attempts":[{"number":51,"startedTime":"2026-01-15T09:15:01.000Z","durationMillis":1500,"statusCode":503,"error":"BadStatus"}]}`
	at := time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)
	query := Query{Subscription: "labs", State: Scheduled, Key: "a&b", Since: at, Until: at.Add(time.Millisecond), Limit: 7, Continue: "x/+"}
	checked := func(d Delivery, err error) error {
		if len(d.Attempts) != 1 || d.Attempts[0] != (Attempt{Number: 51, StartedTime: at.Add(time.Second), Duration: 1500 * time.Millisecond, StatusCode: 503, Error: "BadStatus"}) ||
			d.ID != "dlv_1" || d.State != Failed || !d.CreatedTime.Equal(at) || d.Event.Type != "lab.created" || d.ReplayOf != "dlv_0" || d.Reason != "ByUser" {
			return fmt.Errorf("%+v, %w", d, err)
		}
		return err
	}
	for want, call := range map[string]func(*Client) error{
		"GET " + base + "deliveries": func(c *Client) error { _, err := c.Deliveries(t.Context(), "clinic-a", Query{}); return err },
		"GET " + base + "deliveries?continue=x%2F%2B&key=a%26b&limit=7&since=2026-01-15T09%3A15%3A00Z&state=Scheduled&subscription=labs&until=2026-01-15T09%3A15%3A00.001Z": func(c *Client) error {
			_, err := c.Deliveries(t.Context(), "clinic-a", query)
			return err
		},
		"GET " + base + "deliveries/dlv_1":          func(c *Client) error { return checked(c.Delivery(t.Context(), "clinic-a", "dlv_1")) },
		"POST " + base + "deliveries/dlv_1/replay":  func(c *Client) error { return checked(c.Replay(t.Context(), "clinic-a", "dlv_1")) },
		"POST " + base + "deliveries/dlv_1/cancel":  func(c *Client) error { return checked(c.Cancel(t.Context(), "clinic-a", "dlv_1")) },
		"POST " + base + "deliveries/dlv_1/sendnow": func(c *Client) error { return checked(c.SendNow(t.Context(), "clinic-a", "dlv_1")) },
		"POST " + base + `deliveries/replay {"since":"2026-01-15T09:15:00Z","state":"Failed"}`: func(c *Client) error {
			_, err := c.ReplayMany(t.Context(), "clinic-a", Query{State: Failed, Since: at})
			return err
		},
	} {
		s := &server{answers: []answer{{200, one, ""}}}
		if err := call(of(t, s, 0)); err != nil || len(s.asked) != 1 || s.asked[0] != want {
			t.Errorf("it asks %q, want %q: %v", s.asked, want, err)
		}
		s = &server{answers: []answer{{503, "", "0"}}}
		if err := call(of(t, s, 0)); err == nil || len(s.asked) != 1 {
			t.Errorf("%s: it asks %d times, and ends with %v; only a publish is tried again", want, len(s.asked), err)
		}
	}
}

// TestNamesStayInTheirPlace: no name leads to another resource, and a replay of many never selects more than was asked.
func TestNamesStayInTheirPlace(t *testing.T) {
	t.Parallel()
	s := &server{answers: []answer{{202, `{}`, ""}}}
	c := of(t, s, -1)
	for _, name := range []string{"", ".", "..", "a/b", "a?b", "a%2fb", "ä"} {
		_, inNamespace := c.Publish(t.Context(), name, Event{})
		_, list := c.Deliveries(t.Context(), name, Query{})
		_, id := c.Replay(t.Context(), "clinic-a", name)
		for _, err := range []error{inNamespace, list, id} {
			if !errors.Is(err, ErrInvalidName) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	for _, q := range []Query{{Key: "k"}, {Limit: 1}} {
		if _, err := c.ReplayMany(t.Context(), "clinic-a", q); err == nil {
			t.Errorf("%+v is taken", q)
		}
	}
	if len(s.asked) > 0 {
		t.Errorf("it asks %q", s.asked)
	}
}

// TestAll goes through the pages, and no further than its caller.
func TestAll(t *testing.T) {
	t.Parallel()
	const first, last = `{"items":[{"id":"a"},{"id":"b"}],"continue":"t"}`, `{"items":[{"id":"c"}],"continue":""}`
	for name, test := range map[string]struct {
		answers []answer
		stop    string
		want    string
		asks    int
	}{
		"all":               {[]answer{{200, first, ""}, {200, last, ""}}, "", "a b c", 2},
		"stops on a page":   {[]answer{{200, first, ""}, {200, last, ""}}, "a", "a", 1},
		"stops at its end":  {[]answer{{200, first, ""}, {200, last, ""}}, "b", "a b", 1},
		"none":              {[]answer{{200, `{"items":[],"continue":""}`, ""}}, "", "", 1},
		"an empty page":     {[]answer{{200, `{"items":[],"continue":"t"}`, ""}, {200, last, ""}}, "", "c", 2},
		"an error ends all": {[]answer{{200, first, ""}, {500, "", ""}}, "", "a b error", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &server{answers: test.answers}
			var got []string
			for d, err := range of(t, s, -1).All(t.Context(), "clinic-a", Query{}) {
				if err != nil {
					d.ID = "error"
				}
				if got = append(got, d.ID); d.ID == test.stop {
					break
				}
			}
			if strings.Join(got, " ") != test.want || len(s.asked) != test.asks {
				t.Errorf("got %q with %q, want %s", got, s.asked, test.want)
			}
			if len(s.asked) == 2 && !strings.Contains(s.asked[1], "?continue=t&limit=1000") {
				t.Errorf("the next page is %s", s.asked[1])
			}
		})
	}
}

// TestProblems: a problem document is read as it is, and what is none says so.
func TestProblems(t *testing.T) {
	t.Parallel()
	document := `{"type":"https://github.com/clinikapi/eventflow/blob/main/docs/problems.md#quota-exceeded","title":"A quota","status":429,"detail":"wait","index":3}`
	for name, test := range map[string]struct {
		answer answer
		want   Problem
		kind   string
		text   string
	}{
		"a document": {answer{429, document, "2"}, Problem{Title: "A quota", Detail: "wait", Status: 429, Index: 3, RetryAfter: 2 * time.Second}, QuotaExceeded, "the dispatcher answered 429: A quota: wait"},
		"no detail":  {answer{404, `{"type":"x#not-found","title":"None"}`, ""}, Problem{Title: "None", Status: 404, Index: -1}, NotFound, "the dispatcher answered 404: None"},
		"none":       {answer{502, `<html>`, "soon"}, Problem{Status: 502, Index: -1}, "", "the server answered 502, without a problem document"},
		"other JSON": {answer{401, `{"title":7}`, "99999999999"}, Problem{Status: 401, Index: -1}, "", "the server answered 401, without a problem document"},
		"for long":   {answer{503, ``, "4000000000"}, Problem{Status: 503, Index: -1, RetryAfter: maxRetryAfter}, "", "the server answered 503, without a problem document"},
	} {
		_, err := of(t, &server{answers: []answer{test.answer}}, -1).Delivery(t.Context(), "clinic-a", "dlv_1")
		p, ok := errors.AsType[*Problem](err)
		if !ok {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Kind() != test.kind || p.Error() != test.text {
			t.Errorf("%s: kind %q, %q", name, p.Kind(), p)
		}
		if got := *p; func() bool { got.Type = ""; return got != test.want }() {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

// TestKindsAreDocumented holds the constants to docs/problems.md, and so to the dispatcher, whose own test does the same.
func TestKindsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("problem.go")
	if err != nil {
		t.Fatal(err)
	}
	var documented, constants []string
	for _, match := range regexp.MustCompile(`(?m)^## ([a-z-]+)$`).FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, match[1])
	}
	for _, match := range regexp.MustCompile(`(?m)^\t[A-Z]\w+ += "([a-z-]+)"$`).FindAllStringSubmatch(string(source), -1) {
		constants = append(constants, match[1])
	}
	if !slices.Equal(documented, constants) || len(constants) < 10 {
		t.Errorf("documented are %q, the constants are %q", documented, constants)
	}
}

// TestErrorsShowNoAddress: not of the URL, its password, or its query; nor of what a wrong URL holds.
func TestErrorsShowNoAddress(t *testing.T) {
	t.Parallel()
	c, err := New(Config{URL: "http://user:secret@dispatcher", Transport: &server{answers: []answer{{}}}, RetryFor: -1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Deliveries(t.Context(), "clinic-a", Query{Subscription: "s", Key: "PHI"})
	if u, ok := errors.AsType[*UnreachableError](err); !ok || u.Error() != "the dispatcher cannot be reached: connection reset by peer" {
		t.Errorf("got %v", err)
	}
	for _, url := range []string{"", "127.0.0.1:8080", "ftp://secret/", "http://", "http://user:secret@%zz/", "/v1"} {
		if _, err := New(Config{URL: url}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Delivery(ended, "clinic-a", "dlv_1"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestTokens: a file is read each time, and without a token nothing is asked.
func TestTokens(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	s := &server{answers: []answer{{200, `{}`, ""}}}
	c, err := New(Config{URL: "http://dispatcher", Transport: s, Token: TokenFile(file)})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "one", "two"} {
		if token != "" {
			if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := c.Delivery(t.Context(), "clinic-a", "dlv_1")
		if token == "" {
			if !errors.Is(err, os.ErrNotExist) || len(s.asked) > 0 {
				t.Errorf("without a file: %v, %q", err, s.asked)
			}
			continue
		}
		if got := s.headers[len(s.headers)-1].Get("Authorization"); err != nil || got != "Bearer "+token {
			t.Errorf("it sends %q: %v", got, err)
		}
	}
}

// TestRedirectsAreNotFollowed over a real connection, and TLS is as the caller says.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	reached := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	t.Cleanup(elsewhere.Close)
	redirects := httptest.NewTLSServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(redirects.Close)
	c, err := New(Config{URL: redirects.URL, Token: StaticToken("t"), TLS: redirects.Client().Transport.(*http.Transport).TLSClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	_, err = c.Publish(t.Context(), "clinic-a", Event{Type: "lab.created"})
	if p, ok := errors.AsType[*Problem](err); !ok || p.Status != 307 || reached {
		t.Errorf("it ends with %v, and reaches the other server: %v", err, reached)
	}
	if c, err = New(Config{URL: redirects.URL, RetryFor: -1}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Publish(t.Context(), "clinic-a", Event{Type: event.Type("lab.created")}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of an unknown authority is taken: %v", err)
	}
}
