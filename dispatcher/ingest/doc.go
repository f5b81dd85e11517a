// Package ingest is the first step of an event's way: the HTTP API that accepts events, and that lists and replays the
// deliveries they caused.
//
//	POST /v1/namespaces/{namespace}/events                   publish one event, an array, or CloudEvents 1.0
//	GET  /v1/namespaces/{namespace}/deliveries               list, newest first
//	GET  /v1/namespaces/{namespace}/deliveries/{id}          one delivery with its attempts
//	POST /v1/namespaces/{namespace}/deliveries/{id}/replay   deliver it again
//	POST /v1/namespaces/{namespace}/deliveries/replay        deliver again all that a query selects
//
// A publish is authorized, read into a bounded buffer, parsed in one pass, matched against the routing table, appended
// to the store, handed to the engine, and only then answered. Whatever fails on that way is answered with a problem
// document (RFC 9457) that says what to do and never repeats what the event held; nothing of it is stored, or the store
// could not tell, and then the same id can be sent again: it is not stored twice.
//
// Nobody can hold it: connections are bounded by package listener, bodies have a least rate and places by namespace and
// by address, and the API server is asked about tokens in lanes, so that a flood of bad ones delays no good one.
//
// Memory is bounded by what was received, not by what was announced: a body's buffer grows as its bytes arrive, all
// buffers together stay below Options.MaxInFlightBytes, and what does not fit is refused with 429.
package ingest
