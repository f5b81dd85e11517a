package engine

import "container/heap"

// tenant is one namespace's way through the engine: it takes turns with the other tenants, and its lanes take turns among
// themselves. The engine's mutex guards it.
type tenant struct {
	name  string
	lanes int // that are the tenant's
	use   use // of the places for attempts
	held  int // deliveries in its lanes' memory
	// bytes of memory that attempts have charged, and spare ones that the budget gave and nothing uses.
	bytes, spare int64

	serve    [rooms]fifo[*lane] // lanes with something ready and room in flight
	load     fifo[*lane]        // lanes with something due in the store
	loading  bool               // in the engine's queue of tenants to load for
	sweep    fifo[*lane]        // lanes with something to finish without an attempt
	sweeping bool               // in the engine's queue of tenants to sweep for
	standing [rooms]standing
	parkedAt [rooms]int // index in the heap of parked tenants
}

// standing is where a tenant stands with what it has to serve in a room.
type standing uint8

const (
	absent  standing = iota // it has nothing to serve
	inTurn                  // it waits for its turn
	parked                  // it waits for a place
	capped                  // it has what its quota allows in flight: only the end of one of these helps
	starved                 // it waits for memory
)

// turns are the tenants that have something to serve in one room.
type turns struct {
	room    room
	ready   fifo[*tenant]
	parked  parkedTenants
	starved fifo[*tenant]
}

// enter gives a tenant its turn, unless it waits already.
func (q *turns) enter(t *tenant) bool {
	if t.standing[q.room] != absent {
		return false
	}
	t.standing[q.room] = inTurn
	q.ready.push(t)
	return true
}

// next takes the tenant whose turn it is; nil if there is none.
func (q *turns) next() *tenant {
	t := q.ready.pop()
	if t != nil {
		t.standing[q.room] = absent
	}
	return t
}

// park sets a tenant aside that no place is free for. Those that wait for an end of their own are apart, so that they keep
// no other from a place.
func (q *turns) park(t *tenant) {
	if t.use.capped() {
		t.standing[q.room] = capped
		return
	}
	t.standing[q.room] = parked
	heap.Push(&q.parked, t)
}

// recheck gives a tenant its turn if what it waited for came with the end of an attempt of its own.
func (q *turns) recheck(t *tenant, p *places) bool {
	switch {
	case t.standing[q.room] == capped && !t.use.capped():
		t.standing[q.room] = absent
	case t.standing[q.room] == parked && p.admits(q.room, &t.use):
		heap.Remove(&q.parked, t.parkedAt[q.room])
		t.standing[q.room] = absent
	default:
		return false
	}
	return q.enter(t)
}

// starve sets a tenant aside that no memory is free for.
func (q *turns) starve(t *tenant) {
	t.standing[q.room] = starved
	q.starved.push(t)
}

// fix puts a tenant, whose use changed, where it belongs among those that are parked.
func (q *turns) fix(t *tenant) {
	if t.standing[q.room] == parked {
		heap.Fix(&q.parked, t.parkedAt[q.room])
	}
}

// unpark gives the parked tenant with the fewest attempts its turn, if a place is free for it.
func (q *turns) unpark(p *places) bool {
	if len(q.parked.tenants) == 0 || !p.admits(q.room, &q.parked.tenants[0].use) {
		return false
	}
	t := heap.Pop(&q.parked).(*tenant)
	t.standing[q.room] = absent
	return q.enter(t)
}

// unparkAll gives every parked tenant its turn; those that still have no place return. A tenant whose quota changed is
// rechecked apart.
func (q *turns) unparkAll() {
	for len(q.parked.tenants) > 0 {
		t := heap.Pop(&q.parked).(*tenant)
		t.standing[q.room] = absent
		q.enter(t)
	}
}

// feed gives the tenant that has waited longest for memory its turn.
func (q *turns) feed() bool {
	t := q.starved.pop()
	if t == nil {
		return false
	}
	t.standing[q.room] = absent
	return q.enter(t)
}

// parkedTenants orders tenants by what they use of a room, the least first (container/heap).
type parkedTenants struct {
	room    room
	tenants []*tenant
}

func (h *parkedTenants) Len() int { return len(h.tenants) }

func (h *parkedTenants) Less(i, j int) bool {
	return h.tenants[i].use.weight(h.room) < h.tenants[j].use.weight(h.room)
}

func (h *parkedTenants) Swap(i, j int) {
	h.tenants[i], h.tenants[j] = h.tenants[j], h.tenants[i]
	h.tenants[i].parkedAt[h.room], h.tenants[j].parkedAt[h.room] = i, j
}

// Push appends a *tenant.
func (h *parkedTenants) Push(x any) {
	t := x.(*tenant)
	t.parkedAt[h.room] = len(h.tenants)
	h.tenants = append(h.tenants, t)
}

// Pop removes the last tenant.
func (h *parkedTenants) Pop() any {
	last := len(h.tenants) - 1
	t := h.tenants[last]
	h.tenants[last] = nil
	h.tenants = h.tenants[:last]
	return t
}
