package dispatcher

import (
	"context"
	"net"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Surroundings are what a dispatcher has around it. The zero value is the machine that it runs on; package simulation puts
// a world of its own in the place of each. They are no options of the command line.
type Surroundings struct {
	// Listen listens at an address of the options.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
	// Dial connects to an endpoint. The guard has allowed the address.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// DialCluster connects to the API server.
	DialCluster func(ctx context.Context, network, address string) (net.Conn, error)
	// FS holds the embedded store.
	FS vfs.FS
	// Fatal is called with the reason for which the process cannot go on. It must not return.
	Fatal func(error)
	// Routes is where the routing table comes from, in place of the source that the options name.
	Routes routing.Source
	// Store is given the store once it is open, and returns what the dispatcher works on.
	Store func(store.Store) store.Store
	// MeasurePause and SpacePause are those of the embedded store.
	MeasurePause, SpacePause time.Duration
	// Jitter returns a random number in [0, 1).
	Jitter func() float64
}

// listen listens at an address.
func (s Surroundings) listen(ctx context.Context, address string) (net.Listener, error) {
	if s.Listen != nil {
		return s.Listen(ctx, "tcp", address)
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", address)
}

// seen is the store that the dispatcher works on.
func (s Surroundings) seen(opened store.Store) store.Store {
	if s.Store == nil {
		return opened
	}
	return s.Store(opened)
}
