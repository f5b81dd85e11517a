package dispatcher

import (
	"runtime/debug"

	"github.com/clinikapi/eventflow/dispatcher/listener"
)

const (
	// connectionBytes is what a connection of the API costs at most before its request is authorized: a header of 16 KiB as
	// it was read and as it was parsed, two buffers, a goroutine.
	connectionBytes = 64 << 10
	// connectionShare is the part of the memory and of the descriptors that connections of the API may take: one of so many.
	connectionShare = 8
	// minConnections is the least bound that is derived.
	minConnections = 64
)

// maxConnections is the bound on the API's connections: the option, or what memory and descriptors allow.
func (d *dispatcher) maxConnections() int {
	if d.MaxConnections > 0 {
		return d.MaxConnections
	}
	return deriveConnections(debug.SetMemoryLimit(-1), maxDescriptors())
}

// deriveConnections returns a bound on connections for a process with so many bytes of memory and descriptors.
func deriveConnections(memory, descriptors int64) int {
	most := min(int64(listener.DefaultConnections), memory/connectionShare/connectionBytes, descriptors/connectionShare)
	return int(max(most, minConnections))
}
