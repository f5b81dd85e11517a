package receiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
)

// vector is a row of testdata/vectors.json; vectors.py says what the fields mean.
type vector struct {
	Name             string          `json:"name"`
	Secret           string          `json:"secret"`
	OK               bool            `json:"ok"`
	Scheme           string          `json:"scheme"`
	Secrets          []string        `json:"secrets"`
	ToleranceSeconds int64           `json:"toleranceSeconds"`
	Now              int64           `json:"now"`
	Headers          [][2]string     `json:"headers"`
	Body             string          `json:"body"`
	BodyBase64       []byte          `json:"bodyBase64"`
	Want             *string         `json:"want"`
	Pattern          event.Pattern   `json:"pattern"`
	Resources        []string        `json:"resources"`
	On               []event.Pattern `json:"on"`
	Type             event.Type      `json:"type"`
	Method           string          `json:"method"`
	Handler          string          `json:"handler"`
	WantStatus       int             `json:"wantStatus"`
	WantHandled      int             `json:"wantHandled"`
}

func (v vector) body() []byte {
	if v.BodyBase64 != nil {
		return v.BodyBase64
	}
	return []byte(v.Body)
}

func (v vector) header() http.Header {
	h := http.Header{}
	for _, pair := range v.Headers {
		h.Add(pair[0], pair[1])
	}
	return h
}

func vectors(t *testing.T, section string) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var table map[string]json.RawMessage
	var rows []vector
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(table[section], &rows); err != nil || len(rows) < 10 {
		t.Fatalf("%d vectors of %s, %v", len(rows), section, err)
	}
	return rows
}

const knownKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func TestVectorsOfKeys(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t, "keys") {
		if _, err := New(Config{Secrets: []string{v.Secret}}); (err == nil) != v.OK {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

func TestVectorsOfSignatures(t *testing.T) {
	t.Parallel()
	verdicts := map[string]error{"ok": nil, "missing": signature.ErrMissing, "malformed": signature.ErrMalformed, "expired": signature.ErrExpired, "mismatch": signature.ErrMismatch}
	for _, v := range vectors(t, "verify") {
		scheme := Standard
		if v.Scheme == "body" {
			scheme = BodyOnly
		}
		r, err := New(Config{
			Secrets: v.Secrets, Scheme: scheme, Tolerance: time.Duration(v.ToleranceSeconds) * time.Second,
			Now: func() time.Time { return time.Unix(v.Now, 0) },
		})
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if _, err := r.verify(v.header(), v.body()); !errors.Is(err, verdicts[*v.Want]) {
			t.Errorf("%s: %v, want %s", v.Name, err, *v.Want)
		}
	}
}

func TestVectorsOfPatternsAndRoutes(t *testing.T) {
	t.Parallel()
	nothing := func(context.Context, Event) error { return nil }
	for _, v := range vectors(t, "patterns") {
		if _, err := New(Config{Secrets: []string{knownKey}, On: Routes{v.Pattern: nothing}, Resources: v.Resources}); (err == nil) != v.OK {
			t.Errorf("%q with %q: %v", v.Pattern, v.Resources, err)
		}
	}
	for _, v := range vectors(t, "routes") {
		got, on := "", Routes{}
		for _, pattern := range v.On {
			on[pattern] = func(context.Context, Event) error { got = string(pattern); return nil }
		}
		compiled, err := compile(on, nil)
		if err != nil {
			t.Fatal(err)
		}
		if handler := compiled.find(v.Type); handler != nil {
			_ = handler(t.Context(), Event{})
		}
		if want := v.Want; (want == nil && got != "") || (want != nil && got != *want) {
			t.Errorf("%q of %q goes to %q", v.Type, v.On, got)
		}
	}
}

func TestVectorsOfEvents(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t, "events") {
		if _, err := decode(v.body()); (err == nil) != v.OK {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

func TestVectorsOfAnswers(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t, "answers") {
		handled := 0
		r, err := New(Config{
			Secrets: v.Secrets, MaxBytes: 1024, Now: func() time.Time { return time.Unix(v.Now, 0) }, Observe: func(context.Context, Outcome) {},
			On: Routes{"appointment.*": func(context.Context, Event) error {
				handled++
				return map[string]error{"fail": errors.New("failed"), "later": RetryAfter(time.Minute, nil), "stop": ErrStop}[v.Handler]
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		request := httptest.NewRequestWithContext(t.Context(), v.Method, "/", bytes.NewReader(v.body()))
		request.Header = v.header()
		w := httptest.NewRecorder()
		r.ServeHTTP(w, request)
		if w.Code != v.WantStatus || handled != v.WantHandled {
			t.Errorf("%s: status %d, handled %d, want %d and %d", v.Name, w.Code, handled, v.WantStatus, v.WantHandled)
		}
	}
}
