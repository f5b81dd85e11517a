package dispatcher

import (
	"math"
	"testing"
)

func TestConnectionsFollowMemoryAndDescriptors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		memory, descriptors int64
		want                int
	}{
		"no limits":        {math.MaxInt64, math.MaxInt64, 4096},
		"1 GiB":            {1 << 30, math.MaxInt64, 2048},
		"128 MiB":          {128 << 20, math.MaxInt64, 256},
		"256 descriptors":  {math.MaxInt64, 256, 64},
		"1024 descriptors": {math.MaxInt64, 1024, 128},
		"next to nothing":  {1, 1, 64},
	} {
		if got := deriveConnections(tc.memory, tc.descriptors); got != tc.want {
			t.Errorf("%s: %d connections, want %d", name, got, tc.want)
		}
	}
}
