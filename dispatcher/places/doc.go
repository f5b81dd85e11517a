// Package places gives a bounded number of places to what comes from many sources, such as calls to the API server on
// behalf of client addresses, or publishes of tenants.
//
// A source may hold as many places as are free, and have as many waiters as there is room for more, by the rule of
// package budget. Places that become free go to the source that had the fewest since it began to ask, and to the first
// waiter of it. This is start-time fair queueing (Goyal, Vin and Cheng, "Start-time fair queueing: a scheduling algorithm for
// integrated services packet switching networks", IEEE/ACM Transactions on Networking 5(5), 1997), which counts places
// instead of bytes. So a source that asks for much waits behind itself. One that asks for less than its share goes first:
// it waits until a place is free, and not for a round of all the others.
package places
