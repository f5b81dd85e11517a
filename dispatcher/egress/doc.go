// Package egress is the last step of an event's way: it posts one delivery to its endpoint, signed, and reports what came
// of it. It is the only package that dials out, and it guards what it reaches: private and special addresses are
// refused unless a range or a tenant's rule allows them, at the moment of dialling, so that no name can resolve its way
// around the rule. The dispatcher's own addresses, the API server and metadata services are refused whatever allows them.
// Redirects are never followed, a proxy is used only if Options name one, and no more than a bounded part of a response is ever read.
//
// An answer's status decides. Its headers must come within the attempt's timeout; its body is drained for at most 64 KiB
// and 250 ms so that the connection can be used again, and else the connection is closed: a 2xx with an endless body is
// a success that costs a connection, and holds up nobody. What else an endpoint may do, reset, drip, flood, stay silent,
// ends within the timeout, with a Reason. URLs, headers and bodies are in no log, error or result.
//
// An attempt that waits for its answer holds a socket, a goroutine and no buffer; see WaitingCost. The answer is read
// while the request is written. The addresses of a name are raced (RFC 8305). A connection is used again only by its
// tenant, for a minute, while its name still has its address, and only if every byte that came was a part of an answer:
// docs/adr/0001-connections-to-endpoints.md says why the connections are our own.
//
// It decides nothing: when to attempt, and whether again, is for package engine.
package egress
