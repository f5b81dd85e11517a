package replay

import (
	"cmp"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// The replays that are looked at: the oldest of a namespace that are not finished, and the namespaces. Others follow when some of
// these are finished. Each is about 200 bytes and, of each namespace, one is a goroutine.
const (
	maxOfNamespace = 32
	maxNamespaces  = 4096
)

// entry is what is known of a replay.
type entry struct {
	namespace, name string
	uid             types.UID
	created         time.Time
	suspended       bool
	pace            float64 // the dispatcher's share of the rate
}

func (e *entry) before(other *entry) bool {
	return cmp.Or(e.created.Compare(other.created), cmp.Compare(e.name, other.name)) < 0
}

// known is what the API server said last of the replays with a part of the dispatcher's that is not finished.
type known struct {
	dispatcher string
	// changed holds one signal.
	changed chan struct{}

	mu         sync.Mutex
	namespaces map[string]map[string]entry
	// missed is set if there was no room for one.
	missed bool
}

func newKnown(dispatcher string) *known {
	return &known{dispatcher: dispatcher, changed: make(chan struct{}, 1), namespaces: map[string]map[string]entry{}}
}

// put takes a replay as it is now.
func (k *known) put(r *v1alpha1.WebhookReplay) {
	p, open := partOf(r, k.dispatcher)
	if !open {
		k.drop(r.Namespace, r.Name)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.insert(entry{r.Namespace, r.Name, r.UID, r.CreationTimestamp.Time, ptr.Deref(r.Spec.Suspend, false), p.rate})
	k.signal()
}

// insert takes an entry if there is room. mu is held.
func (k *known) insert(e entry) {
	of, ok := k.namespaces[e.namespace]
	if !ok {
		if len(k.namespaces) >= maxNamespaces {
			k.missed = true
			return
		}
		of = map[string]entry{}
		k.namespaces[e.namespace] = of
	}
	if _, ok := of[e.name]; !ok && len(of) >= maxOfNamespace {
		k.missed = true
		last := e
		for _, other := range of {
			if last.before(&other) {
				last = other
			}
		}
		if last.name == e.name {
			return
		}
		delete(of, last.name)
	}
	of[e.name] = e
}

// drop forgets a replay.
func (k *known) drop(namespace, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	of := k.namespaces[namespace]
	if delete(of, name); len(of) == 0 {
		delete(k.namespaces, namespace)
	}
	k.signal()
}

// replace makes what was listed all that is known.
func (k *known) replace(of *known) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.namespaces, k.missed = of.namespaces, of.missed
	k.signal()
}

func (k *known) signal() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// incomplete reports whether a list may now have what there was no room for: a namespace has none left, or there are fewer.
func (k *known) incomplete() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.missed {
		return false
	}
	for _, of := range k.namespaces {
		if len(of) < maxOfNamespace/2 {
			return true
		}
	}
	return len(k.namespaces) < maxNamespaces
}

// get returns a replay of that uid.
func (k *known) get(e *entry) (entry, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found, ok := k.namespaces[e.namespace][e.name]
	return found, ok && found.uid == e.uid
}

// next returns the oldest replay that is not suspended of each namespace that none of busy is.
func (k *known) next(busy map[string]bool) (all []entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for namespace, of := range k.namespaces {
		if busy[namespace] {
			continue
		}
		var first *entry
		for _, e := range of {
			if !e.suspended && (first == nil || e.before(first)) {
				first = &e
			}
		}
		if first != nil {
			all = append(all, *first)
		}
	}
	return all
}
