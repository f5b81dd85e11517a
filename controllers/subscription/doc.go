// Package subscription reconciles WebhookSubscriptions: it reads the Secrets that one names, compiles it into an entry
// of its dispatcher's routing table, and says in its conditions what came of that.
//
//	Accepted is decided here: the spec is valid, its dispatcher takes it, and its Secrets hold what it needs.
//	Programmed is concluded: the dispatcher reports a revision of the routing table that has this generation, once for all.
//	Ready sums up: Accepted, and Programmed for this generation, and the endpoint not Gone.
//
// A subscription that is not accepted keeps its last valid entry: it goes on matching, and its deliveries wait. One
// that was never accepted matches nothing.
//
// What Accepted follows from is remembered with resource versions, so that the many changes of a dispatcher's
// conditions cost no reading of Secrets. Of all Secrets but those in routing tables, the manager caches metadata alone. One
// that many subscriptions name is read once for all that are reconciled within a few seconds, and then forgotten.
package subscription
