// Package tracing makes OpenTelemetry spans of an event's way: publish, match and store, and one for each attempt.
//
//	publish ─┬─ match     the types' subscriptions, filters, plans
//	         ├─ store     until the event is durable
//	         ├─ deliver   attempt 1 to one subscription
//	         └─ deliver   attempt 2, an hour later, maybe of another process
//
// The event carries the context of its publish span in the store (W3C Trace Context), so that an attempt joins the trace
// whenever it is made. The endpoint gets the context of the attempt in the header traceparent.
//
// It is off unless the environment names a collector, in the way of every OpenTelemetry SDK: OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, over HTTP. OTEL_TRACES_SAMPLER_ARG is the share of publishes that is traced, 0.01 by
// default. That is decided here, whatever the publisher's context says: a tenant that marks each request as sampled costs
// nobody anything. OTEL_TRACES_SAMPLER takes one of the SDK's samplers in place of that, such as
// parentbased_traceidratio, which follows publishers.
//
// A span says namespace, subscription, event type, delivery id, attempt, status code and reason. Ids that publishers chose,
// URLs, headers and payloads are in none.
package tracing
