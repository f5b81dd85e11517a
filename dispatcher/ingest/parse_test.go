package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/clinikapi/eventflow/api/event"
)

func newParser(t testing.TB) *parser {
	t.Helper()
	catalog, err := event.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	return &parser{catalog: catalog, maxEvent: defaultMaxEventBytes}
}

// TestDataStaysAsItIs compares data with what was sent, for random JSON in all its spellings.
func TestDataStaysAsItIs(t *testing.T) {
	t.Parallel()
	p := newParser(t)
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		w := &jsonWriter{random: random}
		w.object(6)
		data := w.text
		text := fmt.Sprintf("%s{%s\"data\"%s:%s%s%s,%s\"type\":\"patient.created\"%s}%s", w.spaces(), w.spaces(), w.spaces(), w.spaces(), data, w.spaces(), w.spaces(), w.spaces(), w.spaces())
		events, batch, err := p.plain([]byte(text), nil)
		if err != nil || batch || len(events) != 1 {
			t.Fatalf("%s: got %d events, %v", text, len(events), err)
		}
		if !bytes.Equal(events[0].data, data) {
			t.Fatalf("got  %s\nwant %s", events[0].data, data)
		}
		binary := incoming{}
		header := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"s"}, "Ce-Type": {"patient.created"}}
		if err := p.binary(header, slices.Concat([]byte("\n"), data, []byte(" ")), &binary); err != nil || !bytes.Equal(binary.data, data) {
			t.Fatalf("binary: %v, got %s\nwant %s", err, binary.data, data)
		}
	}
}

// jsonWriter writes random JSON with odd spacing, escapes, duplicate keys and numbers that no float holds.
type jsonWriter struct {
	random *rand.Rand
	text   []byte
}

func (w *jsonWriter) spaces() string {
	return strings.Repeat([]string{" ", "\t", "\n", "\r\n"}[w.random.IntN(4)], max(0, w.random.IntN(5)-2))
}

func (w *jsonWriter) write(parts ...string) {
	for _, part := range parts {
		w.text = append(w.text, part...)
	}
}

func (w *jsonWriter) object(depth int) {
	w.write("{", w.spaces())
	for i := range w.random.IntN(5) {
		if i > 0 {
			w.write(",", w.spaces())
		}
		w.string()
		w.write(w.spaces(), ":", w.spaces())
		w.value(depth - 1)
		w.write(w.spaces())
	}
	w.write("}")
}

func (w *jsonWriter) string() {
	parts := []string{"a", "a", "data", `\u0061`, `\/`, "/", "é", `\u00e9`, `\ud83d\ude00`, "😀", `\"`, `\\`, `\n`, " ", "\u2028", "<", "{", "]", "\x7f", `\u0000`}
	w.write(`"`)
	for range w.random.IntN(4) {
		w.write(parts[w.random.IntN(len(parts))])
	}
	w.write(`"`)
}

func (w *jsonWriter) value(depth int) {
	scalars := []string{"null", "true", "false", "0", "-0", "1e2", "1E+02", "0.10", "1.0", "-1.50e-7", "12345678901234567890123", "1e400", "0.1000000000000000055511151231257827"}
	switch kind := w.random.IntN(8); {
	case kind == 0 && depth > 0:
		w.object(depth)
	case kind == 1 && depth > 0:
		w.write("[", w.spaces())
		for i := range w.random.IntN(4) {
			if i > 0 {
				w.write(w.spaces(), ",", w.spaces())
			}
			w.value(depth - 1)
		}
		w.write(w.spaces(), "]")
	case kind < 4:
		w.string()
	default:
		w.write(scalars[w.random.IntN(len(scalars))])
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	p := newParser(t)
	long := event.Type(strings.Repeat("x", 100))
	different := []incoming{
		{eventType: "a.created", data: []byte("{}")},
		{eventType: "a.created", data: []byte("{ }")},
		{eventType: "a.updated", data: []byte("{}")},
		{eventType: "a.created", data: []byte("{}"), previous: []byte("{}")},
		{eventType: "a.created", data: []byte("{}"), timestampText: []byte("2026")},
		{eventType: "a.created", data: []byte("{}"), timestampText: []byte("")},
		{eventType: "a.created{}", data: []byte("")},
		{eventType: "", data: []byte("a.created{}")},
		{eventType: "a.created", data: []byte(""), previous: []byte("{}")},
		{eventType: long, data: []byte("{}")},
		{eventType: long[1:], data: []byte("x{}")},
	}
	seen := map[[16]byte]int{}
	for i := range different {
		digest := p.digest(&different[i])
		if other, ok := seen[digest]; ok {
			t.Errorf("%d and %d have the same digest", other, i)
		}
		seen[digest] = i
		if digest != newParser(t).digest(&different[i]) {
			t.Errorf("%d: the digest depends on what came before", i)
		}
	}
}

func TestTooDeep(t *testing.T) {
	t.Parallel()
	nested := func(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }
	for name, tc := range map[string]struct {
		text string
		want bool
	}{
		"flat":            {`{"a":1}`, false},
		"wide":            {`[` + strings.Repeat(`{},`, 1000) + `{}]`, false},
		"brackets quoted": {`["` + strings.Repeat(`[\"{\\`, 1000) + `"]`, false},
		"at the bound":    {nested(maxDepth), false},
		"beyond":          {nested(maxDepth + 1), true},
		"wide and beyond": {`[` + strings.Repeat(`"\"]",[],`, 1000) + nested(maxDepth) + `]`, true},
	} {
		if got := tooDeep([]byte(tc.text)); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for name, tc := range map[string]struct {
		values []string
		want   string
	}{
		"good":          {[]string{good}, good},
		"later version": {[]string{"cc" + good[2:] + "-what-ever"}, "cc" + good[2:]},
		"none":          {nil, ""},
		"two":           {[]string{good, good}, ""},
		"empty":         {[]string{""}, ""},
		"short":         {[]string{good[:54]}, ""},
		"longer":        {[]string{good + "-00"}, ""},
		"later, joined": {[]string{"cc" + good[2:] + "0"}, ""},
		"upper case":    {[]string{strings.ToUpper(good)}, ""},
		"version ff":    {[]string{"ff" + good[2:]}, ""},
		"no trace":      {[]string{"00-" + strings.Repeat("0", 32) + good[35:]}, ""},
		"no parent":     {[]string{good[:36] + strings.Repeat("0", 16) + "-01"}, ""},
		"dashes":        {[]string{strings.ReplaceAll(good, "-", "_")}, ""},
		"newline":       {[]string{good[:54] + "\n"}, ""},
		"huge":          {[]string{"cc" + good[2:] + "-" + strings.Repeat("a", 1000)}, ""},
	} {
		if got := traceparent(tc.values); got != tc.want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// checkIncoming fails if an event that a parser let through is not what it has to be.
func checkIncoming(t *testing.T, in *incoming) {
	t.Helper()
	if in.id != "" && event.CheckID(in.id) != nil {
		t.Errorf("id is %q", in.id)
	}
	if !json.Valid(in.data) || in.data[0] != '{' || !utf8.Valid(in.data) || tooDeep(in.data) {
		t.Errorf("data is %q", in.data)
	}
	if in.previous != nil && (!json.Valid(in.previous) || in.previous[0] != '{') {
		t.Errorf("previous is %q", in.previous)
	}
	var envelope event.Envelope
	body := event.AppendBody(nil, in.id, in.eventType, in.timestamp, in.data)
	if err := json.Unmarshal(body, &envelope); err != nil || !bytes.Equal(envelope.Data, in.data) || envelope.Type.Resource() == "" {
		t.Errorf("body %s is %+v: %v", body, envelope, err)
	}
}

// checkProblem fails if an error shows more than it may.
func checkProblem(t *testing.T, err error) {
	t.Helper()
	p, ok := errors.AsType[*problem](err)
	if !ok || len(p.detail) > 1000 || !utf8.ValidString(p.detail) || strings.ContainsAny(p.detail, "\x00\n\r") {
		t.Errorf("error is %#v", err)
	}
}

func FuzzParseEvents(f *testing.F) {
	for _, seed := range []string{
		`{"id":"a","type":"patient.created","timestamp":"2026-01-15T09:15:00Z","data":{"a":[1]},"previous":{}}`,
		`[{"type":"lab.updated","data":{}},{"type":"note.deleted","data":{"x":"\ud83d\ude00"}}]`, `[]`, `{"type":null}`, ` `, `[[[[`,
		`{"dat\u0061":{},"type":"patient.created"}`, "{\"data\":{\"\xff\":1}}", `{"type":"x","data":{}}`, `{"timestamp":"2026-01-15t09:15:00z"}`,
	} {
		f.Add([]byte(seed))
	}
	p := newParser(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		sent := bytes.Clone(text)
		events, batch, err := p.plain(text, nil)
		if !bytes.Equal(sent, text) {
			t.Error("the parser changed the body")
		}
		if err != nil {
			checkProblem(t, err)
			return
		}
		if !batch && len(events) != 1 {
			t.Errorf("got %d events", len(events))
		}
		if !json.Valid(text) {
			t.Errorf("accepted %q, which is not JSON", text)
		}
		for i := range events {
			checkIncoming(t, &events[i])
			if !bytes.Contains(text, events[i].data) {
				t.Errorf("data %q is not part of what was sent", events[i].data)
			}
		}
	})
}

func FuzzParseCloudEvents(f *testing.F) {
	for _, seed := range []string{
		`{"specversion":"1.0","id":"42","source":"/ehr","type":"patient.created","time":"2026-01-15T09:15:00Z","data":{"a":1},"mine":true}`,
		`[{"specversion":"1.0","id":"42","source":"/ehr","type":"patient.created","data_base64":"e30="}]`, `{"data":{}}`, `[1`,
	} {
		f.Add([]byte(seed), "42", "2026-01-15T09:15:00Z")
	}
	p := newParser(f)
	f.Fuzz(func(t *testing.T, text []byte, id, at string) {
		for _, parse := range []func() ([]incoming, error){
			func() ([]incoming, error) { return p.structured(text, nil) },
			func() ([]incoming, error) { return p.cloudEventBatch(text, nil) },
			func() ([]incoming, error) {
				events := make([]incoming, 1)
				header := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {id}, "Ce-Source": {"s"}, "Ce-Type": {"patient.created"}, "Ce-Time": {at}}
				return events, p.binary(header, text, &events[0])
			},
		} {
			events, err := parse()
			if err != nil {
				checkProblem(t, err)
				continue
			}
			for i := range events {
				checkIncoming(t, &events[i])
				if !strings.HasPrefix(events[i].id, "ce_") {
					t.Errorf("id is %q", events[i].id)
				}
			}
		}
	})
}
