// Package status tells a subscription's readers what the dispatcher alone knows of it: the condition EndpointHealthy, the
// delivery counts, failures of its expressions, and the deliveries that are being retried, in the status subresource. A
// subscription of which there is nothing to say is not written. Of the dispatcher itself it says the version, how its store is,
// and by which revision of the routing table every pod works. The manager decides the other conditions by that. For a manager of
// the version before, the generation that is delivered by is said at each subscription instead.
//
// It looks on from the side: no event waits for it, and while the API server is unavailable it only falls behind. Writes are
// server-side applies of one field owner, in two queues with a budget each:
//
//	table: changed       ─► news ────────────────────────────────────────────────┐
//	deliveries: health   ─► upkeep, first if it rested ─┐                          ├─► Apply
//	deliveries: counts   ─► upkeep, the most wrong first ┴─► tenants take turns ──┘
//	start: survey        ─► what differs from what stands
//
// The budget of upkeep is one for all that deliveries change: a fortieth of the subscriptions a second, 20 to 150, and 300 at once
// after a rest. The first change of an endpoint's health after 40 s without a write is news: it has three of four turns. So it is
// written once each tenant that has news had a turn: T tenants take T/(0.75 × the budget) seconds.
//
// Nothing is written that would change nothing. What stands is found out after a restart by a list, 1,000 subscriptions with a
// request, so that times of transition stay; what came into the table, or changed in it, does not wait for that, and nothing is
// asked about what came.
package status
