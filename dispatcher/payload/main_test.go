package payload

import (
	"context"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/expression"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeClient keeps what it is asked, and answers as it is told.
type fakeClient struct {
	mu       sync.Mutex
	sent     []egress.Request
	fetched  []egress.Document
	result   egress.Result
	answer   egress.Answer
	document string
	read     egress.Result // of a fetch
}

func (c *fakeClient) Send(_ context.Context, r egress.Request) egress.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, r)
	if r.Answer != nil {
		r.Answer.Header = c.answer.Header
		if r.Answer.WantBody {
			r.Answer.Body = c.answer.Body
		}
	}
	if r.Written != nil {
		r.Written()
	}
	return c.result
}

func (c *fakeClient) Fetch(_ context.Context, d egress.Document) ([]byte, egress.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetched = append(c.fetched, d)
	return []byte(c.document), c.read
}

const eventID = "evt_1"

var eventTime = time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)

// newRequest returns the second attempt of a delivery of an event with the given data.
func newRequest(t testing.TB, spec Spec, data string) Request {
	t.Helper()
	key, err := signature.ParseKey([]byte("a signing key of plain text"))
	if err != nil {
		t.Fatal(err)
	}
	if spec.Subscription == nil {
		spec.Subscription = expression.NewSubscription("sms", "clinic-a", nil)
	}
	spec.Namespace = "clinic-a"
	recipe, err := NewRecipe(spec)
	if err != nil {
		t.Fatal(err)
	}
	return Request{
		Target: &egress.Target{URL: "https://example.com/hook", Keys: signature.Keys{key}, Timeout: 10 * time.Second},
		Recipe: recipe,
		Event: &delivery.Event{
			ID: eventID, Type: "patient.created", Tenant: "tenant",
			Body: event.AppendBody(nil, eventID, "patient.created", eventTime, []byte(data)),
		},
		Delivery: event.DeliveryID{Event: event.NewKey(eventTime, "clinic-a", eventID), Subscription: event.NewSubscriptionKey("s")},
		Number:   2, Tenant: "tenant",
	}
}

// run makes one attempt. Everything that was charged must be given back.
func run(t testing.TB, c *fakeClient, r Request) (egress.Result, []Failure) {
	t.Helper()
	var failures []Failure
	memory := budget.New(256 << 20)
	s, err := New(Options{
		Client: c, Memory: memory, Now: func() time.Time { return eventTime.Add(time.Hour) },
		Failed: func(_ event.SubscriptionKey, f Failure) { failures = append(failures, f) },
	})
	if err != nil {
		t.Fatal(err)
	}
	result := s.Send(t.Context(), r)
	if used := memory.Used(); used != 0 {
		t.Errorf("%d bytes are still charged", used)
	}
	return result, failures
}

func compile(t testing.TB, use expression.Use, text string) Expression {
	t.Helper()
	program, err := expression.Compile(use, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return Expression{Text: text, Program: program}
}
