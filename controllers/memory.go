package controllers

import (
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// limitMemory sets GOMEMLIMIT to nine tenths of the cgroup's limit, unless it is set; the rest is what Go does not count.
// Without, the collector would let the heap double before each collection, and a manager with 100,000 subscriptions be
// killed for what is garbage.
func limitMemory() {
	const none = 1 << 50 // cgroups of version 1 write such a number where there is no limit
	limit, err := memlimit.FromCgroup()
	if err != nil || limit >= none || debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	debug.SetMemoryLimit(int64(limit) / 10 * 9)
}
