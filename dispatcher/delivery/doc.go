// Package delivery is the engine: it takes pending deliveries, decides when each is attempted, hands it to egress, and
// records what came of it.
//
// Each subscription has a lane: its own queue, its own bound on attempts in flight, its own health. Lanes share a
// bounded number of workers in turn, so that no endpoint, however slow, delays another. A lane keeps only a window of
// deliveries in memory; what does not fit, and every delivery that waits for its next attempt, stays in the store and is
// read back in the order in which it falls due.
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
// What happens when something is away: an endpoint, its deliveries are attempted again by their schedule, one at a time
// after ten failures in a row; the store, outcomes wait in a bounded queue and then workers stand still, and nothing is
// sent that could not be recorded for long; the process, every pending delivery is in the store with its attempts and
// its due time, and at worst an attempt whose outcome was not yet written is made again, with the same delivery id.
package delivery
