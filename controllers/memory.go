package controllers

import (
	"errors"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
)

// memoryRatio is how much of the container's memory Go may use. The rest is what Go does not count: the program's text, and the
// kernel's buffers.
const memoryRatio = 0.9

// limitMemory sets GOMEMLIMIT by the cgroup's limit, unless it is set. Without, the collector would let the heap double
// before each collection, and a manager with 100,000 subscriptions be killed for what is garbage.
func limitMemory(logger logr.Logger) {
	limit, err := memlimit.SetGoMemLimitWithOpts(memlimit.WithRatio(memoryRatio), memlimit.WithProvider(memlimit.FromCgroup))
	switch {
	case errors.Is(err, memlimit.ErrNoLimit) || errors.Is(err, memlimit.ErrNoCgroup) || errors.Is(err, memlimit.ErrCgroupsNotSupported):
	case err != nil:
		logger.Error(err, "Could not read the memory limit; set GOMEMLIMIT")
	case limit > 0:
		logger.Info("Memory limit set", "bytes", limit)
	}
}
