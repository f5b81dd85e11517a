package tracing

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
)

// DefaultShare of the publishes is traced if the environment does not say how many.
const DefaultShare = 0.01

// errorPause is how often it is logged that spans could not be exported.
const errorPause = time.Minute

// Options are what a Tracer works with.
type Options struct {
	// Getenv reads the environment, as os.Getenv does.
	Getenv func(string) string
	// Version of the program.
	Version string
	Logger  logr.Logger
	// Exporter takes the spans in place of the collector that the environment names; tests set it.
	Exporter trace.SpanExporter
}

// Tracer makes spans. A nil one makes none, and changes no trace context. It is safe for concurrent use.
type Tracer struct {
	share    float64 // negative: the provider's sampler decides
	provider *trace.TracerProvider
	tracer   api.Tracer
}

// New returns the tracer that the environment asks for; nil if it asks for none. Its errors say which variable is wrong.
func New(ctx context.Context, o Options) (*Tracer, error) {
	named := o.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || o.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	off := o.Getenv("OTEL_SDK_DISABLED") == "true" || o.Getenv("OTEL_TRACES_EXPORTER") == "none"
	if off || !named && o.Exporter == nil {
		return nil, nil //nolint:nilnil // a nil Tracer is usable
	}
	t := &Tracer{share: -1}
	options := []trace.TracerProviderOption{}
	if o.Getenv("OTEL_TRACES_SAMPLER") == "" {
		var err error
		if t.share, err = shareOf(o.Getenv("OTEL_TRACES_SAMPLER_ARG")); err != nil {
			return nil, err
		}
		options = append(options, trace.WithSampler(trace.AlwaysSample()))
	}
	exporter := o.Exporter
	if exporter == nil {
		var err error
		if exporter, err = otlptracehttp.New(ctx); err != nil { // it reads OTEL_EXPORTER_OTLP_*
			return nil, fmt.Errorf("set the exporter of traces up: %w", err)
		}
	}
	about, err := resource.Merge(
		resource.NewSchemaless(attribute.String("service.name", "eventflow-dispatcher"), attribute.String("service.version", o.Version)),
		resource.Environment(), // OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
	)
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(&complaints{logger: o.Logger})
	t.provider = trace.NewTracerProvider(append(options, trace.WithBatcher(exporter), trace.WithResource(about))...)
	t.tracer = t.provider.Tracer("github.com/clinikapi/eventflow")
	return t, nil
}

func shareOf(text string) (float64, error) {
	if text == "" {
		return DefaultShare, nil
	}
	share, err := strconv.ParseFloat(text, 64)
	if err != nil || !(share >= 0 && share <= 1) {
		return 0, errors.New("OTEL_TRACES_SAMPLER_ARG is not a number from 0 to 1")
	}
	return share, nil
}

// complaints logs the SDK's errors, such as that the collector cannot be reached, once in a while.
type complaints struct {
	logger logr.Logger

	mu     sync.Mutex
	logged time.Time
	silent int
}

// Handle takes an error of the SDK. Its text may name the collector's address.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent++; time.Since(c.logged) < errorPause {
		return
	}
	c.logger.Error(err, "Traces could not be exported", "errors", c.silent)
	c.logged, c.silent = time.Now(), 0
}

// Close exports what is left, until ctx ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Publish begins the span of a publish, if it is to be traced; nil if not. traceparent is the publisher's context, or "".
func (t *Tracer) Publish(namespace, traceparent string) *Span {
	if t == nil || t.share >= 0 && rand.Float64() >= t.share {
		return nil
	}
	return t.begin("publish", api.SpanKindServer, traceparent, true, attribute.String("eventflow.namespace", namespace))
}

// Context is the trace context that an event is stored with: that of its span, or the publisher's, of which nothing more is
// traced here without a span.
func (t *Tracer) Context(s *Span, traceparent string) string {
	switch {
	case t == nil:
		return traceparent
	case s == nil:
		return unsampled(traceparent)
	default:
		return s.Traceparent()
	}
}

// Attempt says what a span of an attempt is about.
type Attempt struct {
	Namespace, Subscription string // "" if the subscription was deleted
	EventType, Delivery     string
	Number                  int
}

// Deliver begins the span of an attempt for an event that carries a sampled context; nil for any other. about is called if
// there is one.
func (t *Tracer) Deliver(traceparent string, about func() Attempt) *Span {
	if t == nil || !sampled(traceparent) {
		return nil
	}
	a := about()
	return t.begin("deliver", api.SpanKindClient, traceparent, false,
		attribute.String("eventflow.namespace", a.Namespace), attribute.String("eventflow.subscription", a.Subscription),
		attribute.String("eventflow.event_type", a.EventType), attribute.String("eventflow.delivery", a.Delivery),
		attribute.Int("eventflow.attempt", a.Number))
}

// begin begins a span whose parent is the context, if that is one.
func (t *Tracer) begin(name string, kind api.SpanKind, traceparent string, remote bool, about ...attribute.KeyValue) *Span {
	ctx := propagation.TraceContext{}.Extract(context.Background(), carrier{traceparent: traceparent})
	if parent := api.SpanContextFromContext(ctx); parent.IsValid() {
		ctx = api.ContextWithSpanContext(ctx, parent.WithRemote(remote))
	}
	ctx, span := t.tracer.Start(ctx, name, api.WithSpanKind(kind), api.WithAttributes(about...))
	if !span.IsRecording() {
		return nil
	}
	return &Span{tracer: t.tracer, ctx: ctx, span: span}
}

// Lengths and flags of a W3C traceparent, version 00.
const (
	flagsAt     = 53
	traceLength = 55
)

// sampled reports whether a valid context has the flag (section 3.2.2.5): the last bit of a hexadecimal digit.
func sampled(traceparent string) bool {
	return len(traceparent) == traceLength && strings.IndexByte("13579bdf", traceparent[flagsAt+1]) >= 0
}

// unsampled is the context without its flags.
func unsampled(traceparent string) string {
	if !sampled(traceparent) {
		return traceparent
	}
	return traceparent[:flagsAt] + "00"
}

// carrier holds one header.
type carrier struct{ traceparent string }

// Get returns the header of that name.
func (c carrier) Get(name string) string {
	if name == "traceparent" {
		return c.traceparent
	}
	return ""
}

// Set is part of the interface; nothing is set.
func (carrier) Set(string, string) {}

// Keys are the headers' names.
func (carrier) Keys() []string { return []string{"traceparent"} }
