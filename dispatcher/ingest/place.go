package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/places"
)

// Publishes are worked on within a number of places, because the scheduler knows no tenants: without, a tenant that
// publishes now and then waits for a round of all that others publish at that moment. A tenant may hold half of the places.
const (
	publishPlaces  = 64
	publishWaiters = 16384
	// placeBytes of a body take one place, up to mostPlaces: 32 publishers of small events share one sync of the disk, and
	// few large publishes fill the processors.
	placeBytes = 2 << 10
	mostPlaces = 8
	// largePublish is the length of a body that keeps a processor busy for long, and takes a tenant's whole share.
	largePublish = 1 << 20
	placeRetry   = time.Second
)

// place is where a publish is worked on, once its body is there.
type place struct {
	pool   *places.Pool
	tenant string
	size   int // in places
	held   bool
}

// placesOf is how many places a body of so many bytes takes.
func placesOf(bytes int) int {
	if bytes > largePublish {
		return publishPlaces / 2
	}
	return min(1+bytes/placeBytes, mostPlaces)
}

// take waits for the place, unless it is held. It waits also when the client has left: what was sent whole is stored.
func (p *place) take(ctx context.Context) error {
	if p.held {
		return nil
	}
	err := p.pool.Acquire(context.WithoutCancel(ctx), p.tenant, p.size)
	if errors.Is(err, places.ErrFull) {
		return newProblem(overloaded, "more of the namespace's publishes wait than is its share; send the request again after the time in Retry-After").retry(placeRetry)
	}
	p.held = err == nil
	return err
}

// give gives the place back, if it is held.
func (p *place) give() {
	if p.held {
		p.pool.Release(p.tenant, p.size)
		p.held = false
	}
}
