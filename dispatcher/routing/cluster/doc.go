// Package cluster is the source of a routing table that the manager writes: Secrets in the dispatcher's namespace, one
// index and up to 64 shards, or 256 of a large table.
//
//	list and watch the index ──► get the shards whose hash changed ──► routing.Table
//	          ▲                                   │ a shard is ahead of the index, an error,
//	          └──────── again, after a while ◄────┘ the watch's end
//
// It needs of the API server to list and watch the one Secret with the index's name, and to get those with the shards'
// names: a Role with resourceNames allows nothing else.
//
// While the API server or the manager is unavailable, or a table is half written, the last complete one stays. It is kept on
// disk, too, and delivered at the start, marked as stale until the API server has shown the present one. A table that a
// newer manager wrote in a way that this dispatcher does not know is not used: a rule it misses could send too much.
package cluster
