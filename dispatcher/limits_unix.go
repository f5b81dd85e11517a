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
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(limit.Cur)
}
