// Bench measures a dispatcher as a user would start one: the eventflow binary as a process of its own, its store on this
// machine's disk, fsync on. A generator (this process) publishes, a receiver (one more process) answers and counts, and
// the raw limit is measured in the same run, in turn with the product: a bare loop that signs the same body and posts it
// with net/http to the same receiver, with no store.
//
// It prints a table, writes JSON, and fails if an acknowledged event did not arrive. docs/performance.md explains the
// figures.
//
//	go run ./hack/bench                              # all scenarios
//	go run ./hack/bench -scenarios=batch,fanout -repetitions=5
//	go run ./hack/bench -scenarios=batch -profile=profiles
package main
