//go:build unix

package dispatcher

import "golang.org/x/sys/unix"

// keepToOwner makes files and folders that the process creates from now on readable for its user alone: also those of
// libraries that ask for more.
func keepToOwner() { unix.Umask(0o077) }
