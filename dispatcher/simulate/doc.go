// Package simulate says what subscriptions would do with a sequence of events, without a dispatcher: which events match and why
// not, when each delivery is due and why, what a later event replaces or cancels, and the request that the endpoint would get.
//
//	manifests ─► Subscriptions ─┐
//	events    ─► ReadEvents ────┴─► Run ─► Report
//
// Every rule is the product's own. Subscriptions are compiled by package routing, events are read and decided on by ingest,
// keys are resolved by plan, requests are made by payload and written by egress. What is here is a store in memory, a clock
// that the events move, and the words that explain.
//
// # Time
//
// Time is virtual. It begins at Options.Start or, without one, at the timestamp of the first event. Each event is published at
// its own timestamp, or at the current time if that is later or the event has none. A planned delivery that is due before the
// next event is delivered, so that this event does not replace it. Endpoints always answer with success.
//
// # Secrets
//
// A Report holds no value of a Secret: a header that has one, a URL that is one, and the signatures are masked, with the names
// of the Secret and its key. A Secret that is missing is replaced by a placeholder, which is masked likewise. Bodies are made
// of events and of the lookup's answer alone.
package simulate
