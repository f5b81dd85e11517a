// Package store says what a dispatcher needs of the place where events and deliveries are kept, and what every
// implementation of it promises. Package storetest states the promises as a conformance suite; pebble is the embedded
// implementation.
//
// # Promises
//
//  1. Append returns only when the events and all their deliveries are durable, or an error and nothing of them stored.
//  2. An outcome need not be durable when Record returns: a lost one means a repeated attempt, which at-least-once
//     delivery allows. Each attempt is recorded. A finished delivery never becomes pending again except by Replay.
//  3. One dispatcher at a time works on a subscription's deliveries.
//  4. What is due is found at a cost of what is due, not of what is stored.
//  5. Retention drops whole buckets of time, but never what they still owe: an event stays as long as a pending delivery,
//     or a finished one that is kept, needs it.
//  6. The bytes of an event are stored once, whatever becomes of its deliveries.
//  7. A store that cannot write stops acknowledging. What finishes is recorded all the same, within the space that was set
//     aside. A full or read-only store says so, and goes on by itself once it can.
package store
