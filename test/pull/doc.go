// Package pull holds pulling to its promise, with real processes that are killed: each event that was answered with 202 is handled
// by its own namespace's consumer, at least once, in order, and verified.
package pull
