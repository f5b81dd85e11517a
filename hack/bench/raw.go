package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clinikapi/eventflow/api/signature"
)

// rawSenders is how many post at once, as many as a subscription's maxInFlight.
const rawSenders = 32

// rawWarmUp opens the connections before the counting starts.
const rawWarmUp = 300 * time.Millisecond

// rawResult is what the raw loop reached.
type rawResult struct {
	PerSecond        float64
	Sender, Receiver float64 // microseconds of CPU per request
	Others           float64 // cores that other processes kept busy meanwhile
}

// signingKey is that of every endpoint.
const signingKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// raw signs and posts the same body with net/http, with the headers of a delivery, for the given time. There is no store,
// no queue and no guard: this is what the machine can do.
func (b *bench) raw(ctx context.Context, duration time.Duration) (rawResult, error) {
	key, err := signature.ParseKey([]byte(signingKey))
	if err != nil {
		return rawResult{}, err
	}
	const most = 4_000_000
	run := b.nextRun()
	if err := b.receiver.begin(ctx, plan{Run: run, Events: most, Groups: 1, Fan: 1}); err != nil {
		return rawResult{}, err
	}
	l := &rawLoop{
		keys: signature.Keys{key}, run: run,
		url:       &url.URL{Scheme: "http", Host: b.receiver.address, Path: "/ok/0"},
		transport: &http.Transport{MaxIdleConnsPerHost: rawSenders, DisableCompression: true},
	}
	defer l.transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, rawWarmUp+duration)
	defer cancel()
	var senders sync.WaitGroup
	for range rawSenders {
		senders.Go(func() { l.send(ctx) })
	}
	<-time.After(rawWarmUp)
	watch := b.watch(nil)
	before := l.answered.Load()
	senders.Wait()
	answered := l.answered.Load() - before
	if err := l.failed.Load(); err != nil {
		return rawResult{}, fmt.Errorf("raw loop: %w", *err)
	}
	usage := watch.done(int(answered))
	return rawResult{PerSecond: float64(answered) / usage.Seconds, Sender: usage.Generator, Receiver: usage.Receiver, Others: usage.Others}, nil
}

// rawLoop is shared by the senders.
type rawLoop struct {
	keys      signature.Keys
	run       int
	url       *url.URL
	transport *http.Transport
	next      atomic.Int64
	answered  atomic.Int64
	failed    atomic.Pointer[error]
}

// send posts until ctx ends. One that is under way then is finished.
func (l *rawLoop) send(ctx context.Context) {
	for ctx.Err() == nil {
		id := identity{run: l.run, number: int(l.next.Add(1)) - 1, sent: time.Now()}
		if err := l.post(context.WithoutCancel(ctx), id); err != nil {
			l.failed.CompareAndSwap(nil, &err)
			return
		}
		l.answered.Add(1)
	}
}

func (l *rawLoop) post(ctx context.Context, id identity) error {
	body := delivered(id)
	request := (&http.Request{
		Method: http.MethodPost, URL: l.url, Host: l.url.Host,
		Header:        make(http.Header, 12),
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
	}).WithContext(ctx)
	h := request.Header
	// The names as a delivery spells them.
	l.keys.Header(h, "dlv_06ew2xqaysf1rkwpp1pw3mn0c4-9n2s7xkbd5d2a", id.sent, body)
	h["Content-Type"] = []string{"application/json"}
	h["User-Agent"] = []string{"EventFlow/bench"}
	h["X-Clinik-Timestamp"] = h[signature.HeaderTimestamp]
	h["X-Clinik-Event"] = []string{string(eventType)}
	h["X-Clinik-Delivery-Id"] = h[signature.HeaderID]
	h["X-Clinik-Attempt"] = []string{"1"}
	response, err := l.transport.RoundTrip(request)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the receiver answered %s", response.Status)
	}
	return nil
}
