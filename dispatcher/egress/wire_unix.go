//go:build unix

package egress

import (
	"errors"
	"syscall"
)

// canPoll is whether readNow, writeNow and quietSocket work here.
const canPoll = true

// readNow reads what the socket has; isEmpty recognizes the error if that is nothing.
func readNow(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

// writeNow writes what the socket takes; isEmpty recognizes the error if that is nothing.
func writeNow(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), b)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

func isEmpty(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EWOULDBLOCK)
}

// quietSocket reports whether the socket is open and has nothing to read.
func quietSocket(raw syscall.RawConn) bool {
	silent := false
	err := raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		silent = isEmpty(err)
		return true
	})
	return err == nil && silent
}
