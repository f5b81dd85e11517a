// Package postgres is the store of many dispatchers: a PostgreSQL database (15 or newer) that they share.
//
// # Layout
//
// What grows is kept in plain tables, each of one period of time (UTC), which retention drops as a whole:
//
//	events_<hour>         events, in the hour they were accepted, or moved to
//	delivered_<hour>      delivered deliveries, in the hour they finished
//	failed_<day>          failed and cancelled deliveries, in the day they finished
//	failed_events_<day>   the events of these
//	ids_<day>             (namespace, id) of accepted events
//	planned_events_<day>  events whose deliveries are planned, in the day they are planned for
//	details_<day>         planned time, key and reason of finished deliveries, in the day they finished
//
// The last two are made once there is something to file in them. Programs that do not know them pass over them.
//
// What is on its way is in one table, pending, whose primary key (subscription, due, event) is the order in which the
// engine reads it. A delivery that succeeds at once costs a row in pending that is written once and deleted once, a row
// in delivered and its share of the event. The attempts of a delivery are kept in its row. File schema/0001_first.sql
// has the other tables.
//
// # Writing
//
// Appends that come together share a transaction, and so a commit: two round trips for all of them. The first claims
// their ids and the time of acceptance, the second stores events and deliveries. A call that conflicts is taken out of
// the transaction without failing the others. When a connection is cut while it commits, nobody knows what became of the
// transaction: the batch is appended again, and what it finds of its own was accepted. Outcomes are written the same
// way, many at a time; they do not wait for the disk.
//
// # Schedules
//
// A planned delivery is a row of pending whose column planned is set. plan_keys has a row for each key of a subscription.
// Append takes those of its transaction in sorted order, then the pending rows of these keys, and decides. Start marks a
// pending row that may be attempted, under the same fence as Record. All lock keys first, then pending rows by
// subscription and event, then counts; what deadlocks all the same is tried again. A delivery that is cancelled while an
// attempt is in flight is filed with an open mark in its details: Record turns it into a delivered one.
//
// A planned event does not move from hour to hour: its table is dropped once its day is over. It counts the deliveries
// that need it, and the last of them that ends deletes it.
//
// # Time
//
// Acceptance, due times and ages are on the database's clock, which Store.Now estimates, so that the clocks of the
// dispatchers do not matter. Acceptances rise across all dispatchers, also when that clock is set back: each transaction
// begins behind the newest acceptance that was committed. Time itself does not go back either. A dispatcher whose
// estimate leads the database's clock writes it down once a second, as if it had accepted something then; one that
// starts begins at the newest acceptance, so that all of them agree on when a delivery is due.
//
// # Ownership
//
// A dispatcher that works is a member, with a row that it renews every second, and expires some seconds after it could
// not. The shards are divided among the members that are alive. Taking a shard adds one to its epoch:
//
//	  ┌──────── taken, epoch + 1 ───────┐
//	  │                                 ▼
//	free ◄── given back in order ──── owned ◄─┐ renewed by its
//	                                    │  └──┘ owner's member row
//	                                    │ the member row expired
//	                                    ▼
//	                                 orphaned ── taken by another, epoch + 1 ──► owned
//
// A row that is not renewed for as long as a lease lasts is deleted, whatever the database's clock says of it.
//
// A member that could not renew its row stops working some time before it expires. Whatever it believes, the statement
// that takes deliveries out of pending locks the leases that it relies on and compares owner and epoch: the outcomes of
// a stale owner are refused by the database.
//
// What one dispatcher stores for the shards of another it leaves a notice of, in the same transaction; owners collect
// theirs many times a second while there is more than one member. A sweep finds what is overdue all the same.
//
// Nothing of this uses LISTEN, advisory locks or anything else that a session holds between transactions, so that a
// pooler may sit in between.
package postgres
