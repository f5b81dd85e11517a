// Package egress is the last step of an event's way: it posts one delivery to its endpoint, signed, and tells what came
// of it. It is the only package that dials out, and it guards what it reaches: private and special addresses are
// refused unless a range was allowed, at the moment of dialling, so that no name can resolve its way around the rule;
// redirects are never followed, no proxy is used, and no more than a bounded part of a response is ever read.
//
// An answer's status decides. Its headers must come within the attempt's timeout; its body is drained for at most 64 KiB
// and 250 ms so that the connection can be used again, and else the connection is closed: a 2xx with an endless body is
// a success that costs a connection, and holds up nobody. What else an endpoint may do, reset, drip, flood, stay silent,
// ends within the timeout, with a Reason. URLs, headers and bodies are in no log, error or result.
//
// It decides nothing: when to attempt, and whether again, is for package delivery.
package egress
