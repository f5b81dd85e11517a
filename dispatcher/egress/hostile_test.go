package egress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// patience is how long a test waits for what should come at once.
const patience = 10 * time.Second

func TestAnswers(t *testing.T) {
	t.Parallel()
	header := "X-Filler: " + strings.Repeat("x", 1000) + "\r\n"
	tick := time.NewTicker(5 * time.Millisecond)
	t.Cleanup(tick.Stop)
	drip := func() { <-tick.C }
	for name, tc := range map[string]struct {
		serve      func(net.Conn)
		timeout    time.Duration
		wantCode   int
		wantReason delivery.Reason
		wantAtMost time.Duration // for the whole of Send; patience if 0
	}{
		"200":               {serve: answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), wantCode: 200},
		"204":               {serve: answer(noContent), wantCode: 204},
		"299":               {serve: answer("HTTP/1.1 299 Fine\r\nContent-Length: 0\r\n\r\n"), wantCode: 299},
		"HTTP/1.0":          {serve: answer("HTTP/1.0 200 OK\r\n\r\n"), wantCode: 200, wantAtMost: drainTime + 2*time.Second},
		"100, then 200":     {serve: answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), wantCode: 200},
		"301":               {serve: answer("HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), wantCode: 301, wantReason: delivery.ReasonStatusCode},
		"304":               {serve: answer("HTTP/1.1 304 Not Modified\r\n\r\n"), wantCode: 304, wantReason: delivery.ReasonStatusCode},
		"307":               {serve: answer("HTTP/1.1 307 Again\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), wantCode: 307, wantReason: delivery.ReasonStatusCode},
		"410":               {serve: answer("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"), wantCode: 410, wantReason: delivery.ReasonStatusCode},
		"500":               {serve: answer("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"), wantCode: 500, wantReason: delivery.ReasonStatusCode},
		"101":               {serve: stalled("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), wantCode: 101, wantReason: delivery.ReasonStatusCode, wantAtMost: drainTime + 2*time.Second},
		"999":               {serve: answer("HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n"), wantCode: 999, wantReason: delivery.ReasonStatusCode},
		"not HTTP":          {serve: answer("SSH-2.0-OpenSSH_9.6\r\n\r\n"), wantReason: delivery.ReasonResponseInvalid},
		"binary":            {serve: answer("\x15\x03\x01\x00\x02\x02\x16\r\n\r\n"), wantReason: delivery.ReasonResponseInvalid},
		"bad header":        {serve: answer("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), wantReason: delivery.ReasonResponseInvalid},
		"bad length":        {serve: answer("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), wantReason: delivery.ReasonResponseInvalid},
		"closed at once":    {serve: func(net.Conn) {}, wantReason: delivery.ReasonConnectionReset},
		"closed unanswered": {serve: func(c net.Conn) { readRequest(bufio.NewReader(c)) }, wantReason: delivery.ReasonConnectionReset},
		"closed in headers": {serve: func(c net.Conn) { readRequest(bufio.NewReader(c)); _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nA: ") }, wantReason: delivery.ReasonConnectionReset},
		"reset":             {serve: reset, wantReason: delivery.ReasonConnectionReset},
		"closed in the body": {serve: func(c net.Conn) {
			readRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
		}, wantCode: 200},
		"bad chunks":        {serve: stalled("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"), wantCode: 200},
		"never answers":     {serve: stalled(""), timeout: 100 * time.Millisecond, wantReason: delivery.ReasonTimeout},
		"stops in headers":  {serve: stalled("HTTP/1.1 200 OK\r\nA: "), timeout: 100 * time.Millisecond, wantReason: delivery.ReasonTimeout},
		"drips headers":     {serve: dripping("HTTP/1.1 200 OK\r\nA: ", drip), timeout: 100 * time.Millisecond, wantReason: delivery.ReasonTimeout},
		"endless headers":   {serve: endless("HTTP/1.1 200 OK\r\n", header), wantReason: delivery.ReasonResponseInvalid},
		"endless header":    {serve: endless("HTTP/1.1 200 OK\r\nA: ", "xxxxxxxxxxxxxxxx"), wantReason: delivery.ReasonResponseInvalid},
		"48 KiB of headers": {serve: answer("HTTP/1.1 200 OK\r\n" + strings.Repeat(header, 48) + "Content-Length: 0\r\n\r\n"), wantCode: 200},
		"80 KiB of headers": {serve: answer("HTTP/1.1 200 OK\r\n" + strings.Repeat(header, 80) + "Content-Length: 0\r\n\r\n"), wantReason: delivery.ReasonResponseInvalid},
		"1xx flood":         {serve: endless("", "HTTP/1.1 103 Early Hints\r\n"+header+"\r\n"), wantReason: delivery.ReasonResponseInvalid},
		"small 1xx flood":   {serve: endless("", "HTTP/1.1 100 Continue\r\n\r\n"), wantReason: delivery.ReasonResponseInvalid},
		"body stops":        {serve: stalled("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), wantCode: 200, wantAtMost: drainTime + 2*time.Second},
		"drips the body":    {serve: dripping("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", drip), wantCode: 200, wantAtMost: drainTime + 2*time.Second},
		"endless body":      {serve: endless("HTTP/1.1 200 OK\r\n\r\n", header), wantCode: 200, wantAtMost: drainTime + 2*time.Second},
		"huge body":         {serve: endless("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", header), wantCode: 200, wantAtMost: drainTime + 2*time.Second},
		"endless 500":       {serve: endless("HTTP/1.1 500 Oh\r\n\r\n", header), wantCode: 500, wantReason: delivery.ReasonStatusCode, wantAtMost: drainTime + 2*time.Second},
		"body drips past the timeout": {
			serve: dripping("HTTP/1.1 200 OK\r\n\r\n", drip), timeout: 100 * time.Millisecond, wantCode: 200, wantAtMost: drainTime + 2*time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, tc.serve)
			request := newRequest(t, r.url, func(target *Target) {
				if tc.timeout > 0 {
					target.Timeout = tc.timeout
				}
			})
			started := time.Now()
			result := newClient(t).Send(context.Background(), request)
			took := time.Since(started)
			if result.StatusCode != tc.wantCode || result.Reason != tc.wantReason {
				t.Errorf("status code %d, reason %q; want %d, %q", result.StatusCode, result.Reason, tc.wantCode, tc.wantReason)
			}
			if tc.wantAtMost == 0 {
				tc.wantAtMost = patience
			}
			if took > tc.wantAtMost {
				t.Errorf("took %v, want at most %v", took, tc.wantAtMost)
			}
			if result.Started.Before(started) || result.Duration <= 0 || result.Duration > took {
				t.Errorf("started %v after, took %v of %v", result.Started.Sub(started), result.Duration, took)
			}
			if n := r.accepted.Load(); n != 1 {
				t.Errorf("%d connections, want 1: on a new one nothing is repeated", n)
			}
		})
	}
}

func TestRetryAfterOfAnswers(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]time.Duration{429: 7 * time.Second, 503: 7 * time.Second, 500: 0, 200: 0, 301: 0} {
		r := newReceiver(t, answer(fmt.Sprintf("HTTP/1.1 %d X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", code)))
		if got := newClient(t).Send(context.Background(), newRequest(t, r.url)).RetryAfter; got != want {
			t.Errorf("%d: %v, want %v", code, got, want)
		}
	}
}

// await polls until ok, for as long as a test has patience.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("still not: %s", what)
		}
	}
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no body":     noContent,
		"length":      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"chunks":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"a failure's": "HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\noops",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, answer(text))
			c := newClient(t)
			for range 20 {
				c.Send(context.Background(), newRequest(t, r.url))
			}
			if n := r.accepted.Load(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

// Whatever an endpoint does, no connection outlives its attempt by much unless it can be used again.
func TestConnectionsDoNotPileUp(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(net.Conn){
		"never answers": stalled(""),
		"stalled body":  stalled("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
		"endless body":  endless("HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("x", 4096)),
		"101":           stalled("HTTP/1.1 101 Switching Protocols\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t, serve)
			c := newClient(t)
			var sending sync.WaitGroup
			for range 20 {
				sending.Go(func() {
					c.Send(context.Background(), newRequest(t, r.url, func(target *Target) { target.Timeout = 100 * time.Millisecond }))
				})
			}
			sending.Wait()
			// A dial that its attempt did not wait for leaves an idle connection behind, as any other.
			await(t, "every connection closed", func() bool { c.Close(); return r.connections() == 0 })
		})
	}
}

// A receiver that closes idle connections must not cost an attempt.
func TestStaleConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(net.Conn){
		"closed": func(net.Conn) {},
		"reset":  func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// One answer to a connection, which then breaks when the next request is on its way, or before.
			var requests sync.Map
			r := newReceiver(t, func(conn net.Conn) {
				b := bufio.NewReader(conn)
				readRequest(b)
				_, _ = io.WriteString(conn, noContent)
				if second, err := http.ReadRequest(b); err == nil {
					requests.Store(second.Header.Get("X-Clinik-Attempt"), true)
				}
				end(conn)
			})
			c := newClient(t)
			for i := range 20 {
				if result := deliver(context.Background(), c, newRequest(t, r.url)); !result.Delivered() {
					t.Fatalf("delivery %d: %+v", i, result)
				}
			}
			if _, replaced := requests.Load("2"); !replaced {
				t.Error("no request met a stale connection, so nothing was tested")
			}
		})
	}
}

// A receiver that breaks every connection gets no more than one repetition for each that was idle.
func TestBrokenReceiverIsNotTriedForever(t *testing.T) {
	t.Parallel()
	first := true
	var mu sync.Mutex
	r := newReceiver(t, func(conn net.Conn) {
		mu.Lock()
		answers := first
		first = false
		mu.Unlock()
		b := bufio.NewReader(conn)
		if readRequest(b) && answers {
			_, _ = io.WriteString(conn, noContent)
			readRequest(b)
		}
	})
	c := newClient(t)
	deliver(context.Background(), c, newRequest(t, r.url))
	if result := deliver(context.Background(), c, newRequest(t, r.url)); result.Reason != delivery.ReasonConnectionReset {
		t.Errorf("%+v, want %s", result, delivery.ReasonConnectionReset)
	}
	if n := r.accepted.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	r := newReceiver(t, func(conn net.Conn) {
		readRequest(bufio.NewReader(conn))
		close(arrived)
		_, _ = io.Copy(io.Discard, conn)
	})
	ctx, stop := context.WithCancel(context.Background())
	go func() { <-arrived; stop() }()
	if result := newClient(t).Send(ctx, newRequest(t, r.url)); result.Reason != delivery.ReasonInterrupted || result.StatusCode != 0 {
		t.Errorf("%+v, want %s", result, delivery.ReasonInterrupted)
	}
	if result := newClient(t).Send(ctx, newRequest(t, r.url)); result.Reason != delivery.ReasonInterrupted {
		t.Errorf("after the stop: %+v, want %s", result, delivery.ReasonInterrupted)
	}
	if n := r.accepted.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// lines collects what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func TestNothingIsLogged(t *testing.T) { // not parallel: the standard logger is everyone's
	c := newClient(t)
	logged, before := &lines{}, log.Writer()
	log.SetOutput(logged)
	defer log.SetOutput(before)
	r := newReceiver(t, answer(noContent+"canary"))
	c.Send(context.Background(), newRequest(t, r.url+"/?canary"))
	await(t, "the connection closed", func() bool { return r.connections() == 0 })
	logged.mu.Lock()
	defer logged.mu.Unlock()
	if text := logged.text.String(); text != "" {
		t.Errorf("logged %q", text)
	}
}
