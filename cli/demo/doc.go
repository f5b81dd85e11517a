// Package demo is "eventflow demo": an event's whole way on one machine, without a cluster.
//
//	config/samples ─► folder ─► dispatcher ─► receiver: verifies both signatures, deduplicates, prints
//	sample events ──── POST ──────┘
//
// The dispatcher is the real one, on a folder of manifests and an embedded store, both in a temporary folder that goes
// at the end. The two ends are commands of their own: "eventflow demo receive" does what docs/wire.md asks of an
// endpoint, and "eventflow demo publish" what docs/publishing.md asks of a producer. The receiver keeps nothing on disk.
// It prints which resource an event is about, never what the event says of it.
package demo
