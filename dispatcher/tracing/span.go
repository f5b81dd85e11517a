package tracing

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	api "go.opentelemetry.io/otel/trace"
)

// Span is a step of a trace that is recorded. All methods of a nil one do nothing.
type Span struct {
	tracer api.Tracer
	ctx    context.Context //nolint:containedctx // it holds the span, for its children
	span   api.Span
}

// Step begins a step of the span; the function that it returns ends it.
func (s *Span) Step(name string) (end func()) {
	if s == nil {
		return func() {}
	}
	_, step := s.tracer.Start(s.ctx, name)
	return func() { step.End() }
}

// End ends the span of an exchange. status is the answer's, 0 for none. A reason, one of a fixed set of words, says that it
// failed.
func (s *Span) End(status int, reason string) {
	if s == nil {
		return
	}
	if status != 0 {
		s.span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	if reason != "" {
		s.span.SetStatus(codes.Error, reason)
		s.span.SetAttributes(attribute.String("error.type", reason))
	}
	s.span.End()
}

const hexDigits = "0123456789abcdef"

// Traceparent is the span's context as a header (W3C Trace Context, section 3.2); "" for none.
func (s *Span) Traceparent() string {
	if s == nil {
		return ""
	}
	c := s.span.SpanContext()
	trace, span := c.TraceID(), c.SpanID()
	b := make([]byte, 0, traceLength)
	b = append(b, "00-"...)
	for _, part := range [...][]byte{trace[:], span[:], {byte(c.TraceFlags())}} {
		for _, v := range part {
			b = append(b, hexDigits[v>>4], hexDigits[v&15])
		}
		b = append(b, '-')
	}
	return string(b[:traceLength])
}
