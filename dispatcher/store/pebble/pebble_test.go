package pebble_test

import (
	"hash/crc32"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(faultVariable); spec != "" {
		victim(spec)
		return
	}
	if spec := os.Getenv(volumeVariable); spec != "" {
		occupant(spec)
		return
	}
	if spec := os.Getenv(plansVariable); spec != "" {
		planner(spec)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, memory)
}

// memory keeps stores in a file system that can lose what was not synced.
func memory(t testing.TB, settings storetest.Settings) storetest.Place {
	fs := vfs.NewCrashableMem()
	random := rand.New(rand.NewPCG(uint64(crc32.ChecksumIEEE([]byte(t.Name()))), 0))
	return storetest.Place{
		Open: func() (store.Store, error) {
			s, err := pebble.Open("data", pebble.Options{
				FreeReserve: 8 << 20, // the least: each test writes a ballast that goes with it
				FS:          fs, Now: settings.Now, Retention: pebble.Retention{Delivered: settings.Delivered, Failed: settings.Failed},
				Registerer: settings.Registerer,
			})
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		Crash: func() { // some of what was not synced may be there all the same
			fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * random.IntN(3), RNG: random})
		},
		Expire:  func(s store.Store) error { return s.(*pebble.Store).Expire(settings.Now()) },
		Measure: func(s store.Store) error { return s.(*pebble.Store).Measure() },
		Fill: func(s store.Store, full bool) {
			usage := vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 40}
			if full {
				usage.AvailBytes = 1 << 20
			}
			fs.TestingSetDiskUsage(usage)
			s.(*pebble.Store).CheckSpace()
		},
	}
}
