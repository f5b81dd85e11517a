package fair

import (
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// level is how urgent an item is.
type level int

const (
	news level = iota
	old        // nothing changed: it was listed when the manager started
	levels
)

// oldTurn is which of so many turns goes to an old item, if there is one.
const oldTurn = 4

// storage is the order of a work queue: a workqueue.Queue, which the work queue calls under its own lock.
type storage struct {
	mu    sync.Mutex
	rings [levels]ring
	// queued holds the level of each item; one that was promoted still stands in the ring that it left.
	queued map[reconcile.Request]level
	// marked items are old when they are pushed.
	marked map[reconcile.Request]struct{}
	turn   int
}

func newStorage() *storage {
	s := &storage{queued: make(map[reconcile.Request]level), marked: make(map[reconcile.Request]struct{})}
	for i := range s.rings {
		s.rings[i].items = make(map[string][]reconcile.Request)
	}
	return s
}

// mark makes an item old that is about to be added.
func (s *storage) mark(item reconcile.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked[item] = struct{}{}
}

// unmark reports whether an item was marked.
func (s *storage) unmark(item reconcile.Request) bool {
	_, marked := s.marked[item]
	delete(s.marked, item)
	return marked
}

// Touch promotes an item that is queued, and was added again because of news.
func (s *storage) Touch(item reconcile.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unmark(item) || s.queued[item] == news {
		return
	}
	s.queued[item] = news
	s.rings[news].push(item)
}

// Push queues an item that is not queued.
func (s *storage) Push(item reconcile.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := news
	if s.unmark(item) {
		at = old
	}
	s.queued[item] = at
	s.rings[at].push(item)
}

// Len is the number of queued items.
func (s *storage) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queued)
}

// Pop takes the item that is next. There must be one.
func (s *storage) Pop() reconcile.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn++
	order := [levels]level{news, old}
	if s.turn%oldTurn == 0 {
		order = [levels]level{old, news}
	}
	for _, at := range order {
		for {
			item, found := s.rings[at].pop()
			if !found {
				break
			}
			if queued, found := s.queued[item]; found && queued == at {
				delete(s.queued, item)
				return item
			}
		}
	}
	return reconcile.Request{}
}

// ring holds items by namespace.
type ring struct {
	// turns are the namespaces that have items, the one whose turn is next first.
	turns []string
	items map[string][]reconcile.Request
}

func (r *ring) push(item reconcile.Request) {
	waiting := r.items[item.Namespace]
	if len(waiting) == 0 {
		r.turns = append(r.turns, item.Namespace)
	}
	r.items[item.Namespace] = append(waiting, item)
}

func (r *ring) pop() (reconcile.Request, bool) {
	if len(r.turns) == 0 {
		return reconcile.Request{}, false
	}
	namespace := r.turns[0]
	r.turns = r.turns[1:]
	waiting := r.items[namespace]
	item := waiting[0]
	if len(waiting) == 1 {
		delete(r.items, namespace)
		return item, true
	}
	r.items[namespace] = waiting[1:]
	r.turns = append(r.turns, namespace)
	return item, true
}
