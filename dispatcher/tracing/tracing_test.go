package tracing

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	traceID  = "0af7651916cd43dd8448eb211c80319c"
	parentID = "b7ad6b7169203331"
	followed = "00-" + traceID + "-" + parentID + "-01"
	ignored  = "00-" + traceID + "-" + parentID + "-00"
)

// with returns a tracer of the environment, and what it exported so far.
func with(t *testing.T, environment map[string]string) (*Tracer, func() tracetest.SpanStubs) {
	t.Helper()
	exporter := tracetest.NewInMemoryExporter()
	for name, value := range environment { // the SDK reads its own
		t.Setenv(name, value)
	}
	tracer, err := New(t.Context(), Options{
		Getenv: func(name string) string { return environment[name] }, Version: "v1", Logger: logr.Discard(), Exporter: exporter,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tracer.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tracer, func() tracetest.SpanStubs {
		if err := tracer.provider.ForceFlush(t.Context()); err != nil {
			t.Error(err)
		}
		return exporter.GetSpans()
	}
}

// TestOff: without a collector, or if it is switched off, nothing is traced, and contexts pass as they are.
func TestOff(t *testing.T) {
	t.Parallel()
	for name, environment := range map[string]map[string]string{
		"nothing":  {},
		"no sdk":   {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"},
		"exporter": {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tracer, err := New(t.Context(), Options{Getenv: func(name string) string { return environment[name] }, Logger: logr.Discard()})
			if tracer != nil || err != nil {
				t.Fatalf("New gave %v, %v", tracer, err)
			}
			span := tracer.Publish("clinic-a", followed)
			span.Step("match")()
			span.End(202, "")
			if got := tracer.Context(span, followed); got != followed {
				t.Errorf("the context became %q", got)
			}
			if d := tracer.Deliver(followed, nil); d != nil || tracer.Close(t.Context()) != nil {
				t.Error("an attempt was traced")
			}
		})
	}
}

// TestTrace follows a publish and two attempts.
func TestTrace(t *testing.T) {
	tracer, exported := with(t, map[string]string{"OTEL_TRACES_SAMPLER_ARG": "1", "OTEL_RESOURCE_ATTRIBUTES": "site=north"})
	publish := tracer.Publish("clinic-a", ignored) // not that the publisher asked for it
	publish.Step("match")()
	stored := tracer.Context(publish, ignored)
	publish.End(202, "")
	about := func() Attempt { return Attempt{"clinic-a", "billing", "patient.created", "dlv_1", 2} }
	tracer.Deliver(stored, about).End(500, "StatusCode")
	second := tracer.Deliver(stored, about)
	sent := second.Traceparent()
	second.End(200, "")

	spans := exported()
	if len(spans) != 4 {
		t.Fatalf("%d spans", len(spans))
	}
	byName := map[string]tracetest.SpanStub{}
	for _, s := range spans {
		byName[s.Name] = s // the second attempt
		if got := s.SpanContext.TraceID().String(); got != traceID {
			t.Errorf("%s is of trace %s", s.Name, got)
		}
		if !strings.Contains(s.Resource.String(), "service.name=eventflow-dispatcher") || !strings.Contains(s.Resource.String(), "site=north") {
			t.Errorf("%s is of %s", s.Name, s.Resource)
		}
	}
	top := byName["publish"].SpanContext.SpanID()
	if byName["publish"].Parent.SpanID().String() != parentID || byName["match"].Parent.SpanID() != top || byName["deliver"].Parent.SpanID() != top {
		t.Errorf("the parents are wrong: %+v", spans)
	}
	if want := "00-" + traceID + "-" + byName["deliver"].SpanContext.SpanID().String() + "-01"; sent != want {
		t.Errorf("the endpoint gets %q, want %q", sent, want)
	}
	if s := spans[2]; s.Status.Description != "StatusCode" {
		t.Errorf("the failed attempt ended with %v", s.Status)
	}
	text := ""
	for _, a := range byName["deliver"].Attributes {
		text += string(a.Key) + "=" + a.Value.String() + " "
	}
	if want := "eventflow.namespace=clinic-a eventflow.subscription=billing eventflow.event_type=patient.created eventflow.delivery=dlv_1 eventflow.attempt=2 http.response.status_code=200 "; text != want {
		t.Errorf("an attempt says %s", text)
	}
}

// TestShare: the share decides, and not the publisher; what is not traced is not traced later either.
func TestShare(t *testing.T) {
	tracer, exported := with(t, map[string]string{"OTEL_TRACES_SAMPLER_ARG": "0"})
	for range 1000 {
		if s := tracer.Publish("clinic-a", followed); s != nil {
			t.Fatal("a publish was traced")
		}
	}
	for _, tc := range []struct{ from, want string }{{followed, ignored}, {ignored, ignored}, {"", ""}, {followed[:53] + "0b", ignored}} {
		if got := tracer.Context(nil, tc.from); got != tc.want || tracer.Deliver(got, nil) != nil {
			t.Errorf("%q became %q, want %q", tc.from, got, tc.want)
		}
	}
	if spans := exported(); len(spans) != 0 {
		t.Errorf("%d spans", len(spans))
	}
}

// TestDefaultShare: about one publish of a hundred is traced.
func TestDefaultShare(t *testing.T) {
	tracer, _ := with(t, nil)
	n := 0
	for range 20_000 {
		if s := tracer.Publish("clinic-a", followed); s != nil {
			n++
		}
	}
	if n < 100 || n > 320 { // eight standard deviations
		t.Errorf("%d of 20000 were traced", n)
	}
}

// TestSampler: the SDK's samplers may be had, such as the one that follows publishers.
func TestSampler(t *testing.T) {
	tracer, exported := with(t, map[string]string{"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"})
	tracer.Publish("clinic-a", ignored).End(202, "")
	tracer.Publish("clinic-a", "").End(202, "")
	s := tracer.Publish("clinic-a", followed)
	s.End(202, "")
	if spans := exported(); len(spans) != 1 || s.Traceparent() == "" {
		t.Errorf("%d spans, want that of the publisher who asked for it", len(spans))
	}
}

// TestBadShare: a share that is none is an error that names the variable.
func TestBadShare(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"2", "-0.1", "NaN", "half"} {
		_, err := New(t.Context(), Options{
			Getenv:   func(name string) string { return map[string]string{"OTEL_TRACES_SAMPLER_ARG": text}[name] },
			Exporter: tracetest.NewInMemoryExporter(), Logger: logr.Discard(),
		})
		if err == nil || !strings.Contains(err.Error(), "OTEL_TRACES_SAMPLER_ARG") {
			t.Errorf("%q gave %v", text, err)
		}
	}
}

// TestComplaints: a collector that is not there is logged once a minute.
func TestComplaints(t *testing.T) {
	t.Parallel()
	lines := 0
	c := &complaints{logger: funcr.New(func(string, string) { lines++ }, funcr.Options{})}
	for range 1000 {
		c.Handle(errors.New("refused"))
	}
	if lines != 1 {
		t.Errorf("%d lines", lines)
	}
}

// BenchmarkPublishUntraced is what tracing costs a publish that is not traced.
func BenchmarkPublishUntraced(b *testing.B) {
	tracer, err := New(b.Context(), Options{
		Getenv:   func(name string) string { return map[string]string{"OTEL_TRACES_SAMPLER_ARG": "0"}[name] },
		Exporter: tracetest.NewNoopExporter(), Logger: logr.Discard(),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = tracer.Close(b.Context()) }()
	b.ReportAllocs()
	for b.Loop() {
		s := tracer.Publish("clinic-a", "")
		_ = tracer.Context(s, "")
		s.Step("match")()
		s.End(202, "")
	}
}
