package ingest

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

const structuredHeader = "Content-Type: application/cloudevents+json; charset=utf-8"

func TestPublishCloudEvent(t *testing.T) {
	t.Parallel()
	const path = "/v1/namespaces/clinic-a/events"
	id := cloudEventID("/ehr", "42")
	wantBody := `{"id":"` + id + `","event":"patient.created","type":"patient.created","timestamp":"2026-01-15T09:15:00.000Z","data":{"a": 1.0}}`
	f := newFixture(t)
	w := f.do("POST", path, `{"specversion":"1.0","id":"42","source":"/ehr","type":"patient.created","time":"2026-01-15T09:15:00Z",
		"datacontenttype":"application/fhir+json","subject":"pt","dataschema":null,"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","mine":7,"data":{"a": 1.0}}`, structuredHeader)
	if want := `{"id":"` + id + `","deliveries":2}` + "\n"; w.Code != http.StatusAccepted || w.Body.String() != want {
		t.Fatalf("structured: got %d %s, want %s", w.Code, w.Body, want)
	}
	stored := f.store.stored()[0].Event
	if string(stored.Body) != wantBody || stored.Traceparent != "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" {
		t.Errorf("stored %s, traceparent %q", stored.Body, stored.Traceparent)
	}

	// The same event, however it is written, is a repetition.
	for name, again := range map[string]func() *httptest.ResponseRecorder{
		"base64": func() *httptest.ResponseRecorder {
			return f.do("POST", path, `{"data_base64":"`+base64.StdEncoding.EncodeToString([]byte(" {\"a\": 1.0}\n"))+`","specversion":"1.0","id":"42","source":"/ehr","type":"patient.created","time":"2026-01-15T09:15:00Z"}`, structuredHeader)
		},
		"binary": func() *httptest.ResponseRecorder {
			return f.do("POST", path, "{\"a\": 1.0}\n", "Content-Type: application/fhir+json", "ce-specversion: 1.0", "ce-id: 4%32", "ce-source: /ehr", "ce-type: patient.created", "ce-time: 2026-01-15T09:15:00Z", "ce-mine: 7")
		},
		"batch": func() *httptest.ResponseRecorder {
			return f.do("POST", path, `[{"specversion":"1.0","id":"42","source":"/ehr","type":"patient.created","time":"2026-01-15T09:15:00Z","data":{"a": 1.0}}]`, "Content-Type: application/cloudevents-batch+json")
		},
	} {
		want := `{"id":"` + id + `","deliveries":2}`
		if name == "batch" {
			want = "[" + want + "]"
		}
		if w := again(); w.Code != http.StatusOK || w.Body.String() != want+"\n" {
			t.Errorf("%s: got %d %s", name, w.Code, w.Body)
		}
	}
	if stored := len(f.store.stored()); stored != 1 {
		t.Errorf("stored %d events", stored)
	}
}

// TestQuotedHeadersAreUnquoted: HTTP binding, section 3.1.3.2.
func TestQuotedHeadersAreUnquoted(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		`plain`:         `plain`,
		`"quoted"`:      `quoted`,
		`"a \"b\" \\c"`: `a "b" \c`,
		`"a%20b"`:       `a%20b`,
		`""`:            ``,
		`"`:             `"`,
		`"open`:         `"open`,
		`"open\"`:       `"open\"`,
		`"a" b`:         `"a" b`,
		`a "b"`:         `a "b"`,
		`1%"`:           `1%"`,
	} {
		if got := unquoteHeader(value); got != want {
			t.Errorf("%s says %s, want %s", value, got, want)
		}
	}
	f := newFixture(t)
	for i, headers := range [][]string{
		{"ce-id: 42", "ce-source: /ehr", "ce-type: patient.created", "ce-specversion: 1.0", "ce-time: 2026-01-15T09:15:00Z"},
		{`ce-id: "42"`, `ce-source: "/ehr"`, `ce-type: "patient.created"`, `ce-specversion: "1.0"`, `ce-time: "2026-01-15T09:15:00Z"`},
		{`ce-id: "4%32"`, `ce-source: %2Fehr`, `ce-type: "patient%2Ecreated"`, `ce-specversion: "1\.0"`, `ce-time: "2026-01-15T09:15:00Z"`},
	} {
		want := http.StatusAccepted
		if i > 0 {
			want = http.StatusOK // the same event again
		}
		w := f.do("POST", "/v1/namespaces/clinic-a/events", `{}`, append(headers, "Content-Type: application/json")...)
		if w.Code != want {
			t.Errorf("%v: got %d %s, want %d", headers, w.Code, w.Body, want)
		}
	}
}

// TestPublishCloudEventOfSDK sends what the CloudEvents SDK writes.
func TestPublishCloudEventOfSDK(t *testing.T) {
	t.Parallel()
	e := cloudevents.NewEvent()
	e.SetID("ä 1%\"")
	e.SetSource("https://ehr.example.com/a")
	e.SetType("lab.created")
	e.SetExtension("site", "Zürich")
	if err := e.SetData("application/json", map[string]any{"value": "µ"}); err != nil {
		t.Fatal(err)
	}
	for name, encode := range map[string]func(*http.Request) error{
		"structured": func(r *http.Request) error {
			return cehttp.WriteRequest(binding.WithForceStructured(t.Context()), binding.ToMessage(&e), r)
		},
		"binary": func(r *http.Request) error {
			return cehttp.WriteRequest(binding.WithForceBinary(t.Context()), binding.ToMessage(&e), r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			r := httptest.NewRequest(http.MethodPost, "/v1/namespaces/clinic-a/events", http.NoBody)
			if err := encode(r); err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			if w.Code != http.StatusAccepted {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			stored := f.store.stored()[0].Event
			if stored.ID != cloudEventID(e.Source(), e.ID()) || !strings.HasSuffix(string(stored.Body), `"data":{"value":"µ"}}`) {
				t.Errorf("stored %s", stored.Body)
			}
		})
	}
}

func TestPublishCloudEventRefused(t *testing.T) {
	t.Parallel()
	const rest = `"specversion":"1.0","id":"42","source":"/ehr","type":"patient.created"`
	batch := "Content-Type: application/cloudevents-batch+json"
	for name, tc := range map[string]struct {
		body       string
		headers    []string
		wantKind   *kind
		wantDetail string
	}{
		"no specversion":      {`{"id":"42","source":"/ehr","type":"patient.created","data":{}}`, []string{structuredHeader}, malformed, `no "specversion"`},
		"old specversion":     {`{"specversion":"0.3","id":"42","source":"/ehr","type":"patient.created","data":{}}`, []string{structuredHeader}, malformed, `must be "1.0"`},
		"no id":               {`{"specversion":"1.0","source":"/ehr","type":"patient.created","data":{}}`, []string{structuredHeader}, malformed, `no "id"`},
		"empty source":        {`{"specversion":"1.0","id":"42","source":"","type":"patient.created","data":{}}`, []string{structuredHeader}, malformed, `no "source"`},
		"no data":             {`{` + rest + `}`, []string{structuredHeader}, malformed, "no data"},
		"data null":           {`{` + rest + `,"data":null}`, []string{structuredHeader}, malformed, "no data"},
		"data a string":       {`{` + rest + `,"data":"{}"}`, []string{structuredHeader}, malformed, "data must be a JSON object"},
		"both data":           {`{` + rest + `,"data":{},"data_base64":"e30="}`, []string{structuredHeader}, malformed, "not both"},
		"bad base64":          {`{` + rest + `,"data_base64":"e30"}`, []string{structuredHeader}, malformed, "not base64"},
		"base64 of text":      {`{` + rest + `,"data_base64":"aGVsbG8="}`, []string{structuredHeader}, malformed, "not valid JSON"},
		"base64 of two":       {`{` + rest + `,"data_base64":"e317fQ=="}`, []string{structuredHeader}, malformed, "more bytes"},
		"base64 of nothing":   {`{` + rest + `,"data_base64":""}`, []string{structuredHeader}, malformed, "empty"},
		"xml":                 {`{` + rest + `,"datacontenttype":"text/xml","data":{}}`, []string{structuredHeader}, unsupportedMedia, "datacontenttype"},
		"twice":               {`{` + rest + `,"data":{},"id":"43"}`, []string{structuredHeader}, malformed, `"id" stands twice`},
		"extension twice":     {`{` + rest + `,"data":{},"mine":1,"mine":1}`, []string{structuredHeader}, malformed, `"mine" stands twice`},
		"extension an object": {`{` + rest + `,"data":{},"mine":{}}`, []string{structuredHeader}, malformed, `"mine" must be`},
		"extension name":      {`{` + rest + `,"data":{},"Mine":1}`, []string{structuredHeader}, malformed, `"Mine" is not the name`},
		"many extensions":     {`{` + rest + manyAttributes() + `,"data":{}}`, []string{structuredHeader}, malformed, "more than 64"},
		"bad time":            {`{` + rest + `,"data":{},"time":"now"}`, []string{structuredHeader}, malformed, "time must be"},
		"unknown type":        {strings.Replace(`{`+rest+`,"data":{}}`, "patient.created", "com.example.x", 1), []string{structuredHeader}, unknownType, "com.example.x"},
		"an array":            {`[{` + rest + `,"data":{}}]`, []string{structuredHeader}, malformed, "must be a JSON object"},
		"trailing":            {`{` + rest + `,"data":{}}{}`, []string{structuredHeader}, malformed, "more bytes"},
		"no batch":            {`{` + rest + `,"data":{}}`, []string{batch}, malformed, "must be a JSON array"},
		"empty batch body":    {``, []string{batch}, malformed, "empty"},
		"in a batch":          {`[{` + rest + `,"data":{}},{` + rest + `}]`, []string{batch}, malformed, "index 1"},
		"binary, incomplete":  {`{}`, []string{"ce-specversion: 1.0", "ce-id: 1", "ce-type: patient.created"}, malformed, `no "source"`},
		"binary, only id":     {`{"type":"patient.created","data":{}}`, []string{"ce-id: 1"}, malformed, `no "specversion"`},
		"binary, twice":       {`{}`, []string{"ce-specversion: 1.0", "ce-id: 1", "ce-id: 1"}, malformed, "more than once"},
		"binary, bad UTF-8":   {`{}`, []string{"ce-specversion: 1.0", "ce-id: %ff"}, malformed, "percent-encoded"},
		"binary, bad time":    {`{}`, []string{"ce-specversion: 1.0", "ce-time: x"}, malformed, "ce-time must be"},
		"binary, array":       {`[]`, []string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: s", "ce-type: patient.created"}, malformed, "must be a JSON object"},
		"binary, empty":       {``, []string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: s", "ce-type: patient.created"}, malformed, "empty"},
		"binary, too large":   {strings.Repeat(" ", 1<<20) + `{}`, []string{"ce-specversion: 1.0"}, tooLarge, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			wantProblem(t, f.do("POST", "/v1/namespaces/clinic-a/events", tc.body, tc.headers...), tc.wantKind, tc.wantDetail)
			if stored := f.store.stored(); len(stored) != 0 {
				t.Errorf("stored %v", stored)
			}
		})
	}
}

// manyAttributes are more extension attributes than a CloudEvent may have.
func manyAttributes() string {
	var b strings.Builder
	for i := range maxExtensions {
		b.WriteString(`,"x` + strings.Repeat("y", i) + `":1`)
	}
	return b.String()
}

func TestCloudEventIDIsUnambiguous(t *testing.T) {
	t.Parallel()
	if cloudEventID("a", "bc") == cloudEventID("ab", "c") {
		t.Error("two events share an id")
	}
}
