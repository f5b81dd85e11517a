// Package status tells a subscription's readers what the dispatcher knows of it: the conditions Programmed and
// EndpointHealthy, the delivery counts, and the deliveries that are being retried, in the status subresource.
//
// It looks on from the side: no event waits for it, and while the API server is away it only falls behind. Writes are
// server-side applies of one field owner, and within a budget: conditions come first, counts as often as is left, so
// that thousands of busy subscriptions do not burden the API server. Nothing is written that would change nothing; after
// a restart the status that stands is read first, so that times of transition stay.
package status
