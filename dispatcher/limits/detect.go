package limits

import (
	"math"
	"runtime"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// Detect looks at the process's own machine. What cannot be read counts as no limit.
func Detect() Machine {
	m := Machine{Files: openFiles(), Processors: runtime.GOMAXPROCS(0)}
	if limit, err := memlimit.FromCgroup(); err == nil {
		m.Memory = bounded(limit)
	}
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		m.GoMemory = limit
	}
	return m
}

// bounded returns a cgroup's limit, or 0 for one that is above any machine's memory: version 1 writes none so.
func bounded(limit uint64) int64 {
	const most = 1 << 50
	if limit >= most {
		return 0
	}
	return int64(limit)
}
