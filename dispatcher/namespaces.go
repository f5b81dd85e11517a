package dispatcher

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"
)

const (
	// knownFor and unknownFor are how long it is remembered that a namespace exists, or does not.
	knownFor, unknownFor = 5 * time.Minute, 2 * time.Second
	// maxNamespaces bounds how many are remembered.
	maxNamespaces = 4096
	// namespaceTimeout bounds the question whether one exists.
	namespaceTimeout = 3 * time.Second
)

// namespaces tells which namespaces exist, so that an event for one that was misspelt is refused and not swallowed.
type namespaces struct {
	clients kubernetes.Interface // nil without Kubernetes: only those with a subscription exist
	asked   *cache.LRUExpireCache
}

func newNamespaces(clients kubernetes.Interface) *namespaces {
	return &namespaces{clients: clients, asked: cache.NewLRUExpireCache(maxNamespaces)}
}

// namespaceKnown tells whether a namespace exists. In doubt it does: the event is then accepted, and matches nothing.
func (d *dispatcher) namespaceKnown(namespace string) bool {
	if table := d.table.Load(); table == nil || table.HasNamespace(namespace) {
		return true
	}
	if d.Routes != routesKubernetes {
		return false
	}
	return d.namespaces.exists(namespace)
}

func (n *namespaces) exists(namespace string) bool {
	if known, ok := n.asked.Get(namespace); ok {
		return known.(bool)
	}
	ctx, cancel := context.WithTimeout(context.Background(), namespaceTimeout)
	defer cancel()
	_, err := n.clients.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	switch {
	case err == nil:
		n.asked.Add(namespace, true, knownFor)
		return true
	case apierrors.IsNotFound(err):
		n.asked.Add(namespace, false, unknownFor)
		return false
	default:
		return true
	}
}
