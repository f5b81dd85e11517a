// Package envelope encrypts what a dispatcher keeps: it is pure cryptography over bytes, and knows no store, no tenant's
// place and no clock. docs/adr/0012-encryption-at-rest.md says what is sealed with it, and why.
//
// # Keys
//
//	key-encryption key  of the platform, in a KeyRing; wraps seeds, and seals the files beside the store
//	└─ Seed             32 random bytes of one tenant; kept wrapped, outside the store and its backups
//	   ├─ event key     HKDF-SHA256(seed, 32 random bytes): of one record, for AES-256-GCM
//	   ├─ id keys       HKDF-SHA256(seed): for ids, which are found again by their ciphertext
//	   └─ lookup key    HKDF-SHA256(seed): for HMAC-SHA256 of what is looked up or ordered, and never shown
//
// Nothing counts. Two writers never share a state, and a store that is restored from an old snapshot goes on with fresh
// random bytes. That is what a counter as a nonce would repeat.
//
// # Sealed records
//
//	version 1 | suite 1 | id of the seed 4 | salt 32 | ciphertext | tag 16
//
// The salt makes a key that seals this record alone, so that the nonce may be zero (NIST SP 800-38D wants each nonce once
// for a key; RFC 5869 is HKDF). Two of 2^32 records have the same salt with a probability of 2^-193: see
// TestArithmeticOfManyRecords. The additional data are the first 6 bytes, and each part of Context after its length. So a
// record opens only for the tenant, the event, the type and the store that it was sealed for.
//
// # Ids
//
// An id is encrypted so that equal ids of a tenant have equal ciphertexts: a synthetic initialization vector, as RFC 5297
// has it, with HMAC-SHA256 in place of CMAC. Who reads the store sees that two ids are equal and how long they are, and
// not more. Opening recomputes the vector, so that a changed id does not open.
package envelope
