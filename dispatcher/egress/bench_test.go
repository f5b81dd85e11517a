package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// benchBody is 1 KB of body, as the raw loop of docs/performance.md posts it.
func benchBody() []byte {
	data := append([]byte(`{"filler":"`), bytes.Repeat([]byte("x"), 890)...)
	data = append(data, `"}`...)
	return event.AppendBody(nil, "evt_1", "patient.created", time.Unix(1768468500, 0), data)
}

// benchServer takes whatever comes.
func benchServer(b *testing.B) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	b.Cleanup(server.Close)
	return server.URL
}

// rawLoop returns what anybody would write first: sign the body, post it, drain the answer. With more header lines it
// tells what of the difference to Send is due to what a delivery has to say, at both ends, and what to Send itself.
func rawLoop(b *testing.B, url string, more http.Header) func() bool {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: DefaultTimeout}
	b.Cleanup(client.CloseIdleConnections)
	body := benchBody()
	return func() bool {
		mac := hmac.New(sha256.New, []byte(testKey))
		mac.Write(body)
		request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return false
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Clinik-Signature", hex.EncodeToString(mac.Sum(nil)))
		maps.Copy(request.Header, more)
		response, err := client.Do(request)
		if err != nil {
			return false
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		return err == nil && response.StatusCode == http.StatusNoContent
	}
}

// tuned is a client of net/http as one would set it up for deliveries: guarded and racing as egress is, HTTP/1.1 only,
// no proxy, no redirect, no compression, bounded.
func tuned(tb testing.TB, roots *Roots) *http.Client {
	g, err := newGuard(Options{AllowedCIDRs: loopback})
	if err != nil {
		tb.Fatal(err)
	}
	dialer := &net.Dialer{Control: g.control(nil), KeepAliveConfig: keepAlive}
	transport := &http.Transport{
		DialContext: dialer.DialContext, MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024, IdleConnTimeout: 50 * time.Second,
		DisableCompression: true, TLSHandshakeTimeout: DefaultTimeout, MaxResponseHeaderBytes: maxResponseHeader,
		ReadBufferSize: readBuffer, WriteBufferSize: 4 << 10, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if roots != nil {
		transport.TLSClientConfig.RootCAs = roots.pool
	}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// transportLoop sends what Send does, signed and with all headers, by a tuned http.Transport.
func transportLoop(b *testing.B, url string) func() bool {
	client := tuned(b, nil)
	request := newRequest(b, url)
	request.Body = benchBody()
	return func() bool {
		posted, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(request.Body))
		if err != nil {
			return false
		}
		at, id := time.Now(), request.Delivery.String()
		posted.Header.Set(headerContentType, "application/json")
		posted.Header.Set(headerUserAgent, "EventFlow/1.2.3")
		posted.Header.Set(headerEvent, string(request.Type))
		posted.Header.Set(headerDelivery, id)
		posted.Header.Set(headerAttempt, "2")
		posted.Header.Set(headerTimestamp, strconv.FormatInt(at.Unix(), 10))
		request.Target.Keys.Header(posted.Header, id, at, request.Body)
		response, err := client.Do(posted)
		if err != nil {
			return false
		}
		_, err = io.CopyN(io.Discard, response.Body, drainBytes)
		_ = response.Body.Close()
		return errors.Is(err, io.EOF) && response.StatusCode == http.StatusNoContent
	}
}

// sendLoop returns the same by Client.Send.
func sendLoop(b *testing.B, url string) func() bool {
	c := newClient(b)
	request := newRequest(b, url)
	request.Body = benchBody()
	return func() bool { return c.Send(context.Background(), request).Delivered() }
}

// deliveryHeader is what a delivery's header has beyond the raw loop's.
func deliveryHeader(b *testing.B) http.Header {
	request := newRequest(b, "http://127.0.0.1")
	target, err := request.Target.prepare()
	if err != nil {
		b.Fatal(err)
	}
	wire := newClient(b).appendHead(nil, &request, target, time.Unix(1768468500, 0))
	wire = append(wire, request.Body...)
	parsed, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire)))
	if err != nil {
		b.Fatal(err)
	}
	return parsed.Header
}

func BenchmarkSend(b *testing.B) {
	for name, loop := range map[string]func(string) func() bool{
		"raw":       func(url string) func() bool { return rawLoop(b, url, nil) },
		"headed":    func(url string) func() bool { return rawLoop(b, url, deliveryHeader(b)) },
		"egress":    func(url string) func() bool { return sendLoop(b, url) },
		"transport": func(url string) func() bool { return transportLoop(b, url) },
	} {
		b.Run(name, func(b *testing.B) {
			send := loop(benchServer(b))
			b.ReportAllocs()
			for b.Loop() {
				if !send() {
					b.Fatal("not delivered")
				}
			}
		})
	}
}

// BenchmarkSendRatio posts by turns with the raw loop, the raw loop with a delivery's headers, Send, and a tuned transport
// that sends the same (docs/adr/0001), 16 at once, and
// reports the ratio of Send's rate to each of theirs by the processor's time, receiver included, which does not depend
// on what else the machine does; and to the raw loop's by the clock.
func BenchmarkSendRatio(b *testing.B) {
	url := benchServer(b)
	loops := []func() bool{rawLoop(b, url, nil), rawLoop(b, url, deliveryHeader(b)), sendLoop(b, url), transportLoop(b, url)}
	spent, worked := make([]time.Duration, len(loops)), make([]time.Duration, len(loops))
	for b.Loop() {
		for i, send := range loops {
			runtime.GC() // each pays for its own garbage
			started, before := time.Now(), processorTime(b)
			takeTurn(b, send)
			spent[i] += time.Since(started)
			worked[i] += processorTime(b) - before
		}
	}
	b.ReportMetric(float64(spent[0])/float64(spent[2]), "ratio-by-clock")
	b.ReportMetric(float64(worked[0])/float64(worked[2]), "ratio-to-raw")
	b.ReportMetric(float64(worked[1])/float64(worked[2]), "ratio-to-headed")
	b.ReportMetric(float64(worked[3])/float64(worked[2]), "ratio-to-transport")
	b.ReportMetric(float64(b.N)*turn/spent[0].Seconds(), "raw/s")
	b.ReportMetric(float64(b.N)*turn/spent[2].Seconds(), "egress/s")
}

// turn is how often a loop posts before it is the next one's turn.
const turn = 1000

func takeTurn(b *testing.B, send func() bool) {
	var todo atomic.Int64
	var sending sync.WaitGroup
	for range 16 {
		sending.Go(func() {
			for todo.Add(1) <= turn {
				if !send() {
					b.Error("not delivered")
					return
				}
			}
		})
	}
	sending.Wait()
}

func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
