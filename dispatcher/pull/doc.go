// Package pull hands deliveries to consumers that ask for them, in place of an endpoint (spec.delivery.mode: Pull). It knows no
// transport.
//
// A pulled delivery is a pending one, as every other: the same row in the store, the same age, the same replay and cancel. It
// takes no place, no memory and no timer of the engine, whose lane of such a subscription never opens. A call reads the
// subscription's pending deliveries that are due, in the order in which they fell due, which is that of acceptance.
//
//	Pull(after) ─► acknowledge: what the cursor names and is pending still becomes Delivered, durably
//	            ─► read what is due, from the beginning ─► make and sign each request
//	            ─► drop what is not pending any more ─► the page, and its cursor
//	            ─► nothing is due: wait for Wake, for the next due time, or until the call's own time is up; then ask again
//	               whether the client may pull
//
// # The cursor
//
// Positions are not enough to acknowledge by: an event that was accepted a moment earlier may be stored a moment later, before
// what was answered already. So a cursor holds a fingerprint of each delivery that its page had, and acknowledges these alone.
// Nothing is kept here between two calls. Whichever process is asked, also after a restart, knows as much: what is pending is
// not acknowledged, and comes again.
//
// # Bounds
//
// Calls are counted by tenant for as long as they last. The store is read within a few places, in turn by tenant. A page is
// charged to its tenant's memory before it is made, and until it was written. What is passed over gives its charge back, and its
// outcome is kept, whatever ends the page.
package pull
