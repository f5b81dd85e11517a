package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"

	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/places"
)

const (
	// knownFor and unknownFor are how long it is remembered that a namespace exists, or does not.
	knownFor, unknownFor = 5 * time.Minute, 2 * time.Second
	// maxNamespaces bounds how many are remembered of either.
	maxNamespaces = 4096
	// namespaceTimeout bounds the question whether one exists, and namespaceWait the wait for its turn.
	namespaceTimeout, namespaceWait = 3 * time.Second, 2 * time.Second
	// Questions at once, waiting, a second, and in a burst.
	namespacePlaces, namespaceQueue, namespaceRate, namespaceBurst = 8, 512, 50, 100
)

// namespaces knows which namespaces exist, so that an event for one that was misspelt is refused and not swallowed.
type namespaces struct {
	clients kubernetes.Interface // nil without Kubernetes: only those with a subscription exist
	// known and unknown are apart, so that made-up names push out no real one.
	known, unknown *cache.LRUExpireCache
	flights        singleflight.Group
	places         *places.Pool // by client address
	rate           *rate.Limiter
}

func newNamespaces(clients kubernetes.Interface) *namespaces {
	return &namespaces{
		clients: clients,
		known:   cache.NewLRUExpireCache(maxNamespaces), unknown: cache.NewLRUExpireCache(maxNamespaces),
		places: places.New(namespacePlaces, namespaceQueue), rate: rate.NewLimiter(namespaceRate, namespaceBurst),
	}
}

// namespaceKnown reports whether a namespace exists. While the API server cannot say, it does: the event is then accepted,
// and matches nothing. The error is ingest.ErrBusy if too much is being asked at once.
func (d *dispatcher) namespaceKnown(ctx context.Context, namespace, source string) (bool, error) {
	if table := d.table.Load(); table == nil || table.HasNamespace(namespace) {
		return true, nil
	}
	if d.Routes != routesKubernetes {
		return false, nil
	}
	return d.namespaces.exists(ctx, namespace, source)
}

// exists asks once for all that ask about the same namespace at the same time, in turn by client address. A question goes
// on when its client leaves, because it answers the others, too.
func (n *namespaces) exists(ctx context.Context, namespace, source string) (bool, error) {
	if _, ok := n.known.Get(namespace); ok {
		return true, nil
	}
	if _, ok := n.unknown.Get(namespace); ok {
		return false, nil
	}
	result := n.flights.DoChan(namespace, func() (any, error) {
		return n.ask(context.WithoutCancel(ctx), namespace, source)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return false, r.Err
		}
		return r.Val.(bool), nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (n *namespaces) ask(ctx context.Context, namespace, source string) (bool, error) {
	if err := n.acquire(ctx, source); err != nil {
		return false, fmt.Errorf("ask whether the namespace exists: %w", errors.Join(ingest.ErrBusy, err))
	}
	defer n.places.Release(source)
	ctx, cancel := context.WithTimeout(ctx, namespaceTimeout)
	defer cancel()
	_, err := n.clients.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	switch {
	case err == nil:
		n.known.Add(namespace, nil, knownFor)
		return true, nil
	case apierrors.IsNotFound(err):
		n.unknown.Add(namespace, nil, unknownFor)
		return false, nil
	default:
		return true, nil
	}
}

// acquire waits for a place, and for the rate.
func (n *namespaces) acquire(ctx context.Context, source string) error {
	ctx, cancel := context.WithTimeout(ctx, namespaceWait)
	defer cancel()
	if err := n.places.Acquire(ctx, source); err != nil {
		return err
	}
	if err := n.rate.Wait(ctx); err != nil {
		n.places.Release(source)
		return err
	}
	return nil
}
