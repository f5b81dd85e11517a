// Package deliveries is where the console gets deliveries from. Source is what the pages need; an API speaks
// the cluster's aggregated API of deliveries, a Client the dispatcher's HTTP API (through api/client), both with the user's own
// credentials, and None stands in where there is no way to any dispatcher. Every answer is the caller's: nothing is kept between calls.
package deliveries
