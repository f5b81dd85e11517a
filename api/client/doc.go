// Package client publishes events to a dispatcher, and asks for the deliveries that they caused: the HTTP API of
// docs/publishing.md, for programs. It depends on the standard library and on package event alone, so a producer takes nothing of
// Kubernetes with it.
//
//	c, err := client.New(client.Config{
//		URL:   "https://eventflow-dispatcher-default.eventflow-system.svc",
//		Token: client.TokenFile("/var/run/secrets/kubernetes.io/serviceaccount/token"),
//	})
//	accepted, err := c.Publish(ctx, "clinic-a", client.Event{Type: "appointment.created", Data: data})
//
// # Publishing
//
// Publish returns once the event and its deliveries are on disk. An event without an id gets one before the first attempt, and
// every attempt sends the same bytes. The dispatcher remembers an id for 24 hours, so an event is stored once however often it
// is sent. Publish therefore tries again after a broken connection, 408, 429, 502, 503 and 504: not before the time that
// Retry-After names (RFC 9110, section 10.2.3), else after a growing pause with jitter. Config.RetryFor bounds all of it. A
// program that still fails, or ends meanwhile, can publish the same event with the same id later.
//
// # Deliveries
//
// Deliveries returns a page, All iterates over pages. Replay, ReplayMany, Cancel and SendNow change deliveries. None of these is
// tried again: a caller decides whether a second replay is wanted.
//
// # Errors
//
// An answer that is not a success is a *Problem, made of the problem document (RFC 9457). No answer at all is an
// *UnreachableError. No error holds a URL, a token, or anything of an event's data.
package client
