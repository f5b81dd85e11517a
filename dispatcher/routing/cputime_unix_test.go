//go:build unix

package routing

import (
	"syscall"
	"testing"
	"time"
)

// cpuTime is what the process has used of the processors. A machine that is busy with other work takes longer, but not
// more of it.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
