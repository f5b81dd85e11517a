package engine

import (
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// flight is an attempt under way. Each worker has one and uses it again.
type flight struct {
	lane     *lane
	tenant   *tenant // whose place it has
	delivery delivery.PendingDelivery
	endpoint *Endpoint
	room     room
	started  time.Time
	waits    bool  // it outlasted the engine's patience
	charged  int64 // of the tenant's memory, until the request is written

	older, newer *flight // in flights
}

// flights are attempts in the order in which they started.
type flights struct{ oldest, newest *flight }

func (q *flights) push(f *flight) {
	f.older, f.newer = q.newest, nil
	if q.newest != nil {
		q.newest.newer = f
	} else {
		q.oldest = f
	}
	q.newest = f
}

func (q *flights) remove(f *flight) {
	if f.older != nil {
		f.older.newer = f.newer
	} else {
		q.oldest = f.newer
	}
	if f.newer != nil {
		f.newer.older = f.older
	} else {
		q.newest = f.older
	}
	f.older, f.newer = nil, nil
}

// attemptBytes is what an attempt costs beside its event's body: the request's head, and what egress keeps of it.
const attemptBytes = 2 << 10

// launch takes the lane's earliest delivery into flight.
func (e *Engine) launch(f *flight, l *lane, charged int64) {
	t, r := l.tenant, l.room()
	*f = flight{
		lane: l, tenant: t, delivery: l.ready.pop(), endpoint: l.endpoint,
		room: r, started: e.Now(), charged: charged,
	}
	t.bytes += charged
	t.held--
	e.held--
	l.inFlight++
	e.occupy(t, r, 1)
	if r == patient {
		return
	}
	e.hurried.push(f)
	if e.hurried.oldest == f && e.wakeAt.After(f.started.Add(e.Patience)) {
		e.wakeAt = f.started.Add(e.Patience)
		e.rouse()
	}
}

// occupy takes n places of a room for the tenant, or gives them back.
func (e *Engine) occupy(t *tenant, r room, n int) {
	e.places.used[r] += n
	t.use.in[r] += n
	for r := range e.serve {
		e.serve[r].fix(t)
	}
}

// outlast moves an attempt whose answer is long in coming to the patient room: its place is for others that answer soon.
func (e *Engine) outlast(f *flight) {
	e.hurried.remove(f)
	e.occupy(f.tenant, f.room, -1)
	left := f.room
	f.room, f.waits = patient, true
	f.lane.waiting++
	e.occupy(f.tenant, patient, 1)
	e.unpark(left)
	e.arrange(f.lane)
}

// unpark gives a tenant its turn that waits for a place in the room, if one is free for it.
func (e *Engine) unpark(r room) {
	if e.serve[r].unpark(&e.places) {
		e.summon()
	}
}

// land takes the attempt out of flight.
func (e *Engine) land(f *flight) {
	l, t := f.lane, f.tenant
	l.inFlight--
	if f.waits {
		l.waiting--
	}
	if f.room != patient {
		e.hurried.remove(f)
	}
	e.occupy(t, f.room, -1)
	e.repay(f)
	e.letGo(&f.delivery)
	e.rest(t)
	for r := range room(rooms) { // one place less in one room is one more for all, too
		if e.serve[r].recheck(t, &e.places) {
			e.summon()
		}
		e.unpark(r)
	}
	e.dismiss(t)
	e.calmed()
}

// written gives back the memory of an attempt whose request was written: what waits for the answer is a connection.
func (e *Engine) written(f *flight) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.repay(f)
	e.letGo(&f.delivery)
}

// charge takes n bytes of memory for an attempt of the tenant. Whatever else the tenant holds, one attempt of its may
// go: its events must not wait for those that it publishes.
func (e *Engine) charge(t *tenant, n int64) bool {
	return e.take(t, n, e.Memory.Limit()) || t.bytes == 0 && e.Memory.TakeOver(t.name, n)
}

// mostSpare is the most that a tenant takes of the budget ahead: going to it for each attempt costs.
const mostSpare = 32 << 10

// spareStep is what a tenant takes of the budget at least, where that is to be had.
func (e *Engine) spareStep() int64 { return min(mostSpare, e.Memory.Limit()/4096) }

// take takes n bytes for the tenant: of what it has spare, or of the given part of the budget.
func (e *Engine) take(t *tenant, n, part int64) bool {
	if t.spare < n {
		more := max(n-t.spare, e.spareStep())
		if !e.Memory.TakeSpare(t.name, more, part) {
			if more = n - t.spare; !e.Memory.TakeSpare(t.name, more, part) {
				return false
			}
		}
		t.spare += more
	}
	t.spare -= n
	return true
}

// give gives n bytes back that the tenant took.
func (e *Engine) give(t *tenant, n int64) {
	t.spare += n
	if t.spare > 2*e.spareStep() {
		e.Memory.Give(t.name, t.spare-e.spareStep())
		t.spare = e.spareStep()
	}
	e.rest(t)
}

// rest gives back what a tenant has spare that has nothing in flight and nothing waiting in memory.
func (e *Engine) rest(t *tenant) {
	if t.spare > 0 && t.held == 0 && t.use.total() == 0 {
		e.Memory.Give(t.name, t.spare)
		t.spare = 0
	}
}

// repay gives back what the attempt charged.
func (e *Engine) repay(f *flight) {
	if f.charged == 0 {
		return
	}
	f.tenant.bytes -= f.charged
	e.give(f.tenant, f.charged)
	f.charged = 0
	e.feed()
}

// feed gives a tenant its turn that waits for memory.
func (e *Engine) feed() {
	for r := range e.serve {
		if e.serve[r].feed() {
			e.summon()
		}
	}
}

// feedAll gives all tenants their turn that wait for memory.
func (e *Engine) feedAll() {
	for r := range e.serve {
		for range e.serve[r].starved.len() {
			e.serve[r].feed()
			e.summon()
		}
	}
}
