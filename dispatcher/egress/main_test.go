package egress

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
)

func TestMain(m *testing.M) {
	if scheme := os.Getenv(silentEndpoint); scheme != "" {
		beSilent(scheme)
		return
	}
	goleak.VerifyTestMain(m)
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// newClient returns a client that may send to this machine, unencrypted, unless change says otherwise.
func newClient(t testing.TB, change ...func(*Options)) *Client {
	t.Helper()
	o := Options{Version: "1.2.3", AllowHTTP: true, AllowedCIDRs: loopback}
	for _, f := range change {
		f(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

const (
	testKey = "a signing key of plain text"
	oldKey  = "the signing key before that"
)

func testKeys(t testing.TB, texts ...string) signature.Keys {
	t.Helper()
	var keys signature.Keys
	for _, text := range texts {
		key, err := signature.ParseKey([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

const fullBody = `{"id":"evt_1","event":"patient.created","type":"patient.created","timestamp":"2026-01-15T09:15:00.000Z",` +
	`"data":{"resourceType":"patient","resourceId":"pt_1", "action":"created","name":"Jane"}}`

// newRequest returns the second attempt of a delivery to url.
func newRequest(t testing.TB, url string, change ...func(*Target)) Request {
	t.Helper()
	target := &Target{URL: url, Keys: testKeys(t, testKey), Timeout: 10 * time.Second}
	for _, f := range change {
		f(target)
	}
	return Request{
		Target:   target,
		Delivery: event.DeliveryID{Event: event.NewKey(time.Unix(1768468500, 0), "clinic-a", "evt_1"), Subscription: event.NewSubscriptionKey("s")},
		Type:     "patient.created",
		Number:   2,
		Body:     []byte(fullBody),
	}
}

// deliver sends as the engine does: once more if the reason says so.
func deliver(ctx context.Context, c *Client, r Request) Result {
	result := c.Send(ctx, r)
	if result.Reason.Repeats() {
		r.Fresh = true
		result = c.Send(ctx, r)
	}
	return result
}
