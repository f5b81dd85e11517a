package ingest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// serve serves a Handler on a port of the loopback interface, and returns its address.
func serve(t *testing.T, f *fixture) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(f.Handler, logr.Discard())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return listener.Addr().String()
}

// dial opens a connection that ends with the test, or after a while that no test should need.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

const requestHead = "POST /v1/namespaces/clinic-a/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

// TestClientsSeeTheAnswer sends whole requests, bodies of any size, before it reads.
func TestClientsSeeTheAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *Options) {
		o.Tenant = func(_ context.Context, namespace, _ string) (string, bool, error) {
			return namespace, namespace != "nowhere", nil
		}
	})
	address := serve(t, f)
	for name, tc := range map[string]struct {
		head      string
		size      int
		chunked   bool
		wantCode  int
		wantClose bool
	}{
		"too large an event":    {requestHead, 2 << 20, false, 413, false},
		"at the bound":          {requestHead, 8 << 20, false, 413, false},
		"above the bound":       {requestHead, 8<<20 + 1, false, 413, true},
		"far above, chunked":    {requestHead, 12 << 20, true, 413, false},
		"not read at all":       {strings.Replace(requestHead, "clinic-a", "nowhere", 1), 4 << 20, false, 404, false},
		"not read, chunked":     {strings.Replace(requestHead, "/json", "/xml", 1), 4 << 20, true, 415, false},
		"empty":                 {requestHead, 0, false, 400, false},
		"empty, in chunks":      {requestHead, 0, true, 400, false},
		"no length, no chunks":  {requestHead, -1, false, 400, false},
		"8 MiB of space, chunk": {requestHead, 8 << 20, true, 413, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, address)
			switch {
			case tc.chunked && tc.size == 0:
				fmt.Fprintf(conn, "%sTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", tc.head)
			case tc.chunked:
				fmt.Fprintf(conn, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", tc.head, tc.size, strings.Repeat("x", tc.size))
			case tc.size < 0:
				fmt.Fprintf(conn, "%s\r\n", tc.head)
			default:
				if _, err := fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", tc.head, tc.size, strings.Repeat("x", tc.size)); err != nil {
					t.Fatalf("the request was cut: %v", err)
				}
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if response.StatusCode != tc.wantCode || response.Close != tc.wantClose || response.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %d, close %v, %s", response.StatusCode, response.Close, body)
			}
		})
	}
	if used := f.memory.budget.Used(); used != 0 {
		t.Errorf("%d bytes stay reserved", used)
	}
}

// TestExpectContinue refuses a body that the client has not sent yet.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	conn := dial(t, serve(t, newFixture(t)))
	fmt.Fprintf(conn, "%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", requestHead, 100<<20)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusRequestEntityTooLarge || !response.Close {
		t.Errorf("got %d, close %v", response.StatusCode, response.Close)
	}
}

// TestBrokenBodies ends requests in the middle.
func TestBrokenBodies(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	address := serve(t, f)
	for name, request := range map[string]string{
		"cut":        requestHead + "Content-Length: 100\r\n\r\n{",
		"bad chunk":  requestHead + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
		"cut chunks": requestHead + "Transfer-Encoding: chunked\r\n\r\n5\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, address)
			_, _ = io.WriteString(conn, request)
			_ = conn.(*net.TCPConn).CloseWrite()
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusBadRequest {
				t.Errorf("got %d", response.StatusCode)
			}
		})
	}
	if stored := len(f.store.stored()); stored != 0 {
		t.Errorf("stored %d events", stored)
	}
}

// gate is a body that gives its first bytes, and no more until it is opened.
type gate struct {
	first  io.Reader
	waits  chan struct{} // closed once the first bytes are read
	opened chan struct{}
	once   sync.Once
}

func (g *gate) Read(b []byte) (int, error) {
	if n, err := g.first.Read(b); err == nil {
		return n, nil
	}
	g.once.Do(func() { close(g.waits) })
	<-g.opened
	return 0, io.EOF
}

// discardAnswer is a ResponseWriter that keeps nothing.
type discardAnswer struct{}

func (discardAnswer) Header() http.Header         { return http.Header{} }
func (discardAnswer) Write(b []byte) (int, error) { return len(b), nil }
func (discardAnswer) WriteHeader(int)             {}

func TestServerLimits(t *testing.T) {
	t.Parallel()
	server := NewServer(http.NotFoundHandler(), logr.Discard())
	if server.MaxHeaderBytes+headerSlop > 16<<10 || server.ReadHeaderTimeout > 10*time.Second || server.Protocols.HTTP2() {
		t.Errorf("a limit is too high: %+v", server)
	}
	if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 || server.WriteTimeout == 0 || server.IdleTimeout == 0 || server.MaxHeaderBytes == 0 {
		t.Errorf("a limit is missing: %+v", server)
	}
}

// TestHeadersAreBounded refuses what is larger than 16 KiB, and a client that takes its time.
func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	address := serve(t, newFixture(t))
	for name, tc := range map[string]struct {
		size, wantCode int
	}{
		"a token of 8 KiB": {8 << 10, 404},
		"17 KiB":           {17 << 10, 431},
		"60 KiB":           {60 << 10, 431},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, address)
			go func() { fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", tc.size)) }()
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if response.StatusCode != tc.wantCode {
				t.Errorf("got %d, want %d", response.StatusCode, tc.wantCode)
			}
		})
	}
}

// TestServerLog shows a panic to everyone, and a broken connection to who asks for much.
func TestServerLog(t *testing.T) {
	t.Parallel()
	var lines []string
	server := NewServer(http.NotFoundHandler(), funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{}))
	server.ErrorLog.Print("http: TLS handshake error from 127.0.0.1:1: EOF")
	server.ErrorLog.Print("http: panic serving 127.0.0.1:1: index out of range")
	if len(lines) != 1 || !strings.Contains(lines[0], "index out of range") {
		t.Errorf("logged %q", lines)
	}
}

// TestMetrics counts requests and events.
func TestMetrics(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.publish(`[{"id":"a","type":"patient.created","data":{}},{"id":"b","type":"patient.created","data":{}}]`)
	f.publish(`[{"id":"a","type":"patient.created","data":{}},{"id":"c","type":"patient.created","data":{}}]`)
	f.publish(`{"id":"a","type":"patient.created","data":{}}`)
	f.publish(`x`)
	f.do("GET", deliveriesPath, "")
	f.do("GET", "/nothing", "")
	want := `
# HELP eventflow_ingest_events_accepted_total Events made durable.
# TYPE eventflow_ingest_events_accepted_total counter
eventflow_ingest_events_accepted_total 3
# HELP eventflow_ingest_events_repeated_total Events that were accepted before, and answered with the first answer.
# TYPE eventflow_ingest_events_repeated_total counter
eventflow_ingest_events_repeated_total 2
# HELP eventflow_ingest_inflight_bytes Memory that publishes in flight have reserved.
# TYPE eventflow_ingest_inflight_bytes gauge
eventflow_ingest_inflight_bytes 0
# HELP eventflow_ingest_requests_total Requests to the publish and delivery API, by operation and status code.
# TYPE eventflow_ingest_requests_total counter
eventflow_ingest_requests_total{code="200",operation="list"} 1
eventflow_ingest_requests_total{code="200",operation="publish"} 1
eventflow_ingest_requests_total{code="202",operation="publish"} 2
eventflow_ingest_requests_total{code="400",operation="publish"} 1
eventflow_ingest_requests_total{code="404",operation="none"} 1
`
	err := testutil.GatherAndCompare(f.registry, strings.NewReader(want), "eventflow_ingest_events_accepted_total",
		"eventflow_ingest_events_repeated_total", "eventflow_ingest_inflight_bytes", "eventflow_ingest_requests_total")
	if err != nil {
		t.Error(err)
	}
	if _, err := New(Options{}); err == nil {
		t.Error("New takes no options at all")
	}
	options := f.options
	if _, err := New(options); err == nil {
		t.Error("New registers the same metrics twice")
	}
	options.MaxEventBytes = maxRequestBytes + 1
	if _, err := New(options); err == nil {
		t.Error("New takes events that no request can hold")
	}
}

// TestNothingLeaks looks for what events hold in all that is answered, logged and counted.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	const canary = "canary-4711"
	var mu sync.Mutex
	var logged strings.Builder
	f := newFixture(t, func(o *Options) {
		o.Logger = funcr.New(func(_, args string) {
			mu.Lock()
			defer mu.Unlock()
			logged.WriteString(args)
		}, funcr.Options{Verbosity: 10})
	})
	good := `{"type":"patient.created","data":{"` + canary + `":"` + canary + `"},"previous":{"a":"` + canary + `"}}`
	for _, body := range []string{
		good, good[:len(good)-3], good + good, strings.Replace(good, `"}`, "\"\xff}", 1), strings.Replace(good, "created", "exploded", 1),
		strings.Replace(good, `"data":{`, `"data":[`, 1), "[" + good + ",1]", strings.Replace(good, `"type"`, `"timestamp":"`+canary+`","type"`, 1),
		strings.Replace(good, `"type"`, `"id":"/`+canary+`","type"`, 1), strings.Replace(good, `:"`+canary, `:`+canary, 1),
		strings.Replace(good, `"data":{`, `"data":"`+canary+`","x":{`, 1), strings.Repeat(good, 30000), strings.Replace(good, `{"a"`, `{"a":01,"a"`, 1),
	} {
		for _, contentType := range []string{jsonType, cloudEventType, cloudEventBatchType} {
			w := f.do("POST", "/v1/namespaces/clinic-a/events", body, "Content-Type: "+contentType, "Authorization: Bearer "+canary)
			if strings.Contains(w.Body.String(), canary) || strings.Contains(fmt.Sprint(w.Header()), canary) {
				t.Errorf("answer to %.200s: %s", body, w.Body)
			}
		}
	}
	f.store.failing(io.ErrUnexpectedEOF)
	f.publish(good)
	f.publishWithAPIServerAway(t, canary)
	mu.Lock()
	defer mu.Unlock()
	if logged.Len() == 0 || strings.Contains(logged.String(), canary) {
		t.Errorf("logged %s", logged.String())
	}
	if text := gather(t, f); strings.Contains(text, canary) {
		t.Errorf("counted %s", text)
	}
}

// publishWithAPIServerAway publishes with a token that cannot be reviewed.
func (f *fixture) publishWithAPIServerAway(t *testing.T, token string) {
	t.Helper()
	server := newAPIServer()
	server.down = io.ErrUnexpectedEOF
	f.options.Authorizer = newKubernetes(t, server)
	wantProblem(t, f.publish(`{}`, "Authorization: Bearer "+token), unavailable)
}

func gather(t *testing.T, f *fixture) string {
	t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(families)
}

// accepting is a store that accepts all, and does nothing else.
type accepting struct {
	store.Store
	answers []store.Accepted
}

func (a *accepting) Append(_ context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	for i := range events {
		a.answers[i] = store.Accepted{ID: events[i].Event.ID, Deliveries: len(events[i].Subscriptions)}
	}
	return a.answers[:len(events)], nil, nil
}

func BenchmarkPublish(b *testing.B) {
	data := `{"resourceType":"patient","resourceId":"pt_abc123","action":"created","tenantId":"org_def456","note":"` + strings.Repeat("x", 900) + `"}`
	one := `{"type":"patient.created","data":` + data + `}`
	for name, body := range map[string]string{"single": one, "batch-100": "[" + strings.Repeat(one+",", 99) + one + "]"} {
		b.Run(name, func(b *testing.B) {
			table := newTable(b, "clinic-a/everything=*")
			catalog, err := event.NewCatalog()
			if err != nil {
				b.Fatal(err)
			}
			answers := make([]store.Accepted, 100)
			accepts := &accepting{answers: answers}
			deliveries, err := query.New(query.Options{Store: accepts, Resume: func([]delivery.PendingDelivery) {}})
			if err != nil {
				b.Fatal(err)
			}
			h, err := New(Options{
				Store: accepts, Routes: func() *routing.Table { return table },
				Accept: func([]delivery.Fanout) {}, Deliveries: deliveries, Catalog: catalog, Authorizer: None{},
			})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			r, err := http.NewRequest(http.MethodPost, "/v1/namespaces/clinic-a/events", http.NoBody)
			if err != nil {
				b.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			reader := strings.NewReader(body)
			r.Body, r.ContentLength = io.NopCloser(reader), int64(len(body))
			w := &countingAnswer{header: http.Header{}}
			for b.Loop() {
				reader.Reset(body)
				h.ServeHTTP(w, r)
			}
			if w.status != http.StatusAccepted {
				b.Errorf("got %d", w.status)
			}
		})
	}
}

// countingAnswer is a ResponseWriter that is used again.
type countingAnswer struct {
	header http.Header
	status int
}

func (w *countingAnswer) Header() http.Header         { return w.header }
func (w *countingAnswer) Write(b []byte) (int, error) { return len(b), nil }
func (w *countingAnswer) WriteHeader(status int)      { w.status = status }
