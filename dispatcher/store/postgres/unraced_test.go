package postgres_test

import "testing"

// unraced leaves a test out of the run with the race detector, in which it takes ten times as long and finds nothing: what it
// is about is the store's answers, or what they cost, and not goroutines. Its name begins with TestUnraced, by which "make
// test" runs it without the detector.
func unraced(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs without the race detector: make test")
	}
}
