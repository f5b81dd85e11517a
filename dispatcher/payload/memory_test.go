package payload

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/expression"
)

// hangingClient reads no document for the tenant "greedy", and answers all else.
type hangingClient struct{}

func (hangingClient) Send(context.Context, egress.Request) egress.Result {
	return egress.Result{StatusCode: 200}
}

func (hangingClient) Fetch(ctx context.Context, d egress.Document) ([]byte, egress.Result) {
	if d.Tenant == "greedy" {
		<-ctx.Done()
		return nil, egress.Result{Reason: delivery.ReasonTimeout}
	}
	return []byte(`{}`), egress.Result{StatusCode: 200}
}

// TestHangingLookupsOfOneTakeNoOthersMemory: a thousand lookups of one tenant hang. What they hold is its share, and another
// tenant's delivery goes at once.
func TestHangingLookupsOfOneTakeNoOthersMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memory := budget.New(128 << 20)
		s, err := New(Options{Client: hangingClient{}, Memory: memory})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		request := newRequest(t, Spec{LookupURL: compile(t, expression.LookupURL, `'https://api.example.com/'`)}, `{}`)
		var greedy sync.WaitGroup
		for range 1000 {
			r := request
			r.Tenant = "greedy"
			greedy.Go(func() { s.Send(ctx, r) })
		}
		<-time.NewTimer(5 * time.Second).C // of the bubble: the attempts have begun, and none has timed out
		if used, free := memory.Used(), memory.Limit()-memory.Used(); used > free+egress.MaxDocument {
			t.Errorf("they hold %d bytes, and %d are free, want as much as is free at most", used, free)
		}
		if used := memory.Used(); used < 32*egress.MaxDocument {
			t.Errorf("they hold %d bytes: the documents that may come are not counted", used)
		}
		began := time.Now()
		other := request
		other.Tenant = "other"
		if result := s.Send(ctx, other); !result.Delivered() || time.Since(began) > 0 {
			t.Errorf("another tenant's delivery took %s: %q", time.Since(began), result.Reason)
		}
		cancel()
		greedy.Wait()
		if used := memory.Used(); used != 0 {
			t.Errorf("%d bytes are still charged", used)
		}
	})
}
