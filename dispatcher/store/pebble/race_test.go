package pebble_test

import "testing"

// unraced leaves a test out of the run with the race detector, which takes ten times as long for it and finds nothing: what
// it is about is disks, not goroutines. "make test" runs it without.
func unraced(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs without the race detector: make test")
	}
}
