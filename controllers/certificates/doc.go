// Package certificates makes serving certificates for what runs in the cluster, and decides when they are renewed. It is
// pure: a Set comes in, and the Set to keep goes out, by the clock of the caller.
//
// Each certificate has an authority of its own, whose key is forgotten once it has signed: there is no key to steal that
// could sign another. A client trusts the bundle of all authorities that have not expired.
//
// A renewal takes two steps, by a Schedule. At an age, a certificate gets a successor: the successor's authority joins the
// bundle, and nobody serves it yet. Later, when every client has the bundle, the successor takes its place. The old
// authority stays in the bundle until it expires, for servers that still have the old certificate.
package certificates
