package egress

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// consenting is an endpoint that knows the handshake.
type consenting struct {
	*httptest.Server
	answer           atomic.Pointer[func(http.ResponseWriter)]
	asked, delivered atomic.Int64
	mu               sync.Mutex
	options, sent    http.Header
	target           string
}

func newConsenting(t *testing.T, answer func(http.ResponseWriter)) *consenting {
	t.Helper()
	e := &consenting{}
	e.answer.Store(&answer)
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if r.Method == http.MethodOptions {
			e.asked.Add(1)
			e.options, e.target = r.Header.Clone(), r.RequestURI
			(*e.answer.Load())(w)
			return
		}
		e.delivered.Add(1)
		e.sent = r.Header.Clone()
	}))
	t.Cleanup(e.Close)
	return e
}

// answers is an answer with headers and a status.
func answers(status int, lines ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i < len(lines); i += 2 {
			w.Header().Add(lines[i], lines[i+1])
		}
		w.WriteHeader(status)
	}
}

func asking(rate int) func(*Target) {
	return func(t *Target) { t.Handshake = &Handshake{Origin: "eventflow.clinic.example", Rate: rate} }
}

// TestHandshake: nothing is delivered unless the endpoint agrees as the specification says, by a header and not by a status.
func TestHandshake(t *testing.T) {
	t.Parallel()
	const origin, rate = "WebHook-Allowed-Origin", "WebHook-Allowed-Rate"
	for name, tc := range map[string]struct {
		answer      func(http.ResponseWriter)
		want        delivery.Reason // "" for a delivery
		wantStatus  int
		wantAllowed int
		wantRetry   time.Duration
	}{
		"agrees":                      {answer: answers(200, origin, "eventflow.clinic.example", rate, "120"), wantStatus: 200, wantAllowed: 120},
		"agrees to all":               {answer: answers(200, origin, "*", rate, "*"), wantStatus: 200},
		"agrees in capitals":          {answer: answers(200, origin, "EventFlow.Clinic.Example", rate, "1"), wantStatus: 200, wantAllowed: 1},
		"agrees and names no rate":    {answer: answers(204, origin, "*"), wantStatus: 200},
		"agrees with another status":  {answer: answers(405, origin, "*", rate, "60"), wantStatus: 200, wantAllowed: 60},
		"allows more than any number": {answer: answers(200, origin, "*", rate, "9000000000000000000"), wantStatus: 200},
		"says nothing":                {answer: answers(200), want: delivery.ReasonHandshakeRefused, wantStatus: 200},
		"agrees to another":           {answer: answers(200, origin, "other.example", rate, "*"), want: delivery.ReasonHandshakeRefused, wantStatus: 200},
		"agrees to a part":            {answer: answers(200, origin, "clinic.example", rate, "*"), want: delivery.ReasonHandshakeRefused, wantStatus: 200},
		"agrees to two":               {answer: answers(200, origin, "*", origin, "eventflow.clinic.example"), want: delivery.ReasonHandshakeRefused, wantStatus: 200},
		"allows none":                 {answer: answers(200, origin, "*", rate, "0"), want: delivery.ReasonHandshakeRefused, wantStatus: 200},
		"allows what is no number":    {answer: answers(200, origin, "*", rate, "many"), want: delivery.ReasonHandshakeRefused, wantStatus: 200},
		"does not know OPTIONS":       {answer: answers(405, "Allow", "POST"), want: delivery.ReasonHandshakeRefused, wantStatus: 405},
		"is busy":                     {answer: answers(503, "Retry-After", "30"), want: delivery.ReasonStatusCode, wantStatus: 503, wantRetry: 30 * time.Second},
		"redirects":                   {answer: answers(307, "Location", "/elsewhere"), want: delivery.ReasonHandshakeRefused, wantStatus: 307},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, c := newConsenting(t, tc.answer), newClient(t)
			r := newRequest(t, e.URL+"/hook?a=b", asking(600))
			got := c.Send(context.Background(), r)
			if got.Reason != tc.want || got.StatusCode != tc.wantStatus || got.AllowedPerMinute != tc.wantAllowed || got.RetryAfter != tc.wantRetry {
				t.Errorf("%+v, want %q, %d, %d a minute, after %s", got, tc.want, tc.wantStatus, tc.wantAllowed, tc.wantRetry)
			}
			delivered := int64(1)
			if tc.want != "" {
				delivered = 0
			}
			if e.delivered.Load() != delivered || e.asked.Load() != 1 {
				t.Errorf("%d delivered, %d asked", e.delivered.Load(), e.asked.Load())
			}
		})
	}
}

// TestHandshakeRequest: the question goes to the very URL with the headers of the specification, and each delivery carries
// the origin after it.
func TestHandshakeRequest(t *testing.T) {
	t.Parallel()
	e, c := newConsenting(t, answers(200, "WebHook-Allowed-Origin", "*")), newClient(t)
	authorized := func(t *Target) { t.Authorization = &Authorization{Bearer: "abc"} }
	r := newRequest(t, e.URL+"/hook?a=b", asking(600), authorized)
	r.Shape = &Shape{Method: http.MethodPut, Suffix: "/more"}
	if got := c.Send(context.Background(), r); !got.Delivered() {
		t.Fatalf("%+v", got)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, want := range map[string]string{"WebHook-Request-Origin": "eventflow.clinic.example", "WebHook-Request-Rate": "600", "Authorization": "Bearer abc", "Content-Length": "", "Webhook-Id": ""} {
		if got := e.options.Get(name); got != want {
			t.Errorf("OPTIONS: %s is %q, want %q", name, got, want)
		}
	}
	if e.target != "/hook?a=b" {
		t.Errorf("OPTIONS %s", e.target)
	}
	for name, want := range map[string]string{"WebHook-Request-Origin": "eventflow.clinic.example", "WebHook-Request-Rate": ""} {
		if got := e.sent.Get(name); got != want {
			t.Errorf("the delivery: %s is %q, want %q", name, got, want)
		}
	}
}

// TestHandshakeIsKept: attempts that come together share one question, and later ones ask none; a refusal is asked again with
// the next attempt, and another target of its own.
func TestHandshakeIsKept(t *testing.T) {
	t.Parallel()
	e, c := newConsenting(t, answers(405)), newClient(t)
	r := newRequest(t, e.URL, asking(0))
	for range 2 {
		if got := c.Send(context.Background(), r); got.Reason != delivery.ReasonHandshakeRefused {
			t.Errorf("%+v", got)
		}
	}
	if e.asked.Load() != 2 {
		t.Errorf("asked %d times, want 2", e.asked.Load())
	}
	yes := answers(200, "WebHook-Allowed-Origin", "*")
	e.answer.Store(&yes)
	var together sync.WaitGroup
	for range 16 {
		together.Go(func() {
			if got := c.Send(context.Background(), r); !got.Delivered() {
				t.Errorf("%+v", got)
			}
		})
	}
	together.Wait()
	if e.asked.Load() != 3 || e.delivered.Load() != 16 {
		t.Errorf("asked %d times, %d delivered, want 3 and 16", e.asked.Load(), e.delivered.Load())
	}
	if got := c.Send(context.Background(), newRequest(t, e.URL+"/other", asking(0))); !got.Delivered() || e.asked.Load() != 4 {
		t.Errorf("%+v, asked %d times, want 4", got, e.asked.Load())
	}
}

// TestHandshakeIsGuarded: a question goes nowhere that a delivery may not go, and ends with the attempt.
func TestHandshakeIsGuarded(t *testing.T) {
	t.Parallel()
	c, err := New(Options{AllowHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.Send(context.Background(), newRequest(t, "http://169.254.169.254/", asking(0))); got.Reason != delivery.ReasonAddressNotAllowed {
		t.Errorf("%+v", got)
	}
	hanging := make(chan struct{})
	e := newConsenting(t, func(http.ResponseWriter) { <-hanging })
	defer close(hanging)
	short := func(t *Target) { t.Timeout = 200 * time.Millisecond }
	if got := newClient(t).Send(context.Background(), newRequest(t, e.URL, asking(0), short)); got.Reason != delivery.ReasonTimeout {
		t.Errorf("%+v", got)
	}
	for _, h := range []*Handshake{{}, {Origin: "a\r\nb"}, {Origin: "a.example", Rate: -1}} {
		r := newRequest(t, e.URL, func(t *Target) { t.Handshake = h })
		if err := r.Target.Check(); err == nil {
			t.Errorf("%+v is accepted", h)
		}
	}
}
