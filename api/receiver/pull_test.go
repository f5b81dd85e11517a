package receiver

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/signature"
)

const pullKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// dispatcher is a fake one: it keeps deliveries until they are acknowledged, as the real one does.
type dispatcher struct {
	mu      sync.Mutex
	pending []string
	pages   map[string][]string // by cursor
	calls   []string            // their queries
	times   []time.Time         // of the calls
	answers []func() *http.Response
	forged  map[string]bool
	empty   time.Duration // how long an empty answer waits; the call's wait if 0
}

func newDispatcher(pending ...string) *dispatcher {
	return &dispatcher{pending: pending, pages: map[string][]string{}, forged: map[string]bool{}}
}

func problem(status int, kind string, retryAfter int) func() *http.Response {
	return func() *http.Response {
		r := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"type":"https://e.example/problems.md#` + kind + `","detail":"do so"}`))}
		if retryAfter > 0 {
			r.Header.Set("Retry-After", strconv.Itoa(retryAfter))
		}
		return r
	}
}

func (d *dispatcher) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path != "/v1/namespaces/clinic-a/subscriptions/billing/deliveries:pull" || r.Header.Get("Authorization") != "Bearer token" {
		return problem(http.StatusNotFound, "not-found", 0)(), nil
	}
	query := r.URL.Query()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls, d.times = append(d.calls, r.URL.RawQuery), append(d.times, time.Now())
	if len(d.answers) > 0 {
		next := d.answers[0]
		d.answers = d.answers[1:]
		if next != nil {
			return next(), nil
		}
	}
	if handled, _ := strconv.Atoi(query.Get("handled")); query.Get("after") != "" {
		for _, id := range d.pages[query.Get("after")][:handled] {
			d.pending = slices.DeleteFunc(d.pending, func(other string) bool { return other == id })
		}
	}
	if len(d.pending) == 0 {
		wait, _ := time.ParseDuration(query.Get("wait"))
		if d.empty > 0 {
			wait = d.empty
		}
		d.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
		}
		d.mu.Lock()
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
	}
	limit, _ := strconv.Atoi(query.Get("limit"))
	ids := slices.Clone(d.pending[:min(limit, len(d.pending))])
	cursor := ""
	if len(ids) > 0 {
		cursor = fmt.Sprint("cursor-", len(d.pages))
		d.pages[cursor] = ids
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(d.page(ids, cursor)))}, nil
}

func (d *dispatcher) page(ids []string, cursor string) []byte {
	key, err := signature.ParseKey([]byte(pullKey))
	if err != nil {
		panic(err)
	}
	type one struct {
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body"`
	}
	all := []one{}
	for _, id := range ids {
		body := []byte(`{"id":"` + id + `","event":"patient.created","type":"patient.created","timestamp":"2026-01-02T03:04:05.000Z","data":{}}`)
		header := http.Header{}
		signature.Keys{key}.Header(header, "dlv_"+id, time.Now(), body)
		headers := map[string]string{"X-Clinik-Attempt": "1"}
		for name, values := range header {
			headers[name] = values[0]
		}
		if d.forged[id] {
			body = bytes.Replace(body, []byte("2026"), []byte("2027"), 1)
		}
		all = append(all, one{headers, base64.StdEncoding.EncodeToString(body)})
	}
	text, err := json.Marshal(map[string]any{"deliveries": all, "cursor": cursor})
	if err != nil {
		panic(err)
	}
	return text
}

// consumer pulls from a dispatcher, and notes what it handled.
type consumer struct {
	handled  []string
	outcomes []Outcome
	failures int
	fail     func(id string) error
}

func (c *consumer) pull(t *testing.T, d *dispatcher, within time.Duration, change func(*PullConfig)) error {
	t.Helper()
	hooks, err := New(Config{
		Secrets: []string{pullKey}, Observe: func(_ context.Context, o Outcome) { c.outcomes = append(c.outcomes, o) },
		On: Routes{"patient.*": func(_ context.Context, e Event) error {
			if c.fail != nil {
				if err := c.fail(e.ID); err != nil {
					return err
				}
			}
			c.handled = append(c.handled, e.ID)
			return nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	config := PullConfig{
		URL: "https://eventflow.example/", Namespace: "clinic-a", Subscription: "billing", Client: &http.Client{Transport: d},
		Token:  func(context.Context) (string, error) { return "token", nil },
		Failed: func(context.Context, error) { c.failures++ },
	}
	if change != nil {
		change(&config)
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return hooks.Pull(ctx, config)
}

// TestPull: deliveries are handled once each, in order, page by page, and acknowledged, also when the program stops.
func TestPull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, c := newDispatcher("a", "b", "c", "d", "e"), &consumer{}
		if err := c.pull(t, d, time.Minute, func(p *PullConfig) { p.Limit = 2 }); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if want := []string{"a", "b", "c", "d", "e"}; !slices.Equal(c.handled, want) || len(d.pending) != 0 {
			t.Errorf("handled %q, pending %q", c.handled, d.pending)
		}
		if len(c.outcomes) != 5 || !c.outcomes[0].Handled || c.outcomes[0].DeliveryID != "dlv_a" || c.outcomes[0].Status != 200 || c.outcomes[0].Attempt != 1 {
			t.Errorf("outcomes %+v", c.outcomes)
		}
		if d.calls[0] != "limit=2&wait=30s" {
			t.Errorf("the first call is %q", d.calls[0])
		}
	})
}

// TestPullStops: what was handled when the program stops is acknowledged, and no more.
func TestPullStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, c := newDispatcher("a", "b", "c"), &consumer{}
		c.fail = func(string) error { <-time.After(10 * time.Second); return nil }
		if err := c.pull(t, d, 25*time.Second, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if want := []string{"c"}; len(c.handled) < 2 || !slices.Equal(d.pending, want) && len(d.pending) != 0 {
			t.Errorf("handled %q, pending %q", c.handled, d.pending)
		}
	})
}

// TestPullRetries: a handler that fails is called again, holds back those behind it, and what came before is acknowledged.
func TestPullRetries(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err     error
		wantMin time.Duration
	}{
		"an error":  {err: errors.New("not now"), wantMin: 500 * time.Millisecond},
		"its time":  {err: RetryAfter(40*time.Second, nil), wantMin: 40 * time.Second},
		"a foreign": {err: context.Canceled, wantMin: 500 * time.Millisecond},
		"a panic":   {wantMin: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d, c := newDispatcher("a", "b", "c"), &consumer{}
				var times []time.Time
				c.fail = func(id string) error {
					if id != "b" {
						return nil
					}
					if times = append(times, time.Now()); len(times) > 3 {
						return nil
					}
					if tc.err == nil {
						panic("secret")
					}
					return tc.err
				}
				_ = c.pull(t, d, 10*time.Minute, nil)
				if want := []string{"a", "b", "c"}; !slices.Equal(c.handled, want) || len(d.pending) != 0 || len(times) != 4 {
					t.Fatalf("handled %q, pending %q, %d tries", c.handled, d.pending, len(times))
				}
				for i := range 3 {
					if gap := times[i+1].Sub(times[i]); gap < tc.wantMin || gap > 2*time.Minute {
						t.Errorf("try %d came %v after the one before", i+2, gap)
					}
				}
				if !strings.Contains(d.calls[1], "after=cursor-0&handled=1") {
					t.Errorf("the second call is %q: what came before must be acknowledged", d.calls[1])
				}
			})
		})
	}
}

// TestPullVerifies: what is not signed by the key is neither handled nor acknowledged, nor what comes behind it.
func TestPullVerifies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, c := newDispatcher("a", "b", "c"), &consumer{}
		d.forged["b"] = true
		_ = c.pull(t, d, time.Minute, nil)
		if want := []string{"a"}; !slices.Equal(c.handled, want) || !slices.Equal(d.pending, []string{"b", "c"}) {
			t.Errorf("handled %q, pending %q", c.handled, d.pending)
		}
		if last := c.outcomes[len(c.outcomes)-1]; !errors.Is(last.Err, signature.ErrMismatch) || last.Status != 401 {
			t.Errorf("outcome %+v", last)
		}
	})
}

// TestPullSlowly: a delivery whose turn comes long after its page did is not too old.
func TestPullSlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, c := newDispatcher("a", "b", "c"), &consumer{}
		c.fail = func(string) error { <-time.After(4 * time.Minute); return nil }
		_ = c.pull(t, d, time.Hour, nil)
		if want := []string{"a", "b", "c"}; !slices.Equal(c.handled, want) || len(c.outcomes) != 3 {
			t.Errorf("handled %q, %d outcomes", c.handled, len(c.outcomes))
		}
	})
}

// TestPullErrors: what may pass is tried again, as late as it says; what somebody must mend is returned.
func TestPullErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer    func() *http.Response
		wantKind  string // of the error that Pull returns; it goes on if empty
		wantPause time.Duration
	}{
		"overloaded":       {answer: problem(429, "overloaded", 7), wantPause: 7 * time.Second},
		"unavailable":      {answer: problem(503, "unavailable", 0), wantPause: 500 * time.Millisecond},
		"not there yet":    {answer: problem(404, "not-found", 0), wantPause: 500 * time.Millisecond},
		"suspended":        {answer: problem(409, "subscription-not-pulled", 30), wantPause: 30 * time.Second},
		"an old cursor":    {answer: problem(410, "cursor-expired", 0), wantPause: 500 * time.Millisecond},
		"a foreign cursor": {answer: problem(400, "cursor-invalid", 0), wantPause: 500 * time.Millisecond},
		"no dispatcher": {answer: func() *http.Response {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("<html>"))}
		}, wantPause: 500 * time.Millisecond},
		"not pulled":        {answer: problem(409, "subscription-not-pulled", 0), wantKind: "subscription-not-pulled"},
		"forbidden":         {answer: problem(403, "forbidden", 0), wantKind: "forbidden"},
		"malformed":         {answer: problem(400, "malformed-request", 0), wantKind: "malformed-request"},
		"no token any more": {answer: problem(401, "unauthenticated", 0), wantKind: "unauthenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d, c := newDispatcher("a", "b"), &consumer{}
				d.answers = []func() *http.Response{nil, tc.answer} // the call that acknowledges fails
				err := c.pull(t, d, 5*time.Minute, func(p *PullConfig) { p.Limit = 1 })
				refused, ok := errors.AsType[*PullError](err)
				if ok != (tc.wantKind != "") || ok && refused.Kind != tc.wantKind {
					t.Fatalf("Pull gave %v", err)
				}
				if ok {
					if want := []string{"a"}; !slices.Equal(c.handled, want) || !slices.Equal(d.pending, []string{"b"}) {
						t.Errorf("handled %q, pending %q: what was handled is to be acknowledged", c.handled, d.pending)
					}
					return
				}
				if want := []string{"a", "b"}; !slices.Equal(c.handled, want) || len(d.pending) != 0 || c.failures != 1 {
					t.Errorf("handled %q, pending %q, %d failures", c.handled, d.pending, c.failures)
				}
				if anew := strings.Contains(name, "cursor"); anew == strings.Contains(d.calls[2], "after=") {
					t.Errorf("the next call is %q: a cursor that was refused is dropped, and no other", d.calls[2])
				}
				if gap := d.times[2].Sub(d.times[1]); gap < tc.wantPause || gap > tc.wantPause+time.Second {
					t.Errorf("it is asked again after %v, want %v", gap, tc.wantPause)
				}
			})
		})
	}
}

// TestPullStopped: ErrStop ends the loop, with what came before acknowledged.
func TestPullStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, c := newDispatcher("a", "b"), &consumer{}
		c.fail = func(id string) error {
			if id == "b" {
				return fmt.Errorf("no more: %w", ErrStop)
			}
			return nil
		}
		if err := c.pull(t, d, time.Minute, nil); !errors.Is(err, ErrStop) || !slices.Equal(d.pending, []string{"b"}) {
			t.Errorf("%v, pending %q", err, d.pending)
		}
	})
}

// TestPullDoesNotSpin: a dispatcher that answers nothing at once, because it stops, is not asked without a pause.
func TestPullDoesNotSpin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, c := newDispatcher(), &consumer{}
		d.empty = time.Nanosecond
		_ = c.pull(t, d, 10*time.Second, nil)
		if n := len(d.calls); n < 5 || n > 11 {
			t.Errorf("%d calls in 10 s", n)
		}
	})
}

func TestPullConfig(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*PullConfig){
		"no URL":         func(p *PullConfig) { p.URL = "eventflow" },
		"no namespace":   func(p *PullConfig) { p.Namespace = "" },
		"a path":         func(p *PullConfig) { p.Subscription = "../x" },
		"a long wait":    func(p *PullConfig) { p.Wait = 2 * time.Minute },
		"a limit beyond": func(p *PullConfig) { p.Limit = 501 },
	} {
		c := &consumer{}
		if err := c.pull(t, newDispatcher("a"), time.Second, change); err == nil || errors.Is(err, context.DeadlineExceeded) || len(c.handled) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
