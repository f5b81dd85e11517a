// Package status tells a subscription's readers what the dispatcher knows of it: the generation that it
// delivers by, the condition EndpointHealthy, the delivery counts, and the deliveries that are being retried, in the status
// subresource. Of the dispatcher itself it says the version, and how its store is. The manager decides the other conditions
// by that.
//
// It looks on from the side: no event waits for it, and while the API server is unavailable it only falls behind. Writes are
// server-side applies of one field owner, in two queues with a budget each:
//
//	table: came, changed ─► news ─────────────────────┐
//	deliveries: health   ─► news, or upkeep if it flaps ├─► Apply
//	deliveries: counts   ─► upkeep, the most wrong first ┘
//	start: survey        ─► what differs from what stands
//
// Nothing is written that would change nothing. What stands is found out after a restart by a list, 1,000 subscriptions with a
// request, so that times of transition stay; what came into the table, or changed in it, does not wait for that, and nothing is
// asked about what came.
package status
