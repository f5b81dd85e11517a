// Package receivertest makes deliveries as a dispatcher signs them, and tests Deduplicators.
package receivertest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/receiver"
	"github.com/clinikapi/eventflow/api/signature"
)

// Secret is the key that a Delivery is signed with unless it says otherwise.
const Secret = "a key for tests, and for nothing else" //nolint:gosec // no secret

// Delivery is what a dispatcher sends. Only Type is required.
type Delivery struct {
	Type       event.Type
	Data       any       // by encoding/json; {} if nil
	ID         string    // of the event; evt_test if empty
	DeliveryID string    // dlv_test if empty
	Attempt    int       // 1 if 0
	At         time.Time // when it is signed; now if zero
	Secrets    []string  // Secret if empty
}

// Request returns the delivery as a server gets it.
func (d Delivery) Request(tb testing.TB, target string) *http.Request {
	tb.Helper()
	data := []byte("{}")
	if d.Data != nil {
		var err error
		if data, err = json.Marshal(d.Data); err != nil {
			tb.Fatalf("encode the data: %v", err)
		}
	}
	if d.At.IsZero() {
		d.At = time.Now()
	}
	if len(d.Secrets) == 0 {
		d.Secrets = []string{Secret}
	}
	var keys signature.Keys
	for _, secret := range d.Secrets {
		key, err := signature.ParseKey([]byte(secret))
		if err != nil {
			tb.Fatal(err)
		}
		keys = append(keys, key)
	}
	id := "dlv_test"
	if d.DeliveryID != "" {
		id = d.DeliveryID
	}
	eventID := "evt_test"
	if d.ID != "" {
		eventID = d.ID
	}
	body := event.AppendBody(nil, eventID, d.Type, d.At, data)
	request := httptest.NewRequestWithContext(tb.Context(), http.MethodPost, target, bytes.NewReader(body))
	sent := http.Header{}
	keys.Header(sent, id, d.At, body)
	for name, values := range sent {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Clinik-Event", string(d.Type))
	request.Header.Set("X-Clinik-Delivery-Id", id)
	request.Header.Set("X-Clinik-Timestamp", strconv.FormatInt(d.At.Unix(), 10))
	request.Header.Set("X-Clinik-Attempt", strconv.Itoa(max(d.Attempt, 1)))
	return request
}

// Deduplicator tests that d keeps what receiver.Deduplicator promises. Keys begin with prefix.
func Deduplicator(t *testing.T, d receiver.Deduplicator, prefix string) {
	t.Helper()
	ctx := t.Context()
	claim := func(key, owner string, lease time.Duration, want receiver.Claim) {
		t.Helper()
		if got, err := d.Claim(ctx, prefix+key, owner, lease); err != nil || got != want {
			t.Errorf("%s claims %s: %v, %v, want %v", owner, key, got, err, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	claim("a", "first", time.Hour, receiver.Claimed)
	claim("a", "second", time.Hour, receiver.InProgress)
	must(d.Release(ctx, prefix+"a", "second")) // not the second's to release
	claim("a", "second", time.Hour, receiver.InProgress)
	must(d.Release(ctx, prefix+"a", "first"))
	claim("a", "second", time.Hour, receiver.Claimed)
	must(d.Done(ctx, prefix+"a"))
	claim("a", "third", time.Hour, receiver.Handled)
	must(d.Release(ctx, prefix+"a", "second")) // handled stays handled
	claim("a", "third", time.Hour, receiver.Handled)
	must(d.Done(ctx, prefix+"b")) // without a claim, as after a failed one
	claim("b", "first", time.Hour, receiver.Handled)
	must(d.Release(ctx, prefix+"unknown", "first"))

	claim("c", "first", -time.Second, receiver.Claimed) // a lease that has ended
	claim("c", "second", time.Hour, receiver.Claimed)
	must(d.Release(ctx, prefix+"c", "first"))
	claim("c", "third", time.Hour, receiver.InProgress)

	var group sync.WaitGroup
	claims := make(chan receiver.Claim, 8)
	for i := range cap(claims) {
		group.Go(func() {
			got, err := d.Claim(ctx, prefix+"d", strconv.Itoa(i), time.Hour)
			if err != nil {
				t.Error(err)
			}
			claims <- got
		})
	}
	group.Wait()
	close(claims)
	won := 0
	for got := range claims {
		if got == receiver.Claimed {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d of 8 concurrent attempts have the claim, want 1", won)
	}
}
