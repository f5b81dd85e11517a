// Package pebble is the embedded store: one directory, one process, on the log-structured engine that CockroachDB uses.
//
// # Layout
//
// A key begins with one byte that names its keyspace; numbers are big-endian, so that keys sort as their parts do.
//
//	p  subscription, due, event            pending delivery
//	r  subscription, event                 history of a pending delivery that was attempted, replayed, or is due at
//	                                       another time than its event was accepted: due, attempts, what it replays
//	o  subscription, order, event          pending delivery that is ordered
//	e  hour, event                         event, in the hour it was accepted, or moved to
//	d  hour, namespace, event, subscription  delivered delivery, in the hour it finished
//	f  day, namespace, event, subscription   failed or cancelled delivery, in the day it finished
//	g  day, event                          the event of a failed delivery
//	i  day, hash                           (namespace, id) of an accepted event
//	c  subscription                        counts
//	s  subscription, namespace             name
//	m  name                                the format of all this
//
// A delivery that succeeds at once costs three small writes and its share of the event: p and i when it is appended, d
// in p's place when it is recorded. A p key is written once and deleted once, so that both vanish when they first meet in
// a flush; nothing accumulates where the queue of a busy subscription begins.
//
// # Buckets
//
// What finishes is filed by the time it finished, and dropped by whole buckets: the keys e, d, f, g and i sort by time
// first. Hours are dropped when the retention of delivered deliveries has passed, days by that of failed ones. An e
// bucket outlives the d bucket of its hour by one, so only deliveries that finish more than an hour late take a copy of
// their event along; before an e bucket goes, the events that pending deliveries still need move to the current one.
// Finding an event means asking the buckets that exist, the one of its acceptance first.
//
// # Ids
//
// Whether an id was accepted before is a look at up to two i keys. A Bloom filter of the ids of the last days, filled from the
// i keys in the background when the store is opened, spares nearly every one of them; until it is filled, and where it
// says that an id may be known, the keys are read. It is bounded at 64 MiB.
//
// # Durability
//
// Append and Replay wait for the write-ahead log to be synced, which Pebble does once for all that wait. Record does not
// wait: its outcomes are synced with the next event that is appended, or within 50 ms. What a reader sees may not be durable yet, with one exception that matters: a repetition is answered only when
// the first acceptance is. When a write or a sync fails, the process ends with one line; nothing that failed was
// acknowledged, and opening the directory again recovers what was.
package pebble
