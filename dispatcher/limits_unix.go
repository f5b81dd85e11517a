//go:build unix

package dispatcher

import (
	"math"
	"syscall"
)

// maxDescriptors is how many files and connections the process may have open. The Go runtime has raised the soft limit to
// the hard one.
func maxDescriptors() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt64
	}
	if most := int64(limit.Cur); most >= 0 {
		return most
	}
	return math.MaxInt64 // RLIM_INFINITY
}
