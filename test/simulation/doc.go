// Package simulation runs a dispatcher through days of misfortune in a second, again and again, and compares what it did
// with what it promised. It follows the simulations of FoundationDB and TigerBeetle: one process, and a seed.
//
// # A world
//
// A seed makes a history, which is data: tenants, their subscriptions, and a list of steps, each at its time. A world runs
// it. In the middle is package dispatcher, whole and unchanged: ingest, routing, store, engine, egress, put together by
// dispatcher.Run. Around it, by dispatcher.Options.Around:
//
//   - a clock that jumps to when something is to be done next (testing/synctest), so that two days pass in a second;
//   - Pebble on a file system in memory that forgets what was not synced;
//   - a network in memory, on which producers publish, endpoints take deliveries, and an API server reviews tokens;
//   - the subscriptions, which the package compiles into the routing table, as package folder does.
//
// Producers publish under an id until they have an answer. When the last step is done, everything is healed. Then the world
// has to come to rest, and is judged.
//
// # What goes wrong
//
//   - The dispatcher is stopped, killed, or loses its power: at a moment, or at its nth write to the disk. Of what was not
//     synced, nothing stays, or some, or all. It is down for up to five minutes.
//   - The disk is slow, nearly full, full, or writes fail. A dispatcher that says that it cannot go on is started again.
//   - Connections to an endpoint, to the API or to the API server are delayed, reset, break off in the middle, or are half
//     open: nothing arrives, and nobody is told.
//   - Endpoints are slow, hang, fail, ask for patience (429), answer byte by byte, or close within the answer.
//   - The API server answers 500. Tokens are revoked, and used after that; so are those of other tenants.
//   - Subscriptions are removed and added again, keys change,
//     also those that encrypt the store, quotas are used up, and users cancel deliveries, send them now, and replay them.
//
// Half of all steps come within milliseconds of another one. All is always well with the endpoints of the first tenant.
//
// # What has to hold
//
// While it runs:
//
//   - crossed: what comes to an endpoint is of its tenant, and signed by a key of its subscription.
//   - trespassed: nobody publishes without the right to, longer than a yes of the API server may be kept.
//   - unasked, deleted: only what matches is delivered, and only while its subscription is there.
//   - cancelled, replaced, early: what was cancelled or replaced does not begin after that was acknowledged, and nothing
//     begins before it is due.
//   - doubled, repeated: an event that is published again is the same one, of one delivery for each subscription. An endpoint
//     that took it does not get it again unless a machine was in trouble.
//   - late: the first tenant has each delivery within 10 s, whatever becomes of the others, but for when the machine is in
//     trouble, and 10 s after.
//
// In the end:
//
//   - lost: every event that was acknowledged was taken by every subscription that matched, or is listed with a reason that
//     the model expects.
//   - order: where it was asked for, none has overtaken another that was not given up.
//   - unanswered: every producer has its answer.
//   - stuck, down: nothing waits any more, and the API answers.
//   - counts: the store counts what it lists.
//   - budget: no memory is charged any more. That no goroutine and no connection is left, the bubble checks by itself.
//
// TestPlantedBugs puts a bug of each kind into the world, and demands that it is found.
//
// # Again, and less
//
// The output of a world that fails names its seed, and a command that runs it again. A history is the same each time. The order
// in which goroutines run at one moment is the scheduler's, though, so a failure may need a few runs; GOMAXPROCS=1 has less
// choice. Then steps are left out for as long as the same promise is broken, and what is left is shown.
//
//	go test ./test/simulation                                  # a minute
//	go test ./test/simulation -run '^TestSimulation$' -seed 7 -seeds 1 -days 2 -history
//	make simulate SIMULATEFOR=8h                               # a night, from a seed of its own
//
// # What it cannot show
//
// A bubble's time stands still while a goroutine waits for a lock whose holder waits for time to pass. So a sync takes no time,
// and lets other goroutines run instead; a slow disk delays the calls of the store. Errors are of tables and of logs. A process that
// cannot write its log ends, with an exit that a bubble cannot have; so the world ends it, and the error is not returned.
// TLS, name resolution, PostgreSQL and the manager are not in it: there are real ones in package test, and in make soak.
package simulation
