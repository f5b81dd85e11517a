//go:build race

package routing

// race reports whether the race detector slows the tests.
const race = true
