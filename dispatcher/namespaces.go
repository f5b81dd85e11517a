package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"

	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/kube"
	"github.com/clinikapi/eventflow/dispatcher/listener"
	"github.com/clinikapi/eventflow/dispatcher/places"
)

const (
	// freshFor is how long a namespace's uid holds without asking again: as long as what was allowed in it. knownFor is how
	// long it holds while the API server cannot be asked, unknownFor how long it is remembered that there is no such one.
	freshFor, knownFor, unknownFor = 10 * time.Second, 5 * time.Minute, 2 * time.Second
	// maxNamespaces bounds how many are remembered of either.
	maxNamespaces = 4096
	// namespaceTimeout bounds the question whether one exists, and namespaceWait the wait for its turn.
	namespaceTimeout, namespaceWait = 3 * time.Second, 2 * time.Second
	// Questions at once, waiting, a second, and in a burst.
	namespacePlaces, namespaceQueue, namespaceRate, namespaceBurst = 8, 512, 50, 100
)

// namespaces knows which namespaces exist, so that an event for one that was misspelt is refused and not swallowed, and
// which tenant each is: its uid, so that what a deleted namespace had is not its successor's.
type namespaces struct {
	server kube.Getter[*corev1.Namespace] // nil without Kubernetes: only those with a subscription exist
	// known and unknown are apart, so that made-up names push out no real one.
	known   *cache.LRUExpireCache // namespace → identity
	unknown *cache.LRUExpireCache
	flights singleflight.Group
	places  *places.Pool // by client address
	rate    *rate.Limiter
}

// identity is a namespace's uid, until when it holds without asking again, and until when at all.
type identity struct {
	uid          string
	fresh, until time.Time
}

func newNamespaces(server kube.Getter[*corev1.Namespace]) *namespaces {
	return &namespaces{
		server: server,
		known:  cache.NewLRUExpireCache(maxNamespaces), unknown: cache.NewLRUExpireCache(maxNamespaces),
		places: places.New(namespacePlaces, namespaceQueue), rate: rate.NewLimiter(namespaceRate, namespaceBurst),
	}
}

// tenant returns the tenant that a namespace is, and whether there is such a namespace. While the API server cannot say,
// it is the one that it was last, or that the routing table has. The error is ingest.ErrBusy if too much is being asked.
func (d *dispatcher) tenant(ctx context.Context, namespace, remote string) (tenant string, known bool, err error) {
	table := d.table.Load()
	if d.Routes != routesKubernetes {
		if table == nil {
			return namespace, true, nil // nothing is accepted without a table
		}
		if tenant, ok := table.Tenant(namespace); ok {
			return tenant, true, nil
		}
		return namespace, table.HasNamespace(namespace), nil
	}
	if table != nil {
		if tenant, ok := table.Tenant(namespace); ok && tenant == namespace { // written before tables had uids
			return tenant, true, nil
		}
	}
	tenant, known, err = d.namespaces.identify(ctx, namespace, remote)
	if tenant != "" || !known || err != nil {
		return tenant, known, err
	}
	if table != nil {
		if tenant, ok := table.Tenant(namespace); ok {
			return tenant, true, nil
		}
	}
	return unidentified + namespace, true, nil
}

// unidentified begins the tenant of a namespace whose uid is not known; no uid does.
const unidentified = "name/"

// identify asks once for all that ask about the same namespace at the same time, in turn by client address. A question goes
// on when its client leaves, because it answers the others, too. The uid is empty if the API server did not say.
func (n *namespaces) identify(ctx context.Context, namespace, remote string) (uid string, known bool, err error) {
	found, ok := n.known.Get(namespace)
	before, _ := found.(identity)
	if ok && time.Now().Before(before.fresh) {
		return before.uid, true, nil
	}
	if _, ok := n.unknown.Get(namespace); ok {
		return "", false, nil
	}
	result := n.flights.DoChan(namespace, func() (any, error) {
		return n.ask(context.WithoutCancel(ctx), namespace, listener.Source(remote))
	})
	select {
	case r := <-result:
		if got, _ := r.Val.(namespaceAnswer); r.Err == nil && got != unanswered {
			return got.uid, got.known, nil
		}
		if ok {
			return before.uid, true, nil
		}
		return "", r.Err == nil, r.Err
	case <-ctx.Done():
		return "", false, ctx.Err()
	}
}

// nameOf returns the name of a namespace that was identified lately by its uid, else "".
func (n *namespaces) nameOf(uid string) string {
	for _, key := range n.known.Keys() {
		name, _ := key.(string)
		if found, ok := n.known.Get(name); ok && found.(identity).uid == uid && uid != "" {
			return name
		}
	}
	return ""
}

// namespaceAnswer is what the API server says of a namespace.
type namespaceAnswer struct {
	uid   string
	known bool
}

// unanswered is given while the API server cannot be asked.
var unanswered = namespaceAnswer{known: true}

func (n *namespaces) ask(ctx context.Context, namespace, source string) (namespaceAnswer, error) {
	if err := n.acquire(ctx, source); err != nil {
		return namespaceAnswer{}, fmt.Errorf("ask which namespace that is: %w", errors.Join(ingest.ErrBusy, err))
	}
	defer n.places.Release(source, 1)
	ctx, cancel := context.WithTimeout(ctx, namespaceTimeout)
	defer cancel()
	found, err := n.server.Get(ctx, namespace, metav1.GetOptions{})
	switch {
	case err == nil:
		now := time.Now()
		n.known.Add(namespace, identity{uid: string(found.UID), fresh: now.Add(freshFor), until: now.Add(knownFor)}, knownFor)
		return namespaceAnswer{uid: string(found.UID), known: true}, nil
	case apierrors.IsNotFound(err):
		n.known.Remove(namespace)
		n.unknown.Add(namespace, nil, unknownFor)
		return namespaceAnswer{}, nil
	default:
		n.prolong(namespace)
		return unanswered, nil
	}
}

// prolong lets what is known of a namespace hold for a moment without asking again, because asking failed: not each
// publish is to wait for that.
func (n *namespaces) prolong(namespace string) {
	if found, ok := n.known.Get(namespace); ok {
		kept, now := found.(identity), time.Now()
		kept.fresh = now.Add(freshFor)
		n.known.Add(namespace, kept, kept.until.Sub(now))
	}
}

// acquire waits for a place, and for the rate.
func (n *namespaces) acquire(ctx context.Context, source string) error {
	ctx, cancel := context.WithTimeout(ctx, namespaceWait)
	defer cancel()
	if err := n.places.Acquire(ctx, source, 1); err != nil {
		return err
	}
	if err := n.rate.Wait(ctx); err != nil {
		n.places.Release(source, 1)
		return err
	}
	return nil
}
