package replay

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/places"
	"github.com/clinikapi/eventflow/dispatcher/query"
)

const (
	// chunksAtOnce is how many chunks, or pages that are counted, are under way at once, over all tenants.
	chunksAtOnce = 4
	// leadPause is how often a dispatcher that shares its store checks that the replays are its own to run.
	leadPause = time.Second
)

// Options are what a Runner works with. All but Full are needed.
type Options struct {
	Client Client
	// Name is the dispatcher's: namespace/name.
	Name       string
	Deliveries *query.Deliveries
	// Tenant returns which tenant a namespace is, and whether there is such a namespace.
	Tenant func(ctx context.Context, namespace string) (tenant string, known bool, err error)
	// Namespaces are those of the routing table.
	Namespaces func() []string
	// Leads reports whether this process runs the replays, of those that share the store. Its lease may pass to another one.
	Leads func() bool
	// Full reports whether the tenant's quota of pending deliveries is used up; nil if there are no quotas.
	Full func(tenant string) bool
	// Memory is charged with the bodies that a chunk may hold, each of MaxEventBytes.
	Memory        *budget.Budget
	MaxEventBytes func() int
	Logger        logr.Logger
}

// Runner runs the replays of a dispatcher.
type Runner struct {
	Options
	known  *known
	places *places.Pool // chunks, by tenant

	mu   sync.Mutex
	busy map[string]bool // namespaces with a run
}

// New returns a Runner. It fails if an option is missing.
func New(o Options) (*Runner, error) {
	if o.Client == nil || o.Name == "" || o.Deliveries == nil || o.Tenant == nil || o.Namespaces == nil || o.Leads == nil || o.Memory == nil || o.MaxEventBytes == nil {
		return nil, errors.New("replay: an option is missing")
	}
	return &Runner{Options: o, known: newKnown(o.Name), places: places.New(chunksAtOnce, maxNamespaces), busy: map[string]bool{}}, nil
}

// Run runs replays until ctx ends, and returns once the positions of those under way are written, or 2 s later.
func (r *Runner) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { r.follow(ctx) })
	tick := time.NewTicker(leadPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.known.changed:
		}
		if !r.Leads() {
			continue
		}
		for _, next := range r.claim() {
			all.Go(func() {
				defer r.release(next.namespace)
				r.run(ctx, next)
			})
		}
	}
}

// claim returns the replays to start: the next of each namespace that has none under way.
func (r *Runner) claim() []entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.known.next(r.busy)
	for i := range all {
		r.busy[all[i].namespace] = true
	}
	return all
}

func (r *Runner) release(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, namespace)
	r.known.signal()
}
