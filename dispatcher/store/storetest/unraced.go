package storetest

import "testing"

// Unraced leaves a test out of the run with the race detector, which takes ten times as long for it and finds nothing: what it
// is about is disks, answers or costs, and not goroutines. "make test" runs it without: all tests of package pebble, and those
// of package postgres whose names begin with TestUnraced.
func Unraced(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs without the race detector: make test")
	}
}
