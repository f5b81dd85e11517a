package console

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"

	"github.com/clinikapi/eventflow/console/deliveries"
)

const (
	// discoveredFor is how long discovery is not asked again, and discoveryTimeout how long a page waits for it.
	discoveredFor    = 30 * time.Second
	discoveryTimeout = 2 * time.Second
)

// discovery remembers whether the cluster serves the deliveries API. That is no secret: every user may read discovery.
type discovery struct {
	clock clock.PassiveClock

	mu     sync.Mutex
	until  time.Time
	served bool
}

// choose returns the API if the cluster has it, and else the other way to deliveries. If discovery does not answer, the last
// answer holds.
func (d *discovery) choose(ctx context.Context, api *deliveries.API, other deliveries.Source) deliveries.Source {
	if d.known(ctx, api) {
		return api
	}
	return other
}

func (d *discovery) known(ctx context.Context, api *deliveries.API) bool {
	d.mu.Lock()
	served, fresh := d.served, d.clock.Now().Before(d.until)
	d.mu.Unlock()
	if fresh {
		return served
	}
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	answer, err := api.Served(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		d.served = answer
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		return d.served // it says something of the user alone
	}
	d.until = d.clock.Now().Add(discoveredFor)
	return d.served
}
