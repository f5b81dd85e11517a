package pebble_test

import (
	"flag"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

var (
	histories    = flag.Int("histories", 150, "random histories with power failures to run; a quarter of them with -short")
	faults       = flag.Int("faults", 24, "writes to fail in each way; a quarter of them with -short")
	firstHistory = flag.Int("history", 1, "number of the first of them")
)

// TestPowerFailure cuts the power of a file system that loses what was not synced.
func TestPowerFailure(t *testing.T) {
	t.Parallel()
	n := *histories
	if testing.Short() {
		n /= 4
	}
	storetest.RunCrashes(t, memory, *firstHistory, n)
}
