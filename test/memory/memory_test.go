package memory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	limit     = 1 << 30
	mostInUse = limit / 10 * 9
)

// TestPublishesStayWithinTheLimit: publishers that come again when they are told to, more at once than there is memory
// for. What is acknowledged is pending, and nothing else is.
func TestPublishesStayWithinTheLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	binary := build(t)
	small := `{"type":"patient.created","data":{"resourceId":"1"}},`
	large := `{"type":"patient.created","data":{"note":"` + strings.Repeat("x", 1_030_000) + `"}},`
	for name, tc := range map[string]struct {
		subscriptions, publishers, rounds int
		events                            int
		event                             string
	}{
		"many subscriptions (A3)": {300, 8, 1, 1000, small},
		"large events (A4)":       {16, 8, 6, 8, large},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			p := start(ctx, t, binary, limit, tc.subscriptions)
			body := "[" + strings.TrimSuffix(strings.Repeat(tc.event, tc.events), ",") + "]"
			var publishing sync.WaitGroup
			var acknowledged, refused atomic.Int64
			for range tc.publishers {
				publishing.Go(func() {
					for range tc.rounds {
						deliveries, refusals, err := p.publish(ctx, body)
						refused.Add(refusals)
						if err != nil {
							t.Error(err)
							return
						}
						acknowledged.Add(deliveries)
					}
				})
			}
			publishing.Wait()
			pending := p.pending(ctx, "sub-0") * int64(tc.subscriptions)
			peak := p.peak()
			t.Logf("%d deliveries acknowledged, %d refusals; %d MiB were resident at most", acknowledged.Load(), refused.Load(), peak>>20)
			if want := int64(tc.publishers * tc.rounds * tc.events * tc.subscriptions); acknowledged.Load() != want || pending != want {
				t.Errorf("%d deliveries were acknowledged and, by one subscription, %d are pending, want %d", acknowledged.Load(), pending, want)
			}
			if peak > mostInUse {
				t.Errorf("%d bytes were resident, want at most %d", peak, mostInUse)
			}
		})
	}
}

// publish publishes until the events are accepted. It returns how many deliveries they cause.
func (p *process) publish(ctx context.Context, body string) (deliveries, refusals int64, err error) {
	for {
		status, header, answer, err := p.ask(ctx, http.MethodPost, "/v1/namespaces/clinic-a/events", body)
		switch {
		case err != nil:
			return 0, refusals, err
		case status == http.StatusAccepted:
			var accepted []struct{ Deliveries int64 }
			err := json.Unmarshal(answer, &accepted)
			for _, one := range accepted {
				deliveries += one.Deliveries
			}
			return deliveries, refusals, err
		case status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable:
			return 0, refusals, fmt.Errorf("publish: %d %s", status, answer)
		}
		refusals++
		after, err := strconv.Atoi(header.Get("Retry-After"))
		if err != nil || after < 1 {
			return 0, refusals, fmt.Errorf("publish: %d without a Retry-After in seconds: %v", status, header)
		}
		if !wait(ctx, time.Duration(after)*time.Second) {
			return 0, refusals, ctx.Err()
		}
	}
}

// pending is how many of a subscription's deliveries are listed as pending.
func (p *process) pending(ctx context.Context, subscription string) (n int64) {
	p.Helper()
	for next := ""; ; {
		status, _, answer, err := p.ask(ctx, http.MethodGet, "/v1/namespaces/clinic-a/deliveries?state=Pending&limit=1000&subscription="+subscription+"&continue="+url.QueryEscape(next), "")
		var page struct {
			Items    []json.RawMessage
			Continue string
		}
		if err == nil {
			err = json.Unmarshal(answer, &page)
		}
		if err != nil || status != http.StatusOK {
			p.Fatalf("list: %d, %v after %d: %s", status, err, n, p.output())
		}
		n += int64(len(page.Items))
		if next = page.Continue; next == "" {
			return n
		}
	}
}

// client waits as long as the test's context lets it.
var client = &http.Client{}

func (p *process) ask(ctx context.Context, method, path, body string) (status int, header http.Header, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+p.api+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, response.Header, answer, errors.Join(err, response.Body.Close())
}
