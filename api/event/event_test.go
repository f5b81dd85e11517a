package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var accepted = time.Date(2026, 1, 15, 9, 15, 0, 123456789, time.UTC)

func catalog(t *testing.T, extra ...string) *Catalog {
	t.Helper()
	c, err := NewCatalog(extra...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCatalog(t *testing.T) {
	t.Parallel()
	c := catalog(t, "claim", "patient")
	if n := len(c.Resources()); n != 15 {
		t.Errorf("%d resources, want the 14 and claim", n)
	}
	types := 0
	for _, resource := range c.Resources() {
		for _, action := range Actions {
			typ, ok := c.Lookup([]byte(resource + "." + string(action)))
			if !ok || typ.Resource() != resource || typ.Action() != action {
				t.Errorf("%s.%s: got %q, %v", resource, action, typ, ok)
			}
			types++
		}
	}
	if types != 45 {
		t.Errorf("%d types, want 45", types)
	}
	for _, unknown := range []string{"", ".", "patient", "patient.", "patient.*", "*", "Patient.created", "patient.created ", "invoice.created"} {
		if _, ok := c.Lookup([]byte(unknown)); ok {
			t.Errorf("%q is a type", unknown)
		}
	}
	for _, typ := range OperationalTypes {
		if _, ok := c.Lookup([]byte(typ)); ok {
			t.Errorf("%s can be published", typ)
		}
	}
	for _, bad := range []string{"eventflow", "", "Claim", "a.b", "-a", "a-", "a b", strings.Repeat("a", 64), "é"} {
		if _, err := NewCatalog(bad); err == nil {
			t.Errorf("resource %q was taken", bad)
		}
	}
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"*": true, "patient.*": true, "patient.created": true, "practitioner-role.deleted": true, "claim.updated": true,
		"eventflow.*": true, "eventflow.endpoint.failing": true, "eventflow.key.rotated": true,
		"eventflow.created": false, "eventflow.endpoint.*": false, "eventflow": false, "eventflow.endpoint": false,
		"": false, "patient": false, "*.created": false, "patient.": false, "patient.renamed": false, "patient.*.*": false,
		"**": false, "Patient.*": false, "patient.created,lab.*": false,
		" *": false, //nolint:gocritic // the space is what is wrong with it
	} {
		if _, err := ParsePattern(text); (err == nil) != want {
			t.Errorf("%q: %v, want a pattern: %v", text, err, want)
		}
	}
	for _, test := range []struct {
		pattern Pattern
		typ     Type
		want    bool
	}{
		{"*", "lab.created", true},
		{"practitioner.*", "practitioner.updated", true},
		{"practitioner.*", "practitioner-role.updated", false},
		{"practitioner-role.*", "practitioner.updated", false},
		{"lab.created", "lab.created", true},
		{"lab.created", "lab.deleted", false},
		{"*", EndpointFailing, false},
		{"*", "eventflow.later.type", false},
		{"eventflow.*", EndpointFailing, true},
		{"eventflow.*", "eventflow.later.type", true},
		{"eventflow.delivery.failed", DeliveryFailed, true},
		{"eventflow.delivery.failed", EndpointGone, false},
	} {
		if got := test.pattern.Matches(test.typ); got != test.want {
			t.Errorf("%s matches %s: %v", test.pattern, test.typ, got)
		}
	}
	c := catalog(t)
	if err := c.Check("claim.*"); err == nil || !strings.Contains(err.Error(), `"claim"`) {
		t.Errorf("an unknown resource: %v", err)
	}
	for _, known := range []Pattern{All, "eventflow.*", Pattern(KeyRotated)} {
		if err := c.Check(known); err != nil {
			t.Error(err)
		}
	}
}

func TestIDsSortByTime(t *testing.T) {
	t.Parallel()
	shape := regexp.MustCompile(`^evt_[0-9a-v]{26}$`)
	var ids []string
	for i := range 1000 {
		id := NewID(accepted.Add(time.Duration(i) * time.Millisecond))
		if !shape.MatchString(id) || CheckID(id) != nil {
			t.Fatalf("id %q", id)
		}
		ids = append(ids, id)
	}
	if !slices.IsSorted(ids) {
		t.Error("ids do not sort by time")
	}
	if a, b := NewID(accepted), NewID(accepted); a == b {
		t.Error("two ids of one moment are the same")
	}
	for id, want := range map[string]bool{"a": true, "A.b_c:d-9": true, strings.Repeat("x", 128): true, "": false, strings.Repeat("x", 129): false, "a b": false, "a\n": false, "é": false, `"`: false} {
		if err := CheckID(id); (err == nil) != want {
			t.Errorf("id %q: %v", id, err)
		}
	}
}

func TestADeliverysIDFollowsFromEventAndSubscription(t *testing.T) {
	t.Parallel()
	id := func(at time.Time, namespace, event, subscription string) DeliveryID {
		return DeliveryID{Event: NewKey(at, namespace, event), Subscription: NewSubscriptionKey(subscription)}
	}
	first := id(accepted, "a", "evt_1", "sub")
	if first != id(accepted, "a", "evt_1", "sub") {
		t.Error("the same event and subscription have two ids")
	}
	for name, other := range map[string]DeliveryID{
		"namespace": id(accepted, "b", "evt_1", "sub"), "event": id(accepted, "a", "evt_2", "sub"), "subscription": id(accepted, "a", "evt_1", "sub2"),
		"shifted": id(accepted, "a\x00evt", "_1", "sub"), "later": id(accepted.Add(1), "a", "evt_1", "sub"),
	} {
		if other == first {
			t.Errorf("another %s has the same id", name)
		}
	}
	if !first.Event.Accepted().Equal(accepted) {
		t.Errorf("accepted %v, want %v", first.Event.Accepted(), accepted)
	}
	text := first.String()
	if !regexp.MustCompile(`^dlv_[0-9a-v]{39}$`).MatchString(text) {
		t.Errorf("id %q", text)
	}
	if back, err := ParseDeliveryID(text); err != nil || back != first {
		t.Errorf("parsed %v, %v", back, err)
	}
	if later := id(accepted.Add(time.Hour), "a", "evt_1", "sub").String(); later <= text {
		t.Error("ids do not sort by acceptance")
	}
	for _, bad := range []string{"", "dlv_", "evt_" + text[4:], text[:42], text + "0", strings.ToUpper(text), text[:42] + "v"} {
		if _, err := ParseDeliveryID(bad); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	data := `{ "resourceType":"patient","resourceId" : "pt_abc123","action":"created","name":"Ada","tenantId":"org_def456"}`
	full := AppendBody(nil, "evt_1", "patient.created", accepted.In(time.FixedZone("", 3600)), []byte(data))
	want := `{"id":"evt_1","event":"patient.created","type":"patient.created","timestamp":"2026-01-15T09:15:00.123Z","data":` + data + `}`
	if string(full) != want {
		t.Errorf("got  %s\nwant %s", full, want)
	}
	var e Envelope
	if err := json.Unmarshal(full, &e); err != nil || e.ID != "evt_1" || e.Type != e.Event || string(e.Data) != data {
		t.Errorf("decoded %+v, %v", e, err)
	}
	thin, err := ThinBody(full)
	want = `{"id":"evt_1","event":"patient.created","type":"patient.created","timestamp":"2026-01-15T09:15:00.123Z",` +
		`"data":{"resourceType":"patient","resourceId":"pt_abc123","action":"created","tenantId":"org_def456"}}`
	if err != nil || string(thin) != want {
		t.Errorf("got  %s, %v\nwant %s", thin, err, want)
	}
	empty, err := ThinBody(AppendBody(nil, "e", "lab.created", accepted, []byte(`{"secret":1}`)))
	if err != nil || !bytes.HasSuffix(empty, []byte(`"data":{}}`)) {
		t.Errorf("got %s, %v", empty, err)
	}
}

// TestThinBodyOfFHIR: the id of a FHIR resource stands for resourceId.
func TestThinBodyOfFHIR(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{
		`{"resourceType":"Patient","id":"pt_1","name":[{"family":"x"}]}`: `{"resourceType":"Patient","resourceId":"pt_1"}`,
		`{"id":7,"resourceType":"Patient","tenantId":"org"}`:             `{"resourceType":"Patient","resourceId":7,"tenantId":"org"}`,
		`{"resourceType":"Patient","id":"row","resourceId":"pt_1"}`:      `{"resourceType":"Patient","resourceId":"pt_1"}`,
		`{"resourceType":"Patient","id":"row","resourceId":null}`:        `{"resourceType":"Patient","resourceId":null}`,
		`{"resourceType":"Patient","id":{"secret":1}}`:                   `{"resourceType":"Patient"}`,
		`{"resourceType":"Patient","id":null}`:                           `{"resourceType":"Patient"}`,
		`{"id":"pt_1"}`:                                                  `{}`,
		`{"resourceType":"Patient","id":"\ud83d","a\ud83d":1}`:           `{"resourceType":"Patient","resourceId":"\ud83d"}`,
	} {
		thin, err := ThinBody(AppendBody(nil, "e", "patient.created", accepted, []byte(data)))
		if err != nil || !bytes.HasSuffix(thin, []byte(`"data":`+want+`}`)) {
			t.Errorf("%s: got %s, %v, want %s", data, thin, err, want)
		}
	}
}

func FuzzParseDeliveryID(f *testing.F) {
	f.Add(DeliveryID{}.String())
	f.Add("dlv_x")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseDeliveryID(text); err == nil && id.String() != text {
			t.Errorf("%q became %q", text, id)
		}
	})
}

func FuzzThinBody(f *testing.F) {
	f.Add(`{"resourceId":"a","x":"b"}`)
	f.Add(`{"resourceType":{"a":[1,2]},"tenantId":null}`)
	f.Fuzz(func(t *testing.T, data string) {
		if !json.Valid([]byte(data)) || !strings.HasPrefix(data, "{") {
			t.Skip()
		}
		thin, err := ThinBody(AppendBody(nil, "e", "lab.created", accepted, []byte(data)))
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ Data map[string]json.RawMessage }
		if err := json.Unmarshal(thin, &e); err != nil {
			t.Fatalf("%s: %v", thin, err)
		}
		for key := range e.Data {
			if !slices.Contains(thinKeys, key) {
				t.Errorf("a thin body holds %s", fmt.Sprintf("%q", key))
			}
		}
	})
}

func BenchmarkAppendBody(b *testing.B) {
	data := []byte(`{"resourceId":"` + strings.Repeat("x", 1000) + `"}`)
	body := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		body = AppendBody(body[:0], "evt_06h0479ptseprr21trg3p6037k", "patient.created", accepted, data)
	}
}

func TestTimeOf(t *testing.T) {
	t.Parallel()
	made := time.Date(2026, 1, 15, 9, 15, 0, 123_000_000, time.UTC)
	id := NewID(made)
	if got, ok := TimeOf(id); !ok || !got.Equal(made) {
		t.Errorf("got %v, %v", got, ok)
	}
	for _, other := range []string{"", "evt_", "order-17", id[:29], id + "0", "dlv_" + id[4:]} {
		if got, ok := TimeOf(other); ok {
			t.Errorf("%q: got %v", other, got)
		}
	}
}
