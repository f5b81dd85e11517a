// Package keys is "eventflow keys": it rotates the signing key of a subscription, one step at a time, and shows which keys sign.
//
// A receiver refuses a delivery that it has no key for. So no step takes away what a receiver may rely on before somebody said that
// the receivers have the new key. The steps stand in the subscription's spec alone, so that the command keeps nothing, can be
// repeated at any time and by anyone, and does no step twice:
//
//	secretRef  previousSecretRef  nextSecretRef
//	old                                          1. a new key is made, and signs beside the old one
//	old                           new            2. the receivers are given the new key, and the user says so
//	old                           new            3. the new key becomes the current one, and the old one signs beside it
//	new        old                               4. the old key ends
//	new
//
// The decision which step is next is a pure function of the subscription (next.go); rotate.go does it with the user's rights. A change
// tests spec.signing as it was looked at, so that two users do not make one step each of their own.
package keys
