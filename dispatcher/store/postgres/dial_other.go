//go:build !linux

package postgres

import (
	"syscall"
	"time"
)

// boundUnacknowledged does nothing here: every transaction has a deadline, too.
func boundUnacknowledged(time.Duration) func(network, address string, c syscall.RawConn) error {
	return nil
}
