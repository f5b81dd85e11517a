// Package egress is the last step of an event's way: it posts one delivery to its endpoint, signed, and tells what came
// of it. It is the only package that dials out, and it guards what it reaches: private and special addresses are
// refused unless a range was allowed, at the moment of dialling, so that no name can resolve its way around the rule;
// redirects are never followed, no proxy is used, and no more than a bounded part of a response is ever read.
//
// It decides nothing: when to attempt, and whether again, is for package delivery.
package egress
