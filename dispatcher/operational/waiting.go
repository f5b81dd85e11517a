package operational

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/budget"
)

const (
	// maxHeld bounds what is held for all tenants: happenings, and the rates of subscriptions; each is below 512 bytes.
	maxHeld = 32 << 10
	// maxReady bounds what waits for the store of one kind and subscription. It is more than any rate's burst.
	maxReady = 32
	// maxBusy bounds how many tenants have an event under way at once, and maxRetried how many of these are tried again.
	maxBusy, maxRetried = 64, 16
)

// kind is what a rate is for.
type kind uint8

const (
	ofEndpoint kind = iota
	ofDelivery
	ofKeys
)

func kindOf(t event.Type) kind {
	switch t {
	case event.DeliveryFailed:
		return ofDelivery
	case event.KeyRotated:
		return ofKeys
	default:
		return ofEndpoint
	}
}

// rates are how many events of a kind a subscription causes: so many at once, and then one each so often.
var rates = map[kind]struct {
	burst int
	each  time.Duration
}{
	ofEndpoint: {burst: 6, each: 10 * time.Minute},
	ofDelivery: {burst: 20, each: time.Minute},
	ofKeys:     {burst: 6, each: 10 * time.Minute},
}

// subject is a subscription and a kind of what happens to it.
type subject struct {
	subscription event.SubscriptionKey
	kind         kind
}

// entry is what waits of a subject. Entries are charged to their tenants, and so are the happenings in them.
type entry struct {
	tenant  string
	limiter *rate.Limiter
	ready   []*happening
	late    *happening // waits for the rate: the newest
	others  int        // that it stands for, beside itself
	queued  bool       // in its tenant's queue
}

// queue is a tenant's, of entries that have something ready.
type queue struct {
	entries []*entry
	busy    bool      // one of the tenant is under way
	failed  bool      // the store did not take the last one
	after   time.Time // nor is it tried before
	queued  bool      // in the tenants' turns
}

// waiting is what is to be published: tenants take turns, and of each tenant its subscriptions. Of a tenant one is under way
// at a time. Tenants whose last one failed have turns of their own: while the store waits for something of theirs, such as
// their encryption key, they keep few places from the others.
type waiting struct {
	budget *budget.Budget

	mu            *sync.Mutex
	entries       map[subject]*entry
	tenants       map[string]*queue
	turns, again  []string
	busy, retried int // tenants with one under way; those of them whose last one failed
}

func newWaiting() waiting {
	return waiting{budget: budget.New(maxHeld), mu: &sync.Mutex{}, entries: make(map[subject]*entry), tenants: make(map[string]*queue)}
}

func (w *waiting) held() float64 { return float64(w.budget.Used()) }

// any reports whether anything is held.
func (w *waiting) any() bool { return w.budget.Used() > 0 }

// underWay reports whether something is under way.
func (w *waiting) underWay() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.busy > 0
}

// add takes a happening of the tenant, and returns what became of it if it does not wait: it was joined or dropped.
func (w *waiting) add(tenant string, h *happening, now time.Time) (result string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := subject{h.Subscription, kindOf(h.Type)}
	e, ok := w.entries[s]
	if !ok {
		if !w.budget.Take(tenant, 1) {
			return resultDropped
		}
		r := rates[s.kind]
		e = &entry{tenant: tenant, limiter: rate.NewLimiter(rate.Every(r.each), r.burst)}
		w.entries[s] = e
	}
	if e.late != nil { // the newest stands for all that wait
		e.others++
		e.late = h
		return resultJoined
	}
	if !w.budget.Take(tenant, 1) {
		return resultDropped
	}
	if len(e.ready) >= maxReady || !e.limiter.AllowN(now, 1) {
		e.late = h
		return ""
	}
	w.push(e, h)
	return ""
}

// push makes a happening ready.
func (w *waiting) push(e *entry, h *happening) {
	e.ready = append(e.ready, h)
	w.enqueue(e)
}

// enqueue gives the entry a place in its tenant's queue, and the tenant a turn.
func (w *waiting) enqueue(e *entry) {
	q, ok := w.tenants[e.tenant]
	if !ok {
		q = &queue{}
		w.tenants[e.tenant] = q
	}
	if !e.queued {
		e.queued = true
		q.entries = append(q.entries, e)
	}
	w.turn(e.tenant, q)
}

// turn gives the tenant a turn, if it may have one.
func (w *waiting) turn(tenant string, q *queue) {
	if q.queued || q.busy || len(q.entries) == 0 || !q.after.IsZero() {
		return
	}
	q.queued = true
	if q.failed {
		w.again = append(w.again, tenant)
	} else {
		w.turns = append(w.turns, tenant)
	}
}

// next takes the happening whose turn it is; nil if there is none, or no place for it. done or putBack has to follow.
func (w *waiting) next() (tenant string, h *happening) {
	w.mu.Lock()
	defer w.mu.Unlock()
	turns := &w.turns
	if len(w.turns) == 0 {
		turns = &w.again
	}
	if len(*turns) == 0 || w.busy == maxBusy || turns == &w.again && w.retried == maxRetried {
		return "", nil
	}
	tenant, *turns = (*turns)[0], (*turns)[1:]
	q := w.tenants[tenant]
	q.queued, q.busy = false, true
	w.busy++
	if q.failed {
		w.retried++
	}
	e := q.entries[0]
	q.entries = q.entries[1:]
	h, e.ready = e.ready[0], e.ready[1:]
	if e.queued = len(e.ready) > 0; e.queued {
		q.entries = append(q.entries, e)
	}
	return tenant, h
}

// done gives back what the happening held, and the tenant its next turn.
func (w *waiting) done(tenant string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.budget.Give(tenant, 1)
	w.leave(tenant, false)
}

// putBack makes the happening its subject's next, and the tenant wait until then.
func (w *waiting) putBack(tenant string, h *happening, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.entries[subject{h.Subscription, kindOf(h.Type)}]
	if e == nil { // it was forgotten: the subscription has not caused one for long
		w.budget.Give(tenant, 1)
		w.leave(tenant, true)
		return
	}
	w.tenants[tenant].after = until
	e.ready = append([]*happening{h}, e.ready...)
	w.enqueue(e)
	w.leave(tenant, true)
}

// leave gives the tenant's place back. The lock is held.
func (w *waiting) leave(tenant string, failed bool) {
	q := w.tenants[tenant]
	w.busy--
	if q.failed {
		w.retried--
	}
	q.busy, q.failed = false, failed
	if len(q.entries) == 0 {
		delete(w.tenants, tenant)
		return
	}
	w.turn(tenant, q)
}

// look makes ready what the rates allow by now, lets tenants try again, and forgets rates that are rested.
func (w *waiting) look(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s, e := range w.entries {
		switch {
		case e.late != nil && len(e.ready) < maxReady && e.limiter.AllowN(now, 1):
			w.promote(e)
		case e.late == nil && len(e.ready) == 0 && e.limiter.TokensAt(now) >= float64(e.limiter.Burst()):
			delete(w.entries, s)
			w.budget.Give(e.tenant, 1)
		}
	}
	for tenant, q := range w.tenants {
		if !q.after.After(now) {
			q.after = time.Time{}
			w.turn(tenant, q)
		}
	}
}

// promote makes what waits for the rate ready.
func (w *waiting) promote(e *entry) {
	h := e.late
	h.others = e.others
	e.late, e.others = nil, 0
	w.push(e, h)
}

// release makes everything ready, whatever the rates say: the process stops.
func (w *waiting) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.entries {
		if e.late != nil {
			w.promote(e)
		}
	}
	for tenant, q := range w.tenants {
		q.after = time.Time{}
		w.turn(tenant, q)
	}
}

// drop calls each for all that is left, and returns their number.
func (w *waiting) drop(each func(*happening)) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.entries {
		for _, h := range e.ready {
			each(h)
			n++
		}
	}
	return n
}
