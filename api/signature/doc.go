// Package signature signs deliveries, and verifies them, in the two schemes that every delivery carries: the lower-case
// hex HMAC-SHA256 of the raw body (X-Clinik-Signature), and Standard Webhooks 1.0 (webhook-signature), which covers the
// delivery's id and the attempt's time as well and lets several keys sign at once, so that a rotation overlaps.
//
// A key of Standard Webhooks is shared (v1, HMAC-SHA256), or a pair (v1a, ed25519) whose private half never leaves the sender.
// Both kinds can sign one delivery, so that a receiver moves from one to the other without a delivery that it refuses.
//
// See https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
package signature
