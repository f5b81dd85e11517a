package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// traceCollector takes spans as an OpenTelemetry collector does (OTLP over HTTP).
type traceCollector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracev1.Span
	raw   bytes.Buffer
}

func newTraceCollector(t *testing.T) *traceCollector {
	t.Helper()
	c := &traceCollector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw.Write(body)
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// named returns the spans of that name, in the order in which they began.
func (c *traceCollector) named(name string) (found []*tracev1.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.GetName() == name {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b *tracev1.Span) int { return int(a.GetStartTimeUnixNano()) - int(b.GetStartTimeUnixNano()) })
	return found
}

// TestTraces follows an event through its publish, a failed attempt, a kill -9 and a second attempt, in one trace of the
// publisher's, which goes on at the endpoint. Nothing in it is the patient's.
func TestTraces(t *testing.T) {
	t.Parallel()
	e, c := newEndpoint(t), newTraceCollector(t)
	e.fail(http.StatusServiceUnavailable)
	p := newPlane(t, e.URL+"/secret-path")
	p.end(syscall.SIGTERM)
	p.environment = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL, "OTEL_TRACES_SAMPLER_ARG=1", "OTEL_BSP_SCHEDULE_DELAY=100"}
	p.start()
	const traceID, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.api+"/v1/namespaces/clinic-a/events",
		strings.NewReader(`{"id":"evt-secret","type":"patient.created","data":{"resourceId":"secret-id","name":"secret-name"}}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Traceparent", "00-"+traceID+"-"+parent+"-00")
	response, err := http.DefaultClient.Do(request) //nolint:forbidigo // a test's
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	eventually(t, "the span of a failed attempt", func() bool { return len(c.named("deliver")) > 0 })
	p.end(syscall.SIGKILL)
	e.fail(http.StatusNoContent)
	p.start()
	eventually(t, "the span of the delivery", func() bool {
		spans := c.named("deliver")
		return spans[len(spans)-1].GetStatus().GetMessage() == ""
	})
	for _, name := range []string{"publish", "match", "store", "deliver"} {
		spans := c.named(name)
		if len(spans) == 0 {
			t.Errorf("there is no span %s", name)
		}
		for _, s := range spans {
			if fmt.Sprintf("%x", s.GetTraceId()) != traceID {
				t.Errorf("%s is of trace %x", name, s.GetTraceId())
			}
		}
	}
	publish, attempts := c.named("publish")[0], c.named("deliver")
	if fmt.Sprintf("%x", publish.GetParentSpanId()) != parent {
		t.Errorf("the publish has the parent %x", publish.GetParentSpanId())
	}
	for i, a := range e.received() {
		if i >= len(attempts) { // killed before it was exported
			break
		}
		if s := attempts[i]; !bytes.Equal(s.GetParentSpanId(), publish.GetSpanId()) {
			t.Errorf("attempt %d has the parent %x", i, s.GetParentSpanId())
		}
		if got := a.header.Get("Traceparent"); !strings.HasPrefix(got, "00-"+traceID+"-") || !strings.HasSuffix(got, "-01") {
			t.Errorf("the endpoint got %q", got)
		}
	}
	last := e.received()[len(e.received())-1].header.Get("Traceparent")
	if want := fmt.Sprintf("00-%s-%x-01", traceID, attempts[len(attempts)-1].GetSpanId()); last != want {
		t.Errorf("the endpoint got %q at last, want %q", last, want)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Contains(c.raw.Bytes(), []byte("secret")) {
		t.Error("a span says what it must not")
	}
}

// TestTracesWithoutACollector: a collector that is not there costs the log a line, and deliveries nothing.
func TestTracesWithoutACollector(t *testing.T) {
	t.Parallel()
	e, c := newEndpoint(t), newTraceCollector(t)
	c.Close()
	p := newPlane(t, e.URL)
	p.end(syscall.SIGTERM)
	p.environment = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL, "OTEL_TRACES_SAMPLER_ARG=1", "OTEL_BSP_SCHEDULE_DELAY=50", "OTEL_EXPORTER_OTLP_TIMEOUT=500"}
	p.start()
	for n := range 20 {
		p.publish(fmt.Sprint("evt-", n))
	}
	eventually(t, "all deliveries", func() bool { return len(e.received()) == 20 })
	p.end(syscall.SIGTERM)
	if got := strings.Count(p.log.String(), "Traces could not be exported"); got != 1 {
		t.Errorf("%d lines about it:\n%s", got, &p.log)
	}
}
