package payload

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/expression"
)

// TestNothingRedactedIsSent: whatever a recipe makes of an event, no value that a path names is in the request.
func TestNothingRedactedIsSent(t *testing.T) {
	t.Parallel()
	everything := `{'all': event.data, 'size': size(event.data), 'previous': event.previous}`
	for i := range 500 {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		spec := Spec{Redact: []string{"secret", "contacts[*].secret", "deep.er.secret"}, Thin: random.IntN(3) == 0, Format: Format(random.IntN(3))}
		if random.IntN(2) == 0 {
			spec.Body = compile(t, expression.TransformBody, everything)
			spec.ContentType = "application/json"
		}
		if random.IntN(2) == 0 {
			spec.URLSuffix = compile(t, expression.TransformText, `'?x=' + string(event.data.secret == null) + string(has(event.data.deep))`)
			spec.Headers = []Header{{"X-Size", compile(t, expression.TransformText, `string(size(event.data.contacts))`)}}
		}
		c := &fakeClient{result: egress.Result{StatusCode: 200}}
		result, failures := run(t, c, newRequest(t, spec, secretData(random)))
		if !result.Delivered() || len(c.sent) != 1 {
			t.Fatalf("%d: %+v, %+v", i, result, failures)
		}
		sent := c.sent[0]
		if seen := fmt.Sprintf("%s %+v", sent.Body, sent.Shape); strings.Contains(seen, "canary") || !strings.Contains(seen, "pt_1") {
			t.Fatalf("%d: %s", i, seen)
		}
	}
}

// secretData is an object with secrets in random places, kinds and spellings.
func secretData(random *rand.Rand) string {
	space := strings.Repeat(" ", random.IntN(3))
	secret := func() string {
		key := []string{`"secret"`, `"s\u0065cret"`}[random.IntN(2)]
		value := []string{`"canary"`, `["canary"]`, `{"secret":"canary"}`, `[{"x":"canary"}]`}[random.IntN(4)]
		return key + space + ":" + space + value
	}
	element := func() string {
		return []string{"{" + secret() + `,"kind":1}`, `"canary"`, "{" + secret() + "," + secret() + "}", `["canary"]`, "null"}[random.IntN(5)]
	}
	deep := []string{`{"er":{` + secret() + `,"x":1}}`, `{"er":"canary"}`, `"canary"`, `{"er":[{` + secret() + `}]}`}[random.IntN(4)]
	members := []string{
		`"resourceType":"patient"`, `"resourceId":"pt_1"`, secret(), secret(),
		`"contacts":` + space + "[" + element() + space + "," + element() + "]", `"deep":` + deep,
	}
	random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "{" + space + strings.Join(members, space+","+space) + space + "}"
}

// FuzzOpen: a body that can be read has its data where it was found, and is whole.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"id":"a","timestamp":"2026-01-15T09:15:00.000Z","data":{"a":1}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := open(body)
		if err != nil {
			return
		}
		if !bytes.Equal(e.with(e.data), body) {
			t.Fatalf("%q became %q", body, e.with(e.data))
		}
	})
}

// TestCloudEventsHeaders: what a header cannot hold is escaped (HTTP protocol binding, section 3.1.3.2).
func TestCloudEventsHeaders(t *testing.T) {
	t.Parallel()
	fields := binary([]attribute{{"subject", "Euro € \"1\" 100%"}})
	if want := "Euro%20%E2%82%AC%20%221%22%20100%25"; fields[0].Value != want {
		t.Errorf("%s, want %s", fields[0].Value, want)
	}
	shape := egress.Shape{Attributes: fields}
	if err := shape.Check(newRequest(t, Spec{}, "{}").Target); err != nil {
		t.Error(err)
	}
}
