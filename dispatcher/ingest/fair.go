package ingest

import (
	"container/list"
	"sync"

	shares "github.com/clinikapi/eventflow/dispatcher/budget"
)

// fairCache remembers a bounded number of values, of which each belongs to an owner. An owner may have as many as there
// is room for more, by the rule of package budget; then its own least recently used one goes. It is safe for concurrent
// use.
type fairCache[K comparable, V any] struct {
	limit int

	mu      sync.Mutex
	entries map[K]*list.Element // of fairEntry[K, V]
	owners  map[string]*list.List
}

type fairEntry[K comparable, V any] struct {
	key   K
	owner string
	value V
}

func newFairCache[K comparable, V any](limit int) *fairCache[K, V] {
	return &fairCache[K, V]{limit: limit, entries: make(map[K]*list.Element), owners: make(map[string]*list.List)}
}

// get returns the key's value, and whether there is one.
func (c *fairCache[K, V]) get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[key]
	if !ok {
		return value, false
	}
	entry := element.Value.(*fairEntry[K, V])
	c.owners[entry.owner].MoveToFront(element)
	return entry.value, true
}

// put sets the key's value.
func (c *fairCache[K, V]) put(key K, owner string, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(key)
	if !shares.Fits(c.held(owner), int64(len(c.entries)), 1, int64(c.limit)) {
		c.makeRoom(owner)
	}
	own := c.owners[owner]
	if own == nil {
		own = list.New()
		c.owners[owner] = own
	}
	c.entries[key] = own.PushFront(&fairEntry[K, V]{key: key, owner: owner, value: value})
}

func (c *fairCache[K, V]) held(owner string) int64 {
	if own := c.owners[owner]; own != nil {
		return int64(own.Len())
	}
	return 0
}

// makeRoom takes out the least recently used value of the owner, or, if it has none, of the owner that has most.
func (c *fairCache[K, V]) makeRoom(owner string) {
	from := c.owners[owner]
	if from == nil {
		for _, other := range c.owners {
			if from == nil || other.Len() > from.Len() {
				from = other
			}
		}
	}
	if from != nil {
		c.remove(from.Back().Value.(*fairEntry[K, V]).key)
	}
}

// drop forgets the key.
func (c *fairCache[K, V]) drop(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(key)
}

func (c *fairCache[K, V]) remove(key K) {
	element, ok := c.entries[key]
	if !ok {
		return
	}
	delete(c.entries, key)
	owner := element.Value.(*fairEntry[K, V]).owner
	own := c.owners[owner]
	if own.Remove(element); own.Len() == 0 {
		delete(c.owners, owner)
	}
}

func (c *fairCache[K, V]) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}
