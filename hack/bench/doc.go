// Bench measures a dispatcher as a user would start one: the eventflow binary as a process of its own, its store on this
// machine's disk, fsync on. A generator (this process) publishes, a receiver (one more process) answers and counts, and
// the raw limit is measured in the same run, in turn with the product: a bare loop that signs the same body and posts it
// with net/http to the same receiver, with no store.
//
// It prints a table, writes JSON, and fails if an acknowledged event did not arrive. docs/performance.md explains the
// figures.
//
//	go run ./hack/bench                              # all scenarios but soak and rates
//	go run ./hack/bench -scenarios=batch,fanout -repetitions=5
//	go run ./hack/bench -scenarios=batch -profile=profiles
//
// # Hostile scenarios
//
// In these, tenants and clients misbehave, and a healthy tenant is measured with and without them in one run: ratios
// count, not the machine. A dispatcher has 1 GiB. With -cgroup the kernel enforces that; without, the bench kills a
// dispatcher that passes it, and sets GOMEMLIMIT to 90 % of it. -scale makes them smaller and shorter (0.05 fits CI);
// -strict fails the run if a figure is missed. They use the embedded store.
//
//   - tenants-hang: 10,000 subscriptions, of one tenant and then of 1,000, accept each delivery and never answer. A healthy
//     tenant publishes 50 events a second. Its p99 end to end is at most twice that without them, or 10 ms.
//   - tenants-mixed: 100 tenants publish at full speed to endpoints that fail, hang, answer a byte a second, or answer 429.
//     A healthy tenant at 10 a second: p99 at most three times that without, or 20 ms, and none of its publishes is refused.
//   - uploads: bodies that stall, idle connections, headers that stall half-way, and tokens that nobody issued, from 1 and
//     from 50 addresses. Another tenant's publishes are not refused; their p99 is at most three times that without, or
//     10 ms. For the tokens the bench is the API server, and takes a second for each that it does not know.
//   - fanout-memory: batches of 200 events for 2,000 subscriptions by 16 publishers; then arrays of 8 MB for 1,000 endpoints
//     that hang, by 32. Resident memory stays below 90 % of the limit, and each delivery arrived or is listed as pending. Of
//     loads above 200,000 deliveries, ten subscriptions are audited.
//   - full-volume: a tmpfs, which only root may mount, is filled by publishes, by deleting subscriptions and by replays, with
//     kill -9 meanwhile; then by a foreign file to the last byte, and the dispatcher is started 20 times. Each start
//     succeeds, and once there is room everything goes on. Retention is not part of it: it is an hour at least.
//   - soak: all of it at once for the time that -for says, with -kill-every also kill -9. Memory, descriptors and goroutines
//     do not grow from the middle third to the last; nothing is lost and nothing reaches another tenant.
//   - rates: one by one, batch and fan-out by this binary and by an older one in turn, each over the raw limit of its moment;
//     the ratio of the two is at least 0.98.
//
// With -flood-cgroup floods of the scenario uploads run on what the others leave of the processors. Each is also laid on a
// control, net/http as it is: what the machine does to a publish is not the dispatcher's fault.
//
// A process of the bench needs about 25,000 descriptors at full size, an attacked dispatcher more. Where the system allows
// fewer, the scenarios are smaller, and say so.
//
//	go run ./hack/bench -scenarios=tenants-hang,uploads -scale=0.05 -strict
//	go run ./hack/bench -scenarios=soak -for=5m -kill-every=1m
//	go run ./hack/bench -scenarios=rates -base=/path/to/older/eventflow
package main
