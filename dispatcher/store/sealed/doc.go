// Package sealed is a store over another that keeps what a producer sent as ciphertexts. It is the one seam for both
// stores: they see events whose Body and ID are sealed, and know nothing of keys.
//
//	engine, ingest, status ──► sealed.Store ──► pebble or postgres
//	     plain events              │             sealed events
//	                               └──► seeds.Cache
//
// # What the store below is given
//
//	Body, Traceparent   sealed together (envelope.Sealer.Seal), and marked by Event.Sealed
//	ID                  sealed so that equal ids are equal (SealID); it begins with envelope.MarkID
//	Digest, Order, Key  an HMAC (Blind) of the hash that was there
//	Tenant, Type        as they are, and so are times, states, attempts and counts: they are what the engine works by
//
// A tenant of which the store below had something before its seed was made keeps ID, Digest, Order and Key as they are.
// Else an event that was published before would be accepted again, and one that cancels what is planned would not find it.
//
// Events that were stored in the clear are read as they are, so that encryption can be turned on over an existing store.
// Without keys, the store below is used as it is, and a sealed event is an error: its ciphertext must never be delivered.
package sealed
