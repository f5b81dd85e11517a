//go:build unix

package limits

import (
	"math"
	"syscall"
)

// openFiles is RLIMIT_NOFILE, which the Go runtime has raised to the hard limit. It is 0 if it cannot be read.
func openFiles() int64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int64(min(limit.Cur, math.MaxInt64))
}
