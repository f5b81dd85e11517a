// Package dispatcher is the data plane: it accepts events, keeps them, and delivers each to every subscription that
// matches. An event's way goes through one package a step, and each knows only those to its right:
//
//	ingest ─► routing ─► store ─► delivery ─► egress
//
// ingest parses what a producer posts, routing says which subscriptions it matches, store makes the event and its
// deliveries durable, delivery decides when each is attempted, and egress, with signature, attempts it. Package status
// looks on, and tells Kubernetes. This package puts them together, starts them, and stops them in the order in which
// nothing is lost.
package dispatcher
