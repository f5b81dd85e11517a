//go:build !unix

package egress

import (
	"errors"
	"syscall"
)

// canPoll is whether readNow, writeNow and quietSocket work here. Reads and writes wait as those of net.Conn do, and a
// request on a connection that was closed while idle is repeated.
const canPoll = false

var errNotHere = errors.New("not on this system")

func readNow(uintptr, []byte) (int, error)  { return 0, errNotHere }
func writeNow(uintptr, []byte) (int, error) { return 0, errNotHere }
func isEmpty(error) bool                    { return false }
func quietSocket(syscall.RawConn) bool      { return true }
