package simulation

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// margin is how near to each other two things may be whose order nobody can know: a route may be changed while an event
	// is matched.
	margin = time.Second
	// promptly is within what a delivery is made whose endpoint is well, while no machine is in trouble.
	promptly = 10 * time.Second
	// recovery is how long a machine's trouble has effects.
	recovery = 2 * time.Minute
	// slack is how long after its beginning an attempt may ask an endpoint: it may have to dial once more.
	slack = 5 * time.Second
	// startTime is how long no dispatcher may be ready although the disk is well: longer than one is kept down.
	startTime = 15 * time.Minute
)

// published is an event, and what is known of its acceptance.
type published struct {
	id, kind      string // kind is created, updated or deleted
	resource      string
	tenant        int
	number        int // of the resource
	place         int // among the events of its resource, which are accepted in that order
	chosen        bool
	due           time.Time // when what it plans is due
	first, acked  time.Time // when it was asked for first, and answered; zero if it was not
	body          string
	deliveries    int
	appearsBroken bool
}

// chain is what is published about one resource.
type chain struct {
	tenant, number int
}

// pairOf is an event and a subscription.
type pairOf struct{ uid, event string }

// receipts are what an endpoint got of a pair.
type receipts struct {
	delivery string
	begun    []time.Time // attempts
	taken    time.Time   // when it was taken first; zero if it was not
}

// span is a time in which a machine was in trouble. Its end is zero while it lasts.
type span struct{ from, to time.Time }

// model knows what a dispatcher promised, and what it did.
type model struct {
	world *world

	mu       sync.Mutex
	events   map[string]*published
	chains   map[chain][]*published
	receipts map[pairOf]*receipts
	overtook [][3]string // uid, the event that was overtaken, the one that overtook it
	spans    []span
	downFrom time.Time // zero while a dispatcher is up
	acked    int
	arrived  int
	asked    map[pairOf]*asked
	operated int // what users asked for and heard of
}

func newModel(w *world) *model {
	return &model{world: w, events: map[string]*published{}, chains: map[chain][]*published{}, receipts: map[pairOf]*receipts{}, asked: map[pairOf]*asked{}, downFrom: time.Now()}
}

// isDown notes that no dispatcher works.
func (m *model) isDown() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.downFrom.IsZero() {
		m.downFrom = time.Now()
	}
}

// downSince is since when no dispatcher works; zero if one does.
func (m *model) downSince() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.downFrom
}

func (m *model) isStopping() { m.isDown() }

// isUp notes that one works again.
func (m *model) isUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.downFrom.IsZero() {
		m.spans = append(m.spans, span{m.downFrom, time.Now()})
		m.downFrom = time.Time{}
	}
}

// faulty notes that the machine is in trouble for a while.
func (m *model) faulty(lasts time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spans = append(m.spans, span{time.Now(), time.Now().Add(lasts + recovery)})
}

// troubled reports whether the machine was in trouble at some time between the two.
func (m *model) troubled(from, to time.Time) bool {
	if !m.downFrom.IsZero() && to.After(m.downFrom) {
		return true
	}
	return slices.ContainsFunc(m.spans, func(s span) bool { return s.from.Before(to) && from.Before(s.to.Add(margin)) })
}

// matches reports whether a subscription matches an event, by its kind.
func matches(s subSpec, e *published) bool {
	switch s.kind {
	case filtered:
		return e.chosen
	case everything, ordered:
		return true
	case planned:
		return e.resource == "appointment" && e.kind != "deleted"
	}
	return true
}

// must and may report whether an event causes a delivery for a life, as far as that can be known.
func (e *published) must(l *life) bool {
	return l.tenant == e.tenant && matches(l.spec, e) && !e.acked.IsZero() &&
		!l.born.Add(margin).After(e.first) && (l.died.IsZero() || l.died.After(e.acked.Add(margin)))
}

func (e *published) may(l *life) bool {
	return l.tenant == e.tenant && matches(l.spec, e) && (e.acked.IsZero() || !l.born.After(e.acked.Add(margin))) &&
		(l.died.IsZero() || l.died.Add(margin).After(e.first))
}

// later are the events of its resource that were accepted after it.
func (m *model) later(e *published) []*published {
	return m.chains[chain{e.tenant, e.number}][e.place+1:]
}

// begins adds an event that is published now.
func (m *model) begins(e *published) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := chain{e.tenant, e.number}
	e.first, e.place = time.Now(), len(m.chains[c])
	m.events[e.id] = e
	m.chains[c] = append(m.chains[c], e)
}

// unanswered is how many events are published without an answer so far.
func (m *model) unanswered() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.events) - m.acked
}

// accepts notes that an event was acknowledged.
func (m *model) accepts(e *published, deliveries int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.acked, e.deliveries = time.Now(), deliveries
	m.acked++
}

// received notes an attempt, and judges what can be judged at once.
func (m *model) received(a arrival) {
	if problem := m.receive(a); problem != "" {
		m.world.violated("%s", problem)
	}
}

func (m *model) receive(a arrival) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.arrived++
	e := m.events[a.event]
	if e == nil || !e.may(&a.life) {
		return fmt.Sprintf("unasked: %s came to %s of tenant %d, which does not match it", a.event, a.life.spec.name, a.life.tenant)
	}
	if !a.life.died.IsZero() && a.begun.After(a.life.died.Add(slack)) {
		return fmt.Sprintf("deleted: an attempt of %s began %v after its subscription was removed", a.event, a.begun.Sub(a.life.died))
	}
	r := m.receiptsOf(a)
	if r.delivery != a.delivery {
		return fmt.Sprintf("doubled: %s is delivery %s and delivery %s of one subscription", a.event, r.delivery, a.delivery)
	}
	wish := m.wishes(pairOf{a.life.uid, a.event})
	if !wish.cancelled.IsZero() && a.begun.After(wish.cancelled.Add(slack)) {
		return fmt.Sprintf("cancelled: an attempt of %s began at %v, and a user had cancelled it at %v", a.event, a.begun, wish.cancelled)
	}
	if !r.taken.IsZero() && m.always(a.life) && !m.troubled(r.taken.Add(-margin), time.Now()) {
		return fmt.Sprintf("repeated: %s was taken at %v, and came again at %v", a.event, r.taken, time.Now())
	}
	switch a.life.spec.kind {
	case planned:
		if problem := m.judgePlanned(e, a, r); problem != "" {
			return problem
		}
	case ordered:
		m.judgeOrder(e, a)
	case everything, filtered:
	}
	r.begun = append(r.begun, a.begun)
	return ""
}

func (m *model) receiptsOf(a arrival) *receipts {
	id := pairOf{a.life.uid, a.event}
	r := m.receipts[id]
	if r == nil {
		r = &receipts{delivery: a.delivery}
		m.receipts[id] = r
	}
	return r
}

// always reports whether a subscription's endpoint is always well.
func (m *model) always(l life) bool { return m.world.history.tenants[l.tenant].healthy }

// judgePlanned: nothing comes early, and nothing begins whose cancellation or replacement was acknowledged.
func (m *model) judgePlanned(e *published, a arrival, r *receipts) string {
	wish := m.wishes(pairOf{a.life.uid, e.id})
	if a.begun.Before(e.due) && wish.sendNow.IsZero() {
		return fmt.Sprintf("early: an attempt of %s began at %v and is due at %v", e.id, a.begun, e.due)
	}
	for _, next := range m.later(e) {
		if next.acked.IsZero() || !a.begun.After(next.acked.Add(slack)) {
			continue
		}
		switch {
		case next.kind == "deleted" && wish.replay.IsZero() && mayCancel(&a.life, next) && mustCancel(&a.life, next):
			return fmt.Sprintf("cancelled: an attempt of %s began at %v, and %s had cancelled it at %v", e.id, a.begun, next.id, next.acked)
		case next.kind != "deleted" && next.must(&a.life) && len(r.begun) == 0 && wish.sendNow.IsZero() && wish.replay.IsZero() && e.due.After(next.acked.Add(slack)):
			return fmt.Sprintf("replaced: an attempt of %s began at %v, and %s had replaced it at %v", e.id, a.begun, next.id, next.acked)
		}
	}
	return ""
}

// mustCancel and mayCancel report whether an event cancels what is planned for a life.
func mustCancel(l *life, e *published) bool {
	return !l.born.Add(margin).After(e.first) && (l.died.IsZero() || l.died.After(e.acked.Add(margin)))
}

func mayCancel(l *life, e *published) bool {
	return e.tenant == l.tenant && e.resource == "appointment" && e.kind == "deleted"
}

// judgeOrder notes which events this one has overtaken. Those that were given up may be.
func (m *model) judgeOrder(e *published, a arrival) {
	for _, before := range m.chains[chain{e.tenant, e.number}][:e.place] {
		if !before.must(&a.life) {
			continue
		}
		if r := m.receipts[pairOf{a.life.uid, before.id}]; r == nil || r.taken.IsZero() {
			m.overtook = append(m.overtook, [3]string{a.life.uid, before.id, e.id})
		}
	}
}

// took notes that an endpoint has taken a delivery.
func (m *model) took(a arrival) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.receiptsOf(a); r.taken.IsZero() {
		r.taken = time.Now()
	}
}

// superseded reports whether a later event may have ended what e planned for a life, before the given time.
func (m *model) superseded(e *published, l *life, before time.Time) bool {
	if l.spec.kind != planned {
		return false
	}
	r := m.receipts[pairOf{l.uid, e.id}]
	for _, next := range m.later(e) {
		if next.first.After(before) {
			continue
		}
		begun := r != nil && len(r.begun) > 0 && r.begun[0].Before(next.first)
		if mayCancel(l, next) || next.may(l) && !begun {
			return true
		}
	}
	return false
}

// late is an event that a subscription whose endpoint is always well did not get in time.
func (m *model) late(now time.Time) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	sorted := m.sorted()
	for _, l := range m.world.lives.of(0) {
		for _, e := range m.events {
			if e.tenant != 0 || e.appearsBroken || !e.must(&l) || !l.died.IsZero() {
				continue
			}
			if !m.wishes(pairOf{l.uid, e.id}).cancel.IsZero() {
				continue
			}
			limit, ok := m.limit(e, &l, sorted)
			if !ok || !now.After(limit) || m.superseded(e, &l, limit) {
				continue
			}
			r := m.receipts[pairOf{l.uid, e.id}]
			if r == nil || r.taken.IsZero() || r.taken.After(limit) {
				e.appearsBroken = true
				taken := "not yet"
				if r != nil && !r.taken.IsZero() {
					taken = r.taken.String()
				}
				return fmt.Sprintf("late: %s, acknowledged at %v, should be with %s (%s) by %v, and was taken: %s", e.id, e.acked, l.spec.name, l.spec.kind, limit, taken)
			}
		}
	}
	return ""
}

// sorted are the spans by when they began.
func (m *model) sorted() []span {
	sorted := slices.Clone(m.spans)
	slices.SortFunc(sorted, func(a, b span) int { return a.from.Compare(b.from) })
	return sorted
}

// limit is until when an event has to be delivered whose endpoint is well; false while the machine is in trouble.
func (m *model) limit(e *published, l *life, sorted []span) (time.Time, bool) {
	due := e.acked
	if l.spec.kind == planned && e.due.After(due) {
		due = e.due
	}
	limit := due.Add(promptly)
	for _, s := range sorted {
		if s.from.Before(limit) && s.to.Add(promptly).After(limit) {
			limit = s.to.Add(promptly)
		}
	}
	if !m.downFrom.IsZero() && m.downFrom.Before(limit) {
		return limit, false
	}
	return limit, true
}
