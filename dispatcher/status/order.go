package status

import (
	"container/heap"
	"sync"

	"github.com/clinikapi/eventflow/api/event"
)

// order is that of the upkeep queue: the greatest lie comes first. It is a workqueue.Queue.
type order struct {
	mu    sync.Mutex
	items lies
	at    map[event.SubscriptionKey]*lie
	// told are the lies of those that are about to be queued.
	told map[event.SubscriptionKey]float64
}

type lie struct {
	key  event.SubscriptionKey
	size float64
	turn int64 // first come, first served among equals
	i    int
}

func newOrder() *order {
	return &order{at: make(map[event.SubscriptionKey]*lie), told: make(map[event.SubscriptionKey]float64)}
}

// setLie says how wrong a status is that is about to be queued for upkeep.
func (w *Writer) setLie(key event.SubscriptionKey, size float64) { w.lies.tell(key, size) }

func (o *order) tell(key event.SubscriptionKey, size float64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if queued := o.at[key]; queued != nil {
		queued.size = size
		heap.Fix(&o.items, queued.i)
		return
	}
	o.told[key] = size
}

// Touch is called for an item that is queued and was added again; tell has moved it already.
func (o *order) Touch(event.SubscriptionKey) {}

// Push queues an item that is not queued.
func (o *order) Push(key event.SubscriptionKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.items.turns++
	item := &lie{key: key, size: o.told[key], turn: o.items.turns}
	delete(o.told, key)
	o.at[key] = item
	heap.Push(&o.items, item)
}

// Len is the number of queued items.
func (o *order) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.items.list)
}

// Pop takes the item that is next. There must be one.
func (o *order) Pop() event.SubscriptionKey {
	o.mu.Lock()
	defer o.mu.Unlock()
	item := heap.Pop(&o.items).(*lie)
	delete(o.at, item.key)
	return item.key
}

// lies is a heap.
type lies struct {
	list  []*lie
	turns int64
}

func (l *lies) Len() int { return len(l.list) }

func (l *lies) Less(i, j int) bool {
	a, b := l.list[i], l.list[j]
	if a.size != b.size {
		return a.size > b.size
	}
	return a.turn < b.turn
}

func (l *lies) Swap(i, j int) {
	l.list[i], l.list[j] = l.list[j], l.list[i]
	l.list[i].i, l.list[j].i = i, j
}

func (l *lies) Push(x any) {
	item := x.(*lie)
	item.i = len(l.list)
	l.list = append(l.list, item)
}

func (l *lies) Pop() any {
	last := len(l.list) - 1
	item := l.list[last]
	l.list[last] = nil
	l.list = l.list[:last]
	return item
}
