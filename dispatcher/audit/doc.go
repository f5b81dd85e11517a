// Package audit keeps a trail of who used a dispatcher: who listed and read deliveries, replayed, cancelled and, at the highest
// level, published. A record is a line of JSON without anything of a payload: no ids that producers chose, no URLs, no answers.
//
// Records are numbered, and each carries a hash over itself and the hash before it. So a line that was changed, taken out, put in
// or moved shows, see Verify. Whoever can write the whole trail can make it anew from a line on: compare the last hash with one
// that was kept elsewhere, or send the lines to where the dispatcher cannot change them. A trail in a file goes on where the file
// ends; one to standard output begins anew with each process.
//
// A record never waits for a disk. Records wait in a buffer of a fixed size, and one goroutine writes them. While it cannot write,
// such as on a full disk, it tries again each second. A record that finds the buffer full is lost, counted, and the trail says how
// many were: a loss cannot be hidden, and an event is never refused for it.
package audit
