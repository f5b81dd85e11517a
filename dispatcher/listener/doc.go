// Package listener bounds the connections of an HTTP server, in all and by client address, so that idle connections and
// half requests keep nobody out.
//
// An address may hold as many connections as are free, by the rule of package budget. Beyond that, and when none is free,
// a new connection takes the place of one that does less: first of one that never carried an authorized request, then of
// one that is kept alive for a next request; of the address that has most, the oldest first. An
// address where a client was authorized may have a sixteenth of all connections at the cost of strangers elsewhere, even if
// its share is smaller: a flood from many addresses makes all shares small. A connection with an
// authorized request under way is never closed for another. What finds no place is closed at once, and counted.
//
// An address whose requests are not authorized, or whose connections send something that is no request, is answered at once, and
// then at a pace: its connections wait before they are read.
package listener
