// Package operational tells tenants, by events, what happens to their subscriptions: an endpoint fails, recovers or is gone,
// a delivery is given up, a signing key changes.
//
// An operational event goes the way of every event: it is matched, filtered, planned, charged to its tenant and durable before
// it counts as sent. Three things are different. It is of the tenant that owns the subscription, whoever published what. It is
// never for the subscription that it is about, and never about the delivery of an operational event: nothing echoes. And
// each subscription has a rate: what comes faster waits, and of what waits the newest goes, with the number of the others.
//
//	engine, after an outcome was recorded ──► Note ──► rate of the subscription ──► turn of the tenant ──► Publish
//	a table with other keys ─────────────────►              │ (one waits, others are counted)      │ retried for an hour
//
// # How often
//
// An event's id follows from what it is about, so that a second one within 24 hours is a repetition, which the store drops.
// What is true for long (failing, gone) is noted again when a process takes the subscription's deliveries up: it may be sent
// again, once in 24 hours at most. A delivery is named once for each time that it is given up.
//
// # What may be lost
//
// An outcome is recorded first and told of afterwards. If the process is killed between the two, failing and gone are made
// good when the subscription's deliveries are taken up again; recovered, and a delivery that was given up, are not. What is
// held is bounded by tenant. One event of a tenant is under way at a time, and tenants that the store had to be waited for
// in vain share a quarter of the places. What finds no room, or no store for an hour, is counted as dropped.
package operational
