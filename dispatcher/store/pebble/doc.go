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
//	e  hour, event                         event, in the hour it was accepted
//	d  hour, namespace, event, subscription  delivered delivery, in the hour it finished
//	l  hour, event                         reference to the event of a delivery that was delivered late
//	f  day, namespace, event, subscription   failed or cancelled delivery, in the day it finished
//	g  day, event                          reference to the event of a failed or cancelled delivery
//	i  day, hash                           (namespace, id) of an accepted event
//	v  subscription, event                 planned delivery that was not attempted: as r, which it has not
//	w  subscription, due, event            the same deliveries, by their planned time
//	n  subscription, schedule key, event   planned delivery that is pending and has a key
//	k  subscription, schedule key          latest event of the key, its timestamp, and when it was cancelled
//	y  day, subscription, schedule key     k that may go, filed under the day on which its delivery ended
//	c  subscription                        counts
//	s  subscription, namespace             name
//	m  name                                the format of all this, and the newest acceptance
//
// A delivery that succeeds at once costs three small writes and its share of the event: p and i when it is appended, d
// in p's place when it is recorded. A p key is written once and deleted once, so that both vanish when they first meet in
// a flush; nothing accumulates where the queue of a busy subscription begins.
//
// # Schedules
//
// A planned delivery is a pending one whose due time lies ahead: p, as any other, so that Due and Backlogs find it. It has
// v and w in place of a history, so that nothing that walks histories or due deliveries meets what waits. Nothing is done
// with it until it is due. With its first attempt, or when a user sends it, it becomes a delivery with a history.
//
// Its event stays in the hour of its acceptance, as every event does that something refers to. No bucket moves it, however
// far ahead it is planned. A sweep, once a day, reads which events are needed.
//
// An Append that plans or cancels takes the ledger, which Record, Replay, SendNow and Cancel take as well. It reads k, asks
// package plan, and commits, all with the ledger in hand; it waits for the log to be synced after that. So all of them are in
// one order. Start looks whether the delivery is pending, and notes in memory that it has started. It takes the ledger only if
// the delivery was attempted before or an Append has claimed it, so that attempts do not wait for outcomes to be written. A
// restart forgets the note: the attempt's outcome was lost with it, and the delivery waits again. An Append that neither plans
// nor cancels does not take the ledger.
//
// A cancel ends all pending deliveries of its key, which n lists. An attempt that is on its way meanwhile may still arrive:
// Record then makes the cancelled delivery Delivered. What was cancelled or replaced is kept as long as any other cancelled
// delivery, with a reference to its event.
//
// k outlives its delivery by 72 hours, so that an older event that arrives late plans nothing; the day's y then takes it
// along. What ends a delivery files its key there without a look at k, so that a y may be stale: a key with a pending latest
// delivery, or with a y of a later day, is not forgotten.
//
// # Buckets
//
// What finishes is filed by the time it finished, and dropped by whole buckets: the keys d, l, f, g and i sort by time
// first. Hours are dropped when the retention of delivered deliveries has passed, days by that of failed ones.
//
// Events never move and are never copied: an event stays in the hour of its acceptance until nothing needs it. A delivery
// that finishes writes a small record; if it failed, was cancelled, or was delivered more than an hour after its event was
// accepted, also a reference, which is a key without a value. An e bucket is kept for an hour longer than the d bucket of
// its hour. Then a sweep deletes what lies between the events that a pending delivery or a reference needs. It collects
// those in the order of their keys, so many at once as fit into 4 MiB. It deletes few events one by one, and many by a
// range, by which whole tables go. What is left is swept again once a day, and when a day of failed deliveries goes.
//
// A sweep drops an event only if nothing referred to it in a snapshot that was taken after all writes of its time. commit
// refuses to store an event whose time was swept.
//
// A store of format 2 had no schedules, and is read as it is. A store of format 1 moved events to later buckets, and kept copies of those of failed deliveries as values of g keys.
// Both are still read, and go with their buckets.
//
// # Space
//
// All writes go through commit, which charges them to the account of the volume (type space). The account sets aside what
// finishing every pending delivery will cost (twice as much for one with a schedule's key), what the tables that are yet to be compacted need for that, and the reserve.
// Events and replays are refused with store.ErrFull before they touch any of it. The reserve holds the logs, the tables that
// they are flushed to, and compactions, which leave room to flush, and to start again.
//
// When space is short, the oldest hour of delivered deliveries is dropped before its time, and the log says so. What is
// pending or failed is not. Tables that hold nothing else go as they are; the others are compacted in slices of 32 MiB.
//
// The file BALLAST is as large as all logs. It is given up when the volume is full: on the first write that finds no
// space, and on opening, which turns logs into tables. Open fails with store.ErrFull before it writes anything if that
// leaves too little. Background work that fails, for space or for descriptors, pauses up to 5 s before it is tried again.
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
// wait: its outcomes are synced with the next event that is appended, or within 50 ms. What a reader sees may not be
// durable yet, with one exception that matters: a repetition is answered only when the first acceptance is. When a write
// to the log or a sync fails, the process ends with one line; nothing that failed was acknowledged, and opening the
// directory again recovers what was.
package pebble
