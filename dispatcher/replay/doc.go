// Package replay runs the WebhookReplays of a dispatcher's subscriptions.
//
//	manager ─► status.subscriptions: which, and whose          (once)
//	Watch ─► Runner: of each tenant one, the oldest first ─► run: count, then pages by rate ─► status.dispatchers: how far
//
// The manager selects subscriptions. A dispatcher does the part of them that is its own, and writes how far it is in its own entry
// of the status. No payload and no right to one leaves the dispatcher.
//
// A run goes on only while the API server knows how far it is: a page of at most 500 deliveries or 2 s, then the position is
// written, then the next page. So whoever deletes or suspends a replay stops it, the answer to each write says so, and an
// outage of the API server stops it as well. A restarted dispatcher goes on behind the position that stands. What of the page
// behind it was done is not done again. A failed or cancelled delivery is in another state by then. A delivered one
// that was replayed is named by its repetition, which is looked for.
//
// Tenants take turns by the chunk, of 32 deliveries at most, for a few places and the memory of the bodies. A tenant whose quota of
// pending deliveries is used up waits by itself.
package replay
