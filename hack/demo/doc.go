// Demo is both ends of an event's way, for trying Event Flow out and for its end-to-end tests:
//
//	go run ./hack/demo --key=TEXT            receive: verify both signatures, deduplicate, print
//	go run ./hack/demo publish --to=URL …    publish an event, again until it is accepted
//
// The receiver does what docs/wire.md asks of one. It keeps nothing on disk, and prints which resource an event is
// about, never what the event says of it.
package main
