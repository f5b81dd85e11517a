package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

func TestPublish(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	w := f.publish(`{"id":"evt-1","type":"patient.created","timestamp":"2026-01-15T10:15:00.1239+01:00","data":{ "a" : [1e2, "\u00e9"] },"previous":{"a":0}}`,
		"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if w.Code != http.StatusAccepted || w.Body.String() != `{"id":"evt-1","deliveries":2}`+"\n" || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
	stored := f.store.stored()
	if len(stored) != 1 {
		t.Fatalf("stored %d events", len(stored))
	}
	e := stored[0].Event
	wantBody := `{"id":"evt-1","event":"patient.created","type":"patient.created","timestamp":"2026-01-15T09:15:00.123Z","data":{ "a" : [1e2, "\u00e9"] }}`
	if string(e.Body) != wantBody || cap(e.Body) != len(e.Body) {
		t.Errorf("body is %s (capacity %d for %d)", e.Body, cap(e.Body), len(e.Body))
	}
	if e.Tenant != "clinic-a" || e.Type != "patient.created" || e.Traceparent != "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" {
		t.Errorf("event is %+v", e)
	}
	handed := f.handed()
	if len(handed) != 2 || handed[0].Event != e || handed[0].ID.Subscription != event.NewSubscriptionKey("clinic-a/patients") {
		t.Errorf("the engine was handed %+v", handed)
	}
}

// TestJSONIsTakenAsItIs: what RFC 8259 allows is delivered byte for byte, though I-JSON (RFC 7493) refuses it.
func TestJSONIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"a surrogate alone":        `{"a":"\ud83d"}`,
		"the second one":           `{"a":"\ude00 x"}`,
		"in a key":                 `{"a\ud83d":1,"a\ud83e":2}`,
		"a name twice":             `{"a":1,"a":2}`,
		"a large number":           `{"a":1e400,"b":123456789012345678901234567890.0}`,
		"NUL":                      `{"a":"\u0000"}`,
		"as deep as it may be":     strings.Repeat(`{"a":`, maxDepth-1) + `{}` + strings.Repeat(`}`, maxDepth-1),
		"brackets within a string": `{"a":"` + strings.Repeat("[", 2*maxDepth) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			if w := f.publish(`{"type":"patient.created","data":` + data + `}`); w.Code != http.StatusAccepted {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			full := f.store.stored()[0].Event.Body
			if !strings.HasSuffix(string(full), `"data":`+data+`}`) {
				t.Errorf("stored %s", full)
			}
			if thin, err := event.ThinBody(full); err != nil || !strings.HasSuffix(string(thin), `"data":{}}`) {
				t.Errorf("thin is %s, %v", thin, err)
			}
		})
	}
}

// TestWebPagesPublishNothing: where there is no authentication, what a page can send from a browser is refused.
func TestWebPagesPublishNothing(t *testing.T) {
	t.Parallel()
	const events, replay = "/v1/namespaces/clinic-a/events", "/v1/namespaces/clinic-a/deliveries/replay"
	for name, tc := range map[string]struct {
		path    string
		headers []string
		want    int
	}{
		"no content type":           {events, nil, 415},
		"text":                      {events, []string{"Content-Type: text/plain"}, 415},
		"form":                      {events, []string{"Content-Type: application/x-www-form-urlencoded"}, 415},
		"JSON":                      {events, []string{"Content-Type: application/json"}, 202},
		"cloud event, no type":      {events, []string{"ce-id: 1", "ce-source: s", "ce-specversion: 1.0", "ce-type: patient.created"}, 202},
		"JSON, of another origin":   {events, []string{"Content-Type: application/json", "Origin: https://evil.example"}, 403},
		"JSON, of another site":     {events, []string{"Content-Type: application/json", "Sec-Fetch-Site: cross-site"}, 403},
		"replay, of another origin": {replay, []string{"Content-Type: text/plain", "Origin: https://evil.example"}, 403},
		"replay, of no page":        {replay, nil, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if w := newFixture(t).do("POST", tc.path, oneEvent, tc.headers...); w.Code != tc.want {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tc.want)
			}
		})
	}
}

// TestPublishOutlivesItsClient stores what was sent although nobody waits for the answer, and hands on what it stored.
func TestPublishOutlivesItsClient(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, leave := context.WithCancel(t.Context())
	leave()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/namespaces/clinic-a/events", strings.NewReader(oneEvent))
	r.Header.Set("Content-Type", "application/json")
	f.ServeHTTP(httptest.NewRecorder(), r)
	if stored, handed := len(f.store.stored()), len(f.handed()); stored != 1 || handed != 2 {
		t.Errorf("stored %d, handed on %d", stored, handed)
	}
}

func TestPublishFillsIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		w := f.publish(`{"type":"note.deleted","data":{},"id":null,"timestamp":null,"previous":null}`)
		var answer struct {
			ID         string
			Deliveries int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusAccepted {
			t.Fatalf("got %d %s: %v", w.Code, w.Body, err)
		}
		stored := f.store.stored()[0].Event
		if !strings.HasPrefix(answer.ID, "evt_") || answer.ID != stored.ID || answer.Deliveries != 1 {
			t.Errorf("answered %+v for %+v", answer, stored)
		}
		want := `"timestamp":"` + time.Now().UTC().Format(event.TimeFormat) + `"`
		if !strings.Contains(string(stored.Body), want) {
			t.Errorf("body %s does not hold %s", stored.Body, want)
		}
	})
}

// TestOnlyIDsMadeHereAreFresh guards what lets the store skip its search: an id that a producer sent may be known to it.
func TestOnlyIDsMadeHereAreFresh(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	w := f.publish(`[{"id":"a","type":"lab.updated","data":{}},{"type":"lab.updated","data":{}},{"id":"b","type":"lab.updated","data":{}}]`)
	if w.Code != http.StatusAccepted {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	for _, e := range f.store.stored() {
		if want := e.Event.ID != "a" && e.Event.ID != "b"; e.Fresh != want {
			t.Errorf("fresh is %t for %s, want %t", e.Fresh, e.Event.ID, want)
		}
	}
}

func TestPublishMatchesNamespace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for path, want := range map[string]string{"clinic-a": `"deliveries":3}`, "clinic-b": `"deliveries":1}`, "clinic-c": `"deliveries":0}`} {
		w := f.do("POST", "/v1/namespaces/"+path+"/events", `{"type":"lab.created","data":{}}`, "Content-Type: application/json")
		if path == "clinic-a" {
			want = `"deliveries":2}`
		}
		if w.Code != http.StatusAccepted || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: got %d %s, want %s", path, w.Code, w.Body, want)
		}
	}
}

func TestPublishRepeated(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const first = `{"id":"e","type":"patient.created","data":{"a":1},"previous":{}}`
	if w := f.publish(first); w.Code != http.StatusAccepted {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if w := f.publish(" " + first + "\n"); w.Code != http.StatusOK || w.Body.String() != `{"id":"e","deliveries":2}`+"\n" {
		t.Errorf("the same again: got %d %s", w.Code, w.Body)
	}
	for name, body := range map[string]string{
		"data":      `{"id":"e","type":"patient.created","data":{"a":2},"previous":{}}`,
		"previous":  `{"id":"e","type":"patient.created","data":{"a":1}}`,
		"type":      `{"id":"e","type":"patient.updated","data":{"a":1},"previous":{}}`,
		"timestamp": `{"id":"e","type":"patient.created","data":{"a":1},"previous":{},"timestamp":"2026-01-15T09:15:00Z"}`,
	} {
		got := wantProblem(t, f.publish(body), idConflict, "id e ")
		if got.Index != nil {
			t.Errorf("%s: index is %d", name, *got.Index)
		}
	}
	if stored, handed := len(f.store.stored()), len(f.handed()); stored != 1 || handed != 2 {
		t.Errorf("stored %d, handed on %d", stored, handed)
	}
}

func TestPublishBatch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	w := f.publish(`[ {"id":"a","type":"patient.created","data":{}} , {"id":"b","type":"lab.updated","data":{}} ]`)
	if want := `[{"id":"a","deliveries":2},{"id":"b","deliveries":1}]` + "\n"; w.Code != http.StatusAccepted || w.Body.String() != want {
		t.Errorf("got %d %s, want %s", w.Code, w.Body, want)
	}
	w = f.publish(`[{"id":"a","type":"patient.created","data":{}},{"id":"c","type":"lab.updated","data":{}}]`)
	if want := `[{"id":"a","deliveries":2},{"id":"c","deliveries":1}]` + "\n"; w.Code != http.StatusAccepted || w.Body.String() != want {
		t.Errorf("partly new: got %d %s, want %s", w.Code, w.Body, want)
	}
	if w = f.publish(`[{"id":"a","type":"patient.created","data":{}},{"id":"c","type":"lab.updated","data":{}}]`); w.Code != http.StatusOK {
		t.Errorf("all repeated: got %d %s", w.Code, w.Body)
	}
	if w = f.publish(`[]`); w.Code != http.StatusOK || w.Body.String() != "[]\n" {
		t.Errorf("none: got %d %s", w.Code, w.Body)
	}
	got := wantProblem(t, f.publish(`[{"id":"d","type":"lab.updated","data":{}},{"id":"a","type":"patient.created","data":{"x":1}}]`), idConflict, "index 1", "id a ")
	if got.Index == nil || *got.Index != 1 {
		t.Errorf("index is %v", got.Index)
	}
	for i, subscriptions := range []int{2, 1, 1} {
		if e := f.store.stored()[i]; len(e.Subscriptions) != subscriptions {
			t.Errorf("event %s has %d subscriptions, want %d", e.Event.ID, len(e.Subscriptions), subscriptions)
		}
	}
	if stored := len(f.store.stored()); stored != 3 {
		t.Errorf("stored %d events", stored)
	}
}

func TestPublishRefused(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"a":`, maxDepth) + `{}` + strings.Repeat(`}`, maxDepth)
	for name, tc := range map[string]struct {
		body        string
		wantKind    *kind
		wantDetails []string
	}{
		"empty":                  {"", malformed, []string{"empty"}},
		"white space":            {" \n", malformed, []string{"empty"}},
		"not JSON":               {"hello", malformed, []string{"byte 0"}},
		"cut":                    {`{"type":"patient.created","data":{`, malformed, []string{"ends in the middle"}},
		"cut array":              {`[{"type":"patient.created","data":{}}`, malformed, []string{"ends in the middle"}},
		"not an object":          {`"patient.created"`, malformed, []string{"must be a JSON object"}},
		"null":                   {`null`, malformed, []string{"must be a JSON object"}},
		"array of numbers":       {`[1]`, malformed, []string{"index 0", "must be a JSON object"}},
		"trailing":               {`{"type":"patient.created","data":{}} {}`, malformed, []string{"more bytes"}},
		"trailing garbage":       {`{"type":"patient.created","data":{}}x`, malformed, []string{"more bytes", "byte 36"}},
		"trailing behind array":  {`[{"type":"patient.created","data":{}}]]`, malformed, []string{"more bytes"}},
		"trailing comma":         {`{"type":"patient.created","data":{},}`, malformed, []string{"not valid JSON"}},
		"unknown key":            {`{"type":"patient.created","data":{},"dtaa":1}`, malformed, []string{`no key "dtaa"`, eventKeys}},
		"key in another case":    {`{"Type":"patient.created","data":{}}`, malformed, []string{`no key "Type"`}},
		"cloud event":            {`{"specversion":"1.0","type":"patient.created","data":{}}`, malformed, []string{cloudEventType}},
		"key twice":              {`{"type":"patient.created","data":{},"data":{}}`, malformed, []string{`"data" stands twice`}},
		"escaped key twice":      {`{"type":"patient.created","data":{},"dat\u0061":{}}`, malformed, []string{`"data" stands twice`}},
		"no type":                {`{"data":{}}`, malformed, []string{`no "type"`}},
		"null type":              {`{"type":null,"data":{}}`, malformed, []string{`no "type"`}},
		"type a number":          {`{"type":1,"data":{}}`, malformed, []string{"type must be a string"}},
		"no data":                {`{"type":"patient.created"}`, malformed, []string{`no "data"`}},
		"null data":              {`{"type":"patient.created","data":null}`, malformed, []string{"data must be a JSON object"}},
		"data an array":          {`{"type":"patient.created","data":[]}`, malformed, []string{"data must be a JSON object"}},
		"previous a string":      {`{"type":"patient.created","data":{},"previous":"x"}`, malformed, []string{"previous must be a JSON object"}},
		"deep":                   {`{"type":"patient.created","data":` + deep + `}`, malformed, []string{"deeper than 500"}},
		"very deep":              {`{"type":"patient.created","data":` + strings.Repeat("[", 20000), malformed, []string{"nests deeper than 500 levels"}},
		"100,000 deep":           {`{"type":"patient.created","data":{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}}`, malformed, []string{"nests deeper than 500 levels"}},
		"invalid UTF-8":          {"{\"type\":\"patient.created\",\"data\":{\"a\":\"\xff\"}}", malformed, []string{"UTF-8"}},
		"half a surrogate, type": {`{"type":"patient.created\ud800","data":{}}`, malformed, []string{"surrogate"}},
		"half a surrogate, key":  {`{"type":"patient.created","data":{},"a\ud800":1}`, malformed, []string{"no key"}},
		"empty id":               {`{"id":"","type":"patient.created","data":{}}`, malformed, []string{"id is not valid", "1 to 128"}},
		"id with NUL":            {`{"id":"a\u0000","type":"patient.created","data":{}}`, malformed, []string{"id is not valid"}},
		"long id":                {`{"id":"` + strings.Repeat("a", 129) + `","type":"patient.created","data":{}}`, malformed, []string{"id is not valid"}},
		"id a number":            {`{"id":7,"type":"patient.created","data":{}}`, malformed, []string{"id must be a string"}},
		"no time":                {`{"timestamp":"yesterday","type":"patient.created","data":{}}`, malformed, []string{"timestamp must be an RFC 3339 time"}},
		"time without zone":      {`{"timestamp":"2026-01-15T09:15:00","type":"patient.created","data":{}}`, malformed, []string{"RFC 3339"}},
		"time beyond year 9999":  {`{"timestamp":"9999-12-31T23:59:59-01:00","type":"patient.created","data":{}}`, malformed, []string{"years"}},
		"unknown type":           {`{"type":"patient.exploded","data":{}}`, unknownType, []string{`"patient.exploded"`, "practitioner-role"}},
		"pattern":                {`{"type":"patient.*","data":{}}`, unknownType, []string{`"patient.*"`}},
		"unknown type in a row":  {`[{"type":"patient.created","data":{}},{"type":"x","data":{}}]`, unknownType, []string{"index 1", `"x"`}},
		"one of them malformed":  {`[{"type":"patient.created","data":{}},{"type":"patient.created"}]`, malformed, []string{"index 1"}},
		"too many":               {"[" + strings.Repeat(`{"type":"patient.created","data":{}},`, 1000) + `{}]`, tooLarge, []string{"more than 1000"}},
		"too large":              {`{"type":"patient.created","data":{"a":"` + strings.Repeat("a", 1<<20) + `"}}`, tooLarge, []string{"at most 1048576"}},
		"one of them too large":  {`[{"type":"lab.created","data":{}},{"type":"patient.created","data":{"a":"` + strings.Repeat("a", 1<<20) + `"}}]`, tooLarge, []string{"index 1", "at most 1048576"}},
		"two MiB":                {strings.Repeat("x", 2<<20), tooLarge, nil},
		"more than 8 MiB":        {"[" + strings.Repeat(" ", 8<<20) + "]", tooLarge, []string{"8388608"}},
		"much more than 8 MiB":   {strings.Repeat("[", 20<<20), tooLarge, []string{"8388608"}},
		"text behind an ID only": {`{"id":"x"`, malformed, []string{"ends in the middle"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			wantProblem(t, f.publish(tc.body), tc.wantKind, tc.wantDetails...)
			if stored := f.store.stored(); len(stored) != 0 || len(f.handed()) != 0 {
				t.Errorf("stored %v", stored)
			}
			if used := f.memory.budget.Used(); used != 0 {
				t.Errorf("%d bytes stay reserved", used)
			}
		})
	}
}

func TestPublishBounds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const around = len(`{"type":"patient.created","data":{"a":""}}`)
	exact := `{"type":"patient.created","data":{"a":"` + strings.Repeat("a", 1<<20-around) + `"}}`
	if w := f.publish("\n" + exact + "\n"); w.Code != http.StatusAccepted {
		t.Errorf("an event of 1 MiB: got %d %s", w.Code, w.Body)
	}
	full := "[" + strings.TrimSuffix(strings.Repeat(exact+",", 7), ",") + "]"
	full += strings.Repeat(" ", 8<<20-len(full))
	if w := f.publish(full); w.Code != http.StatusAccepted {
		t.Errorf("a request of 8 MiB: got %d %s", w.Code, w.Body)
	}
	thousand := "[" + strings.TrimSuffix(strings.Repeat(`{"type":"patient.created","data":{}},`, 1000), ",") + "]"
	if w := f.publish(thousand); w.Code != http.StatusAccepted {
		t.Errorf("1,000 events: got %d %s", w.Code, w.Body)
	}
	wantProblem(t, newFixture(t, func(o *Options) { o.MaxEventBytes = around }).publish(`{"type":"patient.created","data":{"a":"x"}}`), tooLarge)
}

func TestPublishContentType(t *testing.T) {
	t.Parallel()
	const good = `{"type":"patient.created","data":{}}`
	for name, tc := range map[string]struct {
		headers  []string
		wantCode int
	}{
		"JSON":              {[]string{"Content-Type: application/json"}, 202},
		"with charset":      {[]string{"Content-Type: Application/JSON; charset=UTF-8"}, 202},
		"none":              {nil, 202},
		"identity":          {[]string{"Content-Type: application/json", "Content-Encoding: identity"}, 202},
		"other charset":     {[]string{"Content-Type: application/json; charset=latin1"}, 415},
		"text":              {[]string{"Content-Type: text/plain"}, 415},
		"form":              {[]string{"Content-Type: application/x-www-form-urlencoded"}, 415},
		"broken":            {[]string{"Content-Type: application/json; ="}, 415},
		"two":               {[]string{"Content-Type: application/json", "Content-Type: text/plain"}, 415},
		"other JSON":        {[]string{"Content-Type: application/fhir+json"}, 415},
		"gzip":              {[]string{"Content-Encoding: gzip"}, 415},
		"text, cloud event": {[]string{"Content-Type: text/plain", "Ce-Specversion: 1.0"}, 415},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newAPIServer(publishA) // without authentication the type has to be named, see TestWebPagesPublishNothing
			f := newFixture(t, func(o *Options) { o.Authorizer = newKubernetes(t, server) })
			w := f.do("POST", "/v1/namespaces/clinic-a/events", good, append(tc.headers, "Authorization: Bearer good-ehr")...)
			if w.Code != tc.wantCode {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tc.wantCode)
			}
			if tc.wantCode != 202 {
				wantProblem(t, w, unsupportedMedia)
			}
		})
	}
}

func TestPublishWithoutTable(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *Options) { o.Routes = func() *routing.Table { return nil } })
	w := f.publish(`{"type":"patient.created","data":{}}`)
	wantProblem(t, w, unavailable)
	if w.Header().Get("Retry-After") != "1" {
		t.Errorf("headers are %v", w.Header())
	}
}

func TestPublishStoreFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err            error
		wantRetryAfter string
	}{
		"full":   {fmt.Errorf("append: %w", store.ErrFull), "10"},
		"no key": {fmt.Errorf("append: %w", store.ErrKeys), "5"},
		"closed": {store.ErrClosed, "1"},
		"other":  {errors.New("/var/lib/eventflow/000012.log: no such device"), "2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.store.failing(tc.err)
			w := f.publish(`{"id":"a","type":"patient.created","data":{}}`)
			got := wantProblem(t, w, unavailable)
			if w.Header().Get("Retry-After") != tc.wantRetryAfter || strings.Contains(got.Detail, "/var") {
				t.Errorf("headers are %v, detail %s", w.Header(), got.Detail)
			}
			f.store.failing(nil)
			if w := f.publish(`{"id":"a","type":"patient.created","data":{}}`); w.Code != http.StatusAccepted {
				t.Errorf("later: got %d %s", w.Code, w.Body)
			}
		})
	}
}

func TestPublishNamespaces(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *Options) {
		o.Tenant = func(_ context.Context, namespace, _ string) (string, bool, error) {
			if namespace == "busy" {
				return "", false, ErrBusy
			}
			return namespace, namespace == "clinic-a", nil
		}
	})
	const good = `{"type":"patient.created","data":{}}`
	for namespace, want := range map[string]int{
		"clinic-a": 202, "busy": 429, "clinic-b": 404, "Clinic": 404, "-a": 404, "a.b": 404, "a%00": 404, "clinic%2Da": 404,
		"a%2Fb": 404, strings.Repeat("a", 64): 404, "": 404, "..": 404,
	} {
		w := f.do("POST", "/v1/namespaces/"+namespace+"/events", good, "Content-Type: application/json")
		if w.Code != want {
			t.Errorf("%q: got %d %s, want %d", namespace, w.Code, w.Body, want)
		}
	}
	if stored := len(f.store.stored()); stored != 1 {
		t.Errorf("stored %d events", stored)
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for request, want := range map[string]*kind{
		"GET /":                                              notFound,
		"POST /v1/namespaces/clinic-a":                       notFound,
		"POST /v1/namespaces/clinic-a/events/":               notFound,
		"POST /v1/namespaces/clinic-a/":                      notFound,
		"POST //v1/namespaces/clinic-a/events":               notFound,
		"GET /v1/namespaces/clinic-a/deliveries/":            notFound,
		"GET /v1/namespaces/clinic-a/deliveries/x":           notFound,
		"GET /v1/namespaces/clinic-a/deliveries/x/y":         notFound,
		"POST /v1/namespaces/clinic-a/deliveries/x/y/replay": notFound,
		"GET /v1/namespaces/clinic-a/events":                 methodNotAllowed,
		"PUT /v1/namespaces/clinic-a/events":                 methodNotAllowed,
		"POST /v1/namespaces/clinic-a/deliveries":            methodNotAllowed,
		"DELETE /v1/namespaces/clinic-a/deliveries/x":        methodNotAllowed,
		"GET /v1/namespaces/clinic-a/deliveries/replay":      methodNotAllowed,
	} {
		method, path, _ := strings.Cut(request, " ")
		w := f.do(method, path, "")
		got := wantProblem(t, w, want)
		if want == methodNotAllowed && !strings.Contains(got.Detail, w.Header().Get("Allow")) {
			t.Errorf("%s: allowed is %q, detail %s", request, w.Header().Get("Allow"), got.Detail)
		}
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const good = `{"type":"patient.created","data":{}}`
	if w := f.publish(good); w.Header().Get("Connection") != "" {
		t.Errorf("before: headers are %v", w.Header())
	}
	f.Drain()
	if w := f.publish(good); w.Code != http.StatusAccepted || w.Header().Get("Connection") != "close" {
		t.Errorf("got %d, headers %v", w.Code, w.Header())
	}
	if w := f.publish("x"); w.Header().Get("Connection") != "close" {
		t.Errorf("a problem's headers are %v", w.Header())
	}
}
