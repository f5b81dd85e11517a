package status

import (
	"container/heap"
	"sync"

	"github.com/clinikapi/eventflow/api/event"
)

// Of turnsInARow, newsTurns are for news while something else waits, too.
const (
	newsTurns   = 3
	turnsInARow = 4
)

// order is that of the queue for what deliveries change. Tenants take turns, and of each the greatest lie comes first: neither
// endpoints that flap nor busy ones keep other tenants waiting. News, the first change of an endpoint's health after a rest, has
// three of four turns, whatever else is queued. It is a workqueue.Queue.
type order struct {
	tenant func(event.SubscriptionKey) string

	mu    sync.Mutex
	news  round
	rest  round
	turns int // taken
	at    map[event.SubscriptionKey]*lie
	// told are the lies of those that are about to be queued.
	told map[event.SubscriptionKey]wrong
	last int64
}

// wrong is how wrong a status is, and whether that is news.
type wrong struct {
	size float64
	news bool
}

// lie is an item that is queued.
type lie struct {
	key    event.SubscriptionKey
	tenant string
	wrong
	turn int64 // first come, first served among equals
	i    int
}

// newOrder returns an order of nothing; tenant returns whose a subscription is, "" if that is not known.
func newOrder(tenant func(event.SubscriptionKey) string) *order {
	return &order{tenant: tenant, at: make(map[event.SubscriptionKey]*lie), told: make(map[event.SubscriptionKey]wrong)}
}

// tell says how wrong a status is that is queued, or about to be. It takes no turn from a tenant that has one: what is queued as news
// stays so, and what changes all the time keeps its place.
func (o *order) tell(key event.SubscriptionKey, now wrong) {
	o.mu.Lock()
	defer o.mu.Unlock()
	item := o.at[key]
	if item == nil {
		o.told[key] = now
		return
	}
	if now.news && !item.news {
		o.rest.remove(item)
		item.wrong = now
		o.news.add(item)
		return
	}
	item.size = now.size
	heap.Fix(o.of(item).lies[item.tenant], item.i)
}

// of is the round that an item is in.
func (o *order) of(item *lie) *round {
	if item.news {
		return &o.news
	}
	return &o.rest
}

// Touch is called for an item that is queued and was added again; tell has moved it already.
func (o *order) Touch(event.SubscriptionKey) {}

// Push queues an item that is not queued.
func (o *order) Push(key event.SubscriptionKey) {
	tenant := o.tenant(key)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last++
	item := &lie{key: key, tenant: tenant, wrong: o.told[key], turn: o.last}
	delete(o.told, key)
	o.at[key] = item
	o.of(item).add(item)
}

// Len is the number of queued items.
func (o *order) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.at)
}

// Pop takes the item that is next. There must be one.
func (o *order) Pop() event.SubscriptionKey {
	o.mu.Lock()
	defer o.mu.Unlock()
	from := &o.news
	if len(o.news.tenants) == 0 || len(o.rest.tenants) > 0 && o.turns%turnsInARow >= newsTurns {
		from = &o.rest
	}
	o.turns++
	item := from.next()
	delete(o.at, item.key)
	return item.key
}

// round has tenants take turns. Those that have nothing queued are not in it.
type round struct {
	tenants []string // the first is next
	lies    map[string]*lies
}

func (r *round) add(item *lie) {
	queued := r.lies[item.tenant]
	if queued == nil {
		if r.lies == nil {
			r.lies = make(map[string]*lies)
		}
		queued = &lies{}
		r.lies[item.tenant] = queued
		r.tenants = append(r.tenants, item.tenant)
	}
	heap.Push(queued, item)
}

func (r *round) remove(item *lie) {
	queued := r.lies[item.tenant]
	heap.Remove(queued, item.i)
	if queued.Len() > 0 {
		return
	}
	delete(r.lies, item.tenant)
	for i, tenant := range r.tenants {
		if tenant == item.tenant {
			r.tenants = append(r.tenants[:i], r.tenants[i+1:]...)
			return
		}
	}
}

func (r *round) next() *lie {
	tenant := r.tenants[0]
	queued := r.lies[tenant]
	item := heap.Pop(queued).(*lie)
	r.tenants = r.tenants[1:]
	if queued.Len() == 0 {
		delete(r.lies, tenant)
	} else {
		r.tenants = append(r.tenants, tenant)
	}
	return item
}

// lies is a heap.
type lies []*lie

func (l lies) Len() int { return len(l) }

func (l lies) Less(i, j int) bool {
	a, b := l[i], l[j]
	if a.size != b.size {
		return a.size > b.size
	}
	return a.turn < b.turn
}

func (l lies) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].i, l[j].i = i, j
}

func (l *lies) Push(x any) {
	item := x.(*lie)
	item.i = len(*l)
	*l = append(*l, item)
}

func (l *lies) Pop() any {
	last := len(*l) - 1
	item := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	return item
}
