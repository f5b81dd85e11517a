// Package engine takes pending deliveries, decides when each is attempted, hands it to egress, and
// records what came of it.
//
// Each subscription has a lane: its own queue, its own bound on attempts in flight, its own health. A lane keeps only a
// window of deliveries in memory. What does not fit, and every delivery that waits for its next attempt, stays in the store
// and is read back in the order in which it falls due.
//
// # Turns and places
//
// Tenants take turns, and of each tenant its lanes, for attempts and for loads from the store. Attempts in flight have
// places in three rooms: prompt for endpoints that answer soon, trial for those of which nothing is known, patient for
// those that fail, are slow or leave an attempt waiting for more than a second. In each room a tenant may hold four times
// as many places as are free, so that the next tenant always finds some. Trial and patient together leave a quarter to
// prompt, and each tenant has a place in prompt whatever the others do. So the wait of a tenant whose endpoints answer
// depends on its own load. An attempt that outlasts a second in prompt or trial moves to patient. Once places are scarce,
// an endpoint that does not answer has one. Memory is charged by tenant before an attempt starts, and given back when its
// request is written: what waits for an answer is a connection and a goroutine.
//
// What ends without an attempt (cancelled, aged out) goes in turn by tenant as well, a batch at a time. Outcomes of attempts
// wait for no more than one such batch.
//
//	       Accept (durable already)           Store.Due
//	                 │                            ▲ │
//	                 ▼                            │ ▼
//	lane:   [ ready, by due time ]  ◄──── backlog in the store
//	                 │  worker, in turn with other lanes
//	                 ▼
//	           Sender.Send ──► decide ──► Delivered | Failed | Pending at a later time
//	                                           │
//	                                           ▼
//	                                  recorder ──► Store.Record, many at once
//
// # Failure modes
//
// An endpoint fails: its deliveries are retried on schedule; after ten consecutive failures, one at a time. It asks to wait
// with Retry-After: its subscription gets one probe a minute until then. The store fails: outcomes queue up to a limit, then
// workers block, and nothing is sent whose outcome could not be recorded. The process dies: pending deliveries survive with
// their attempt count and due time. At most one attempt of each is repeated, under the same delivery id.
package engine
