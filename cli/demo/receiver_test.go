package demo

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/api/signature"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const body = `{"id":"evt_1","event":"patient.created","type":"patient.created","timestamp":"2026-01-15T09:15:00.000Z","data":{"resourceId":"pt_1"}}`

// delivery is a signed request as a dispatcher sends it.
func delivery(t *testing.T, id, attempt string) *http.Request {
	t.Helper()
	keys, err := parseKeys([]string{"a signing key of plain text"})
	if err != nil {
		t.Fatal(err)
	}
	sent := http.Header{}
	keys.Header(sent, id, time.Now(), []byte(body))
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/hooks", strings.NewReader(body))
	for name, values := range sent {
		request.Header.Set(name, values[0])
	}
	request.Header.Set("X-Clinik-Attempt", attempt)
	return request
}

func TestReceive(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		receiver   *receiver
		requests   []string // attempt numbers, all of one delivery
		change     func(*http.Request)
		wantStatus []int
		wantLast   string
	}{
		"once":             {requests: []string{"1"}, wantStatus: []int{200}, wantLast: "/hooks               patient.created       pt_1         attempt 1  signatures ok"},
		"twice":            {requests: []string{"1", "1"}, wantStatus: []int{200, 200}, wantLast: "signatures ok, duplicate"},
		"fails first":      {receiver: &receiver{failFirst: 2}, requests: []string{"1", "2", "3"}, wantStatus: []int{503, 503, 200}, wantLast: "attempt 3  signatures ok"},
		"fails always":     {receiver: &receiver{failPercent: 100}, requests: []string{"1"}, wantStatus: []int{503}, wantLast: "signatures ok, told to fail"},
		"other key":        {change: func(r *http.Request) { r.Header.Set(signature.HeaderStandard, "v1,AAAA") }, requests: []string{"1"}, wantStatus: []int{401}, wantLast: "REFUSED: webhook-signature: no signature matches"},
		"one scheme wrong": {change: func(r *http.Request) { r.Header.Set(signature.HeaderBody, strings.Repeat("0", 64)) }, requests: []string{"1"}, wantStatus: []int{401}, wantLast: "REFUSED: X-Clinik-Signature: no signature matches"},
		"no signature":     {change: func(r *http.Request) { r.Header.Del(signature.HeaderStandard) }, requests: []string{"1"}, wantStatus: []int{401}, wantLast: "a signature header is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := tc.receiver
			if r == nil {
				r = &receiver{}
			}
			r.keys, _ = parseKeys([]string{"another key of plain text", "a signing key of plain text"})
			var printed []string
			r.report = func(a attempt) { printed = append(printed, a.String()) }
			var status []int
			for _, attempt := range tc.requests {
				request := delivery(t, "dlv_1", attempt)
				if tc.change != nil {
					tc.change(request)
				}
				answer := httptest.NewRecorder()
				r.handler().ServeHTTP(answer, request)
				status = append(status, answer.Code)
			}
			if !slices.Equal(status, tc.wantStatus) {
				t.Errorf("answers %v, want %v", status, tc.wantStatus)
			}
			if last := printed[len(printed)-1]; !strings.HasSuffix(last, tc.wantLast) {
				t.Errorf("printed %q, want its end to be %q", last, tc.wantLast)
			}
		})
	}
}

func TestRememberIsBounded(t *testing.T) {
	t.Parallel()
	r := &receiver{}
	for i := range maxRemembered + 1 {
		r.remember(string(rune(i)) + "x")
	}
	if len(r.seen) != maxRemembered || len(r.order) != maxRemembered {
		t.Errorf("%d and %d remembered, want %d", len(r.seen), len(r.order), maxRemembered)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		answers   []int // the last one again
		patience  time.Duration
		wantError string
		wantCalls int32
		want      string
	}{
		"accepted":            {answers: []int{202}, wantCalls: 2, want: strings.Repeat(`202 {"id":"e1","deliveries":2}`+"\n", 2)},
		"known already":       {answers: []int{200}, wantCalls: 2, want: strings.Repeat(`200 {"id":"e1","deliveries":2}`+"\n", 2)},
		"away, then there":    {answers: []int{503, 202}, patience: time.Minute, wantCalls: 3},
		"away, no patience":   {answers: []int{503}, wantError: "503", wantCalls: 1},
		"refused at once":     {answers: []int{403}, patience: time.Minute, wantError: "403", wantCalls: 1},
		"redirected, refused": {answers: []int{304}, patience: time.Minute, wantError: "304", wantCalls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("Authorization"); got != "Bearer s3cret" || r.URL.Path != "/v1/namespaces/clinic-a/events" {
					t.Errorf("posted to %s with %q", r.URL.Path, got)
				}
				w.WriteHeader(tc.answers[min(int(calls.Add(1)), len(tc.answers))-1])
				_, _ = io.WriteString(w, `{"id":"e1","deliveries":2}`)
			}))
			t.Cleanup(server.Close)
			out := &strings.Builder{}
			p := publisher{to: server.URL, namespace: "clinic-a", tokenFile: token, event: `{"id":"e#","type":"lab.created"}`, count: 2, patience: tc.patience, transport: server.Client().Transport, out: out}
			err := p.run(t.Context())
			if (err == nil) != (tc.wantError == "") || (err != nil && !strings.Contains(err.Error(), tc.wantError)) {
				t.Errorf("error %v, want %q", err, tc.wantError)
			}
			if calls.Load() != tc.wantCalls {
				t.Errorf("%d calls, want %d", calls.Load(), tc.wantCalls)
			}
			if tc.want != "" && out.String() != tc.want {
				t.Errorf("it prints %s, want %s", out, tc.want)
			}
		})
	}
}

// TestPublishRefusesWhatItWouldChange: what the flag says is published whole, or not at all.
func TestPublishRefusesWhatItWouldChange(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`[]`, `{"type":"lab.created","more":1}`, `{} {}`, `{`} {
		p := publisher{to: "http://127.0.0.1:1", namespace: "clinic-a", event: text, count: 1, out: io.Discard}
		if err := p.run(t.Context()); err == nil || !strings.Contains(err.Error(), "read the event") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
