package pull

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestCallsLeaveConnections: calls that wait leave three quarters of the connections to publishes, however few there are, and
// one to another namespace.
func TestCallsLeaveConnections(t *testing.T) {
	t.Parallel()
	for connections, want := range map[int]int64{0: 512, 1: 2, 67: 16, 327: 81, 2048: 512, 100_000: 512} {
		o := Options{Connections: connections}
		if got := o.calls(); got != want {
			t.Errorf("of %d connections %d may wait, want %d", connections, got, want)
		}
	}
	ours, theirs := pulled(t, clinicA, "billing", nil), pulled(t, clinicB, "billing", nil)
	f := newFixtureWith(t, func(o *Options) { o.Connections = 67 }, ours, theirs)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	long := request(ours, "", 1)
	long.Wait = MaxWait
	for range 8 {
		all.Go(func() { _, _ = f.Pull(ctx, long) })
	}
	for f.calls.Used() < 8 {
		<-time.After(time.Millisecond)
	}
	f.refused(request(ours, "", 1), ErrTooMany)
	f.want(request(theirs, "", 1), nil)
	cancel()
	all.Wait()
	f.calm()
}
