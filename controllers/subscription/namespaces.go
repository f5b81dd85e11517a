package subscription

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Namespaces knows what namespaces are: their uid, which is the tenant, and their labels, which selectors choose by.
type Namespaces interface {
	// Get returns the metadata of a namespace. It is not to be modified.
	Get(ctx context.Context, name string) (*metav1.PartialObjectMetadata, error)
}

// WatchedNamespaces are those of a cache that watches all of them.
type WatchedNamespaces struct{ Client client.Reader }

// Get returns what the cache has.
func (n WatchedNamespaces) Get(ctx context.Context, name string) (*metav1.PartialObjectMetadata, error) {
	namespace := metadata("Namespace")
	return namespace, n.Client.Get(ctx, client.ObjectKey{Name: name}, namespace)
}

// namespacesPolled is how often each namespace is looked at where the manager may not watch them: a Role lets it get the one
// that it is in, and nothing else.
const namespacesPolled = time.Minute

// PolledNamespaces are those of a manager that may get single namespaces. It is safe for concurrent use.
type PolledNamespaces struct {
	reader  client.Reader
	changed func(ctx context.Context, namespace client.Object)

	mu    sync.Mutex
	known map[string]*metav1.PartialObjectMetadata // of namespaces with subscriptions
}

// NewPolledNamespaces returns those that reader gets from the API server.
func NewPolledNamespaces(reader client.Reader) *PolledNamespaces {
	return &PolledNamespaces{reader: reader, known: make(map[string]*metav1.PartialObjectMetadata)}
}

// Get asks the API server the first time, and returns what was found last after that.
func (n *PolledNamespaces) Get(ctx context.Context, name string) (*metav1.PartialObjectMetadata, error) {
	n.mu.Lock()
	known := n.known[name]
	n.mu.Unlock()
	if known != nil {
		return known, nil
	}
	found := metadata("Namespace")
	if err := n.reader.Get(ctx, client.ObjectKey{Name: name}, found); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.known[name] = found
	return found, nil
}

// Start looks at each namespace once a minute until ctx ends.
func (n *PolledNamespaces) Start(ctx context.Context) error {
	tick := time.NewTicker(namespacesPolled)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := n.look(ctx); err != nil && ctx.Err() == nil {
				log.FromContext(ctx).V(1).Info("Looking at namespaces failed; what was found last holds", "error", err.Error())
			}
		}
	}
}

// look finds out what changed. A namespace that is gone, or that the manager may not get any more, stays as it was.
func (n *PolledNamespaces) look(ctx context.Context) (err error) {
	n.mu.Lock()
	known := maps.Clone(n.known)
	n.mu.Unlock()
	for name, before := range known {
		found := metadata("Namespace")
		if e := n.reader.Get(ctx, client.ObjectKey{Name: name}, found); e != nil {
			if !apierrors.IsNotFound(e) {
				err = fmt.Errorf("get namespace %s: %w", name, e)
			}
			continue
		}
		if found.UID == before.UID && maps.Equal(found.Labels, before.Labels) {
			continue
		}
		n.mu.Lock()
		n.known[name] = found
		n.mu.Unlock()
		n.changed(ctx, found)
	}
	return err
}
