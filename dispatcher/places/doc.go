// Package places gives a bounded number of places to what comes from many sources, such as calls to the API server on
// behalf of client addresses.
//
// A source may hold as many places as are free, and have as many waiters as there is room for more, by the rule of
// package budget. Places that become free go to the sources in turn, and to the first waiter of each. A source that asks
// for much waits behind itself and delays another by no more than that one's turn.
package places
