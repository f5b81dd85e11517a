package limits_test

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clinikapi/eventflow/dispatcher/limits"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

func TestDerive(t *testing.T) {
	t.Parallel()
	const many = 1 << 20
	for name, tc := range map[string]struct {
		machine limits.Machine
		want    limits.Limits
	}{
		"512 MiB": {limits.Machine{Memory: 512 * mib, Files: many, Processors: 1}, limits.Limits{
			MemoryLimit: 416074956, MemoryBudget: 64 * mib, Places: 1123, IdleConnections: 280, Connections: 327, StoreFiles: 600, ReservedFiles: 128,
		}},
		"1 GiB": {limits.Machine{Memory: gib, Files: many, Processors: 2}, limits.Limits{
			MemoryLimit: 899258777, MemoryBudget: 208037478, Places: 4353, IdleConnections: 1088, Connections: 1269, StoreFiles: 600, ReservedFiles: 128,
		}},
		"4 GiB": {limits.Machine{Memory: 4 * gib, Files: many, Processors: 4}, limits.Limits{
			MemoryLimit: 3798361702, MemoryBudget: 1134139801, Places: 23733, IdleConnections: 5933, Connections: 6922, StoreFiles: 600, ReservedFiles: 128,
		}},
		"no limit": {limits.Machine{Files: many, Processors: 2}, limits.Limits{
			MemoryLimit: 0, MemoryBudget: 208037478, Places: 4353, IdleConnections: 1088, Connections: 1269, StoreFiles: 600, ReservedFiles: 128,
		}},
		"GOMEMLIMIT is lower": {limits.Machine{Memory: gib, GoMemory: 700 * mib, Files: many, Processors: 2}, limits.Limits{
			MemoryLimit: 700 * mib, MemoryBudget: 146066637, Places: 3056, IdleConnections: 764, Connections: 891, StoreFiles: 600, ReservedFiles: 128,
		}},
		"GOMEMLIMIT is higher": {limits.Machine{Memory: gib, GoMemory: gib, Files: many, Processors: 2}, limits.Limits{
			MemoryLimit: gib, MemoryBudget: 208037478, Places: 4353, IdleConnections: 1088, Connections: 1269, StoreFiles: 600, ReservedFiles: 128,
		}},
		"256 descriptors": {limits.Machine{Memory: gib, Files: 256, Processors: 2}, limits.Limits{
			MemoryLimit: 899258777, MemoryBudget: 208037478, Places: 67, IdleConnections: 33, Connections: 67, StoreFiles: 56, ReservedFiles: 32,
		}},
		"20,000 descriptors, one processor": {limits.Machine{Memory: 64 * gib, Files: 20_000, Processors: 1}, limits.Limits{
			MemoryLimit: 61780420198, MemoryBudget: 19656186265, Places: 7708, IdleConnections: 3854, Connections: 7708, StoreFiles: 600, ReservedFiles: 128,
		}},
	} {
		if diff := cmp.Diff(tc.want, limits.Derive(tc.machine)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestSharesFit: whatever the machine, the shares do not come to more than it has.
func TestSharesFit(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		m := limits.Machine{Memory: 512*mib + random.Int64N(256*gib), Files: 64 + random.Int64N(1<<uint(7+random.IntN(14))), Processors: 1 + random.IntN(64)}
		l := limits.Derive(m)
		if files := l.StoreFiles + l.Places + l.IdleConnections + l.Connections + l.ReservedFiles; int64(files) > m.Files {
			t.Fatalf("%+v has %d descriptors of %+v", m, files, l)
		}
		if l.MemoryLimit > m.Memory*9/10 {
			t.Fatalf("%+v: GOMEMLIMIT leaves too little: %+v", m, l)
		}
		const place, idle, connection, store = 24 << 10, 16 << 10, 64 << 10, 144 * mib
		used := l.MemoryBudget + int64(l.Places)*place + int64(l.IdleConnections)*idle + int64(l.Connections)*connection + store + m.Memory/10
		if used > l.MemoryLimit*4/5 {
			t.Fatalf("%+v: %d bytes may be in use, and leave the collector too little of %+v", m, used, l)
		}
	}
}

func TestDetect(t *testing.T) {
	m := limits.Detect()
	if m.Processors < 1 || m.Memory < 0 || m.Files < 0 {
		t.Errorf("detected %+v", m)
	}
}
