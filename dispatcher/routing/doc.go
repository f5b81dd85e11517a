// Package routing is the table that says which subscriptions an event goes to. The manager compiles subscriptions into
// routes and writes them, a dispatcher reads them back and matches against them; a folder of manifests is compiled by
// the same function, without a cluster.
//
//	manifests ─► Compile ─► Route ─► Encode ─► Secrets ─► Decode ─► NewTable ─► Match
//	                          └───────── folder of manifests ──────────┘
//
// A route exists as long as its subscription does. If the subscription cannot be delivered to, because its Secret is
// gone or its spec became invalid, the route goes on matching by its last valid spec, and its deliveries wait; only the
// subscription's deletion takes the route out of the table.
package routing
