//go:build !linux

package postgrestest

import "syscall"

// endWithParent cannot do anything here: a server outlives tests that are killed.
func endWithParent(*syscall.SysProcAttr) {}
