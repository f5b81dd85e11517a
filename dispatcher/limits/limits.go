package limits

import (
	"math"
	"runtime/debug"
)

// Machine is what a process has to work with.
type Machine struct {
	// Memory is the limit of the cgroup in bytes, 0 if there is none.
	Memory int64
	// GoMemory is an explicit GOMEMLIMIT in bytes, 0 if there is none.
	GoMemory int64
	// Files is how many descriptors the process may have open (RLIMIT_NOFILE), 0 if that is not known.
	Files int64
	// Processors is GOMAXPROCS.
	Processors int
}

// Limits are the shares of a machine.
type Limits struct {
	// MemoryLimit is GOMEMLIMIT in bytes, 0 if it is not to be set.
	MemoryLimit int64
	// MemoryBudget is the bytes that tenants share for what they publish and what waits for them in memory.
	MemoryBudget int64
	// Places is how many attempts may be in flight.
	Places int
	// IdleConnections is how many connections to endpoints may be kept for the next attempt.
	IdleConnections int
	// Connections is how many of publishers may be open.
	Connections int
	// StoreFiles is how many files an embedded store may have open.
	StoreFiles int
	// ReservedFiles are the descriptors left to health, metrics, the log, DNS, and clients of Kubernetes and databases.
	ReservedFiles int
}

const (
	// assumedMemory stands for the limit where there is none.
	assumedMemory = 1 << 30
	// notGo is what the process uses beside what GOMEMLIMIT counts.
	notGo = 64 << 20
	// storeBytes is what an embedded store uses: its cache, its memtables, one large batch beyond them.
	storeBytes = (48 + 64 + 32) << 20
	// leastBudget lets one tenant alone publish a request of any size.
	leastBudget = 64 << 20
	// What one of each uses, in bytes.
	placeBytes      = 24 << 10
	idleBytes       = 16 << 10
	connectionBytes = 64 << 10
	// leastPlaces is how many attempts may be in flight however small the memory: with fewer, tenants wait for each other.
	leastPlaces = 64
	// placesPerIdle is how many attempts may be in flight for each idle connection.
	placesPerIdle = 4

	// assumedFiles stands for RLIMIT_NOFILE where it is not known.
	assumedFiles = 1 << 10
	mostReserved = 128
	mostStore    = 600
	// mostPerProcessor bounds attempts and connections where memory and descriptors do not: what ends at once has to
	// be worked off.
	mostPerProcessor = 32 << 10
)

// Derive divides the machine.
func Derive(m Machine) Limits {
	memory := m.Memory
	if memory <= 0 {
		memory = assumedMemory
	}
	goMemory := max(memory*9/10-notGo, memory/2)
	if m.GoMemory > 0 {
		goMemory = min(goMemory, m.GoMemory)
	}
	rest := max(goMemory*3/4-storeBytes-memory/10, 0)
	l := Limits{
		MemoryLimit:  goMemory,
		MemoryBudget: max(rest/2, leastBudget),
		Places:       int(rest * 3 / 10 / (placeBytes + idleBytes/placesPerIdle)),
		Connections:  int(rest / 5 / connectionBytes),
	}
	switch {
	case m.GoMemory > 0:
		l.MemoryLimit = m.GoMemory
	case m.Memory <= 0:
		l.MemoryLimit = 0
	}
	l.IdleConnections = l.Places / placesPerIdle
	l.divideFiles(m)
	return l
}

// divideFiles lowers the numbers to what the descriptors allow. There is one of each at least: with too few of them a
// dispatcher is slow, and not stuck.
func (l *Limits) divideFiles(m Machine) {
	files := m.Files
	if files <= 0 {
		files = assumedFiles
	}
	files = min(files, math.MaxInt32)
	l.ReservedFiles = int(min(files/8, mostReserved))
	left := int(files) - l.ReservedFiles
	l.StoreFiles = min(left/4, mostStore)
	left -= l.StoreFiles
	most := max(m.Processors, 1) * mostPerProcessor
	l.Places = max(min(max(l.Places, leastPlaces), left*2/5, most), 1)
	l.Connections = max(min(l.Connections, left*2/5, most), 1)
	l.IdleConnections = max(min(l.IdleConnections, left/5), 1)
}

// Apply sets GOMEMLIMIT, unless it is not to be set.
func (l Limits) Apply() {
	if l.MemoryLimit > 0 {
		debug.SetMemoryLimit(l.MemoryLimit)
	}
}
