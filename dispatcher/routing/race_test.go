//go:build race

package routing

// race tells whether the race detector slows the tests.
const race = true
