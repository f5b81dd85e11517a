// Package routes keeps each dispatcher's routing table: in memory, and as Secrets beside the dispatcher, one for every
// shard that is not empty and an index that names their hashes.
//
//	subscription ─► Table.Put, Table.Clear ─► shards that changed ─► Secrets ─► index
//	                      ▲                        at most once a second
//	Secrets, at start ────┘
//
// The Secrets are the only memory that outlives a manager. They are listed before anything is written, because they hold
// what subscriptions alone do not tell: the last valid entry of one that is not valid now. An entry leaves the table
// only when the API server says that its subscription is gone. A shard that cannot be read is made anew, and not before
// every subscription that belongs into it was seen: a dispatcher takes what is missing for deleted, and cancels its
// deliveries.
//
// Namespaces share a table: one may take as much of a shard as is free. An entry that is there is never pushed out by
// others. A new one, or one that grows, is refused at once where there is no room for it or a quota is used up.
//
// A flush writes a bounded number of Secrets and bytes; shards with changes of namespaces that changed little go first. A table
// that outgrows its 64 shards is divided into 256 with names of their own, which no index names before all are written.
//
// Beside each shard stand the digests of what its entries were compiled from. By them the next manager knows the entries that
// hold, and reads no Secret for them.
//
// For each entry that changed, the table notes the revision of the first index that names it. The note is dropped, and the
// subscription looked at, once the dispatcher reports that revision: what is not noted was taken over. See docs/adr/0014.
//
// A Secret that someone changes or deletes is written again. If writing fails, dispatchers go on by what they have, and
// it is tried again with backoff. Shards are written before the index, and emptied ones are deleted behind it, so that
// an index never names what is not there.
package routes
