package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var modelTests = map[string]func(*fixture){
	"History1": func(f *fixture) { newModel(f, 1).run(400) },
	"History2": func(f *fixture) { newModel(f, 2).run(400) },
	"History3": func(f *fixture) { newModel(f, 3).run(400) },
}

// RunCrashes runs short random histories, numbered from first on, each with power failures in it, and audits after each
// failure that all that was acknowledged is there.
func RunCrashes(t *testing.T, harness Harness, first, histories int) {
	for i := first; i < first+histories; i++ {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, harness)
			m := newModel(f, uint64(i))
			for range 3 {
				m.run(5 + m.rng.IntN(20))
				m.crash()
			}
			m.check()
			m.load()
		})
	}
}

// known is what the model knows of a delivery.
type known struct {
	id       event.DeliveryID
	sub      int
	eventID  string
	standing standing
	// past are the standings that a crash may bring back.
	past []standing
	gone bool // dropped by retention
}

// standing is where a delivery stands.
type standing struct {
	pending  delivery.PendingDelivery // as it is if state is Pending
	state    delivery.State
	attempts []delivery.Attempt
	replayOf event.DeliveryID
	finished time.Time
}

// accepted is an event as its producer knows it.
type acceptedEvent struct {
	content string
	at      time.Time
	count   int
}

// model does to a store what it does to itself, and compares.
type model struct {
	*fixture
	rng        *rand.Rand
	subs       []delivery.Subscription
	counts     []delivery.Counts // but for the census
	deliveries []*known
	events     map[string]acceptedEvent // by namespace and id
}

func newModel(f *fixture, seed uint64) *model {
	m := &model{fixture: f, rng: rand.New(rand.NewPCG(seed, 0)), events: map[string]acceptedEvent{}}
	for _, namespace := range []string{clinicA, clinicB} {
		for _, name := range []string{"x", "y", "z"} {
			sub := subscription(namespace, name)
			sub.Ordered = name == "z"
			m.subs = append(m.subs, sub)
		}
	}
	m.counts = make([]delivery.Counts, len(m.subs))
	return m
}

// run takes steps at random.
func (m *model) run(steps int) {
	for step := range steps {
		switch n := m.rng.IntN(100); {
		case n < 40:
			m.append()
		case n < 80:
			m.recordSome()
		case n < 86:
			m.replayOne()
		case n < 94:
			m.clock.Advance(time.Duration(m.rng.Int64N(int64(5 * time.Hour))))
		case n < 97:
			m.fixture.expire()
		default:
			m.fixture.reopen()
			m.settle()
		}
		if step%20 == 19 {
			m.check()
		}
		if m.Failed() {
			m.Fatalf("at step %d", step)
		}
	}
}

// settle: what is on disk now, no crash undoes.
func (m *model) settle() {
	for _, k := range m.deliveries {
		k.past = nil
	}
}

// newEvents invents a call's events. Their ids repeat often, their content seldom differs.
func (m *model) newEvents() []store.NewEvent {
	var events []store.NewEvent
	for range 1 + m.rng.IntN(4) {
		from := m.rng.IntN(2) * len(m.subs) / 2
		var subs []delivery.Subscription
		for _, sub := range m.subs[from : from+len(m.subs)/2] {
			if m.rng.IntN(2) == 0 {
				subs = append(subs, sub)
			}
		}
		content := "usual"
		if m.rng.IntN(25) == 0 {
			content = "other"
		}
		e := newEvent(m.subs[from].Tenant, fmt.Sprintf("evt-%d", m.rng.IntN(60+len(m.events))), content, subs...)
		e.Order = uint64(m.rng.IntN(4))
		events = append(events, e)
	}
	return events
}

func (m *model) append() {
	events := m.newEvents()
	now := m.clock.Now()
	var want []store.Accepted
	conflict, fresh := -1, map[string]acceptedEvent{}
	for i, e := range events {
		name, content := e.Event.Tenant+"/"+e.Event.ID, contentOf(e)
		before, found := fresh[name]
		if !found {
			before, found = m.events[name]
			found = found && now.Sub(before.at) < 24*time.Hour
		}
		if found && before.content != content {
			conflict = i
			break
		}
		if !found {
			before = acceptedEvent{content: content, at: now, count: len(e.Subscriptions)}
			fresh[name] = before
		}
		want = append(want, store.Accepted{ID: e.Event.ID, Deliveries: before.count, Repeated: found})
	}
	answers, deliveries, err := m.Append(m.ctx, events)
	if conflict >= 0 {
		var c *store.ConflictError
		if !errors.As(err, &c) || c.Index != conflict {
			m.Fatalf("Append gave %v, want a conflict with event %d", err, conflict)
		}
		return
	}
	if err != nil {
		m.Fatalf("Append: %v", err)
	}
	m.same("answers", want, answers)
	for i, e := range events {
		if !want[i].Repeated {
			name := e.Event.Tenant + "/" + e.Event.ID
			m.events[name] = acceptedEvent{contentOf(e), e.Event.Key.Accepted(), len(e.Subscriptions)}
		}
	}
	for _, d := range deliveries {
		m.deliveries = append(m.deliveries, m.newKnown(d))
	}
}

func contentOf(e store.NewEvent) string { return string(e.Digest[:]) }

func (m *model) newKnown(d delivery.PendingDelivery) *known {
	sub := slices.IndexFunc(m.subs, func(s delivery.Subscription) bool { return s.Key == d.ID.Subscription })
	return &known{id: d.ID, sub: sub, eventID: d.Event.ID, standing: standing{state: delivery.Pending, pending: bare(d)[0]}}
}

// pick returns a delivery in the state, nil if there is none.
func (m *model) pick(state delivery.State) *known {
	if len(m.deliveries) == 0 {
		return nil
	}
	from := m.rng.IntN(len(m.deliveries))
	for i := range m.deliveries {
		if k := m.deliveries[(from+i)%len(m.deliveries)]; k.standing.state == state && !k.gone {
			return k
		}
	}
	return nil
}

// recordSome records outcomes of several deliveries at once, now and then one of a delivery that is finished.
func (m *model) recordSome() {
	var outcomes []delivery.Outcome
	for range 1 + m.rng.IntN(5) {
		if k := m.pick(delivery.Delivered); k != nil && m.rng.IntN(10) == 0 {
			late := delivery.PendingDelivery{ID: k.id, Due: m.clock.Now()}
			outcomes = append(outcomes, m.failed(late))
			continue
		}
		if k := m.pick(delivery.Pending); k != nil {
			outcomes = append(outcomes, m.outcome(k))
		}
	}
	m.record(outcomes...)
}

// outcome invents what comes of a pending delivery, and notes it.
func (m *model) outcome(k *known) delivery.Outcome {
	k.past = append(k.past, k.standing)
	o := delivery.Outcome{Delivery: k.standing.pending, State: delivery.State(1 + m.rng.IntN(4))}
	c := &m.counts[k.sub]
	switch {
	case o.State == delivery.Delivered:
		o.Attempt = m.attempt(o.Delivery, 200)
		c.FailuresInARow, c.Gone, c.LastDelivered = 0, 0, o.Attempt.Started.Add(o.Attempt.Duration)
	case o.State != delivery.Cancelled:
		o.Attempt = m.attempt(o.Delivery, 400+m.rng.IntN(200))
		c.FailuresInARow++
		c.LastFailure = *o.Attempt
		if m.rng.IntN(10) == 0 {
			o.Gone = 1 + m.rng.Int64N(9)
			c.Gone = o.Gone
		}
	}
	if o.State == delivery.Pending {
		o.Due = m.clock.Now().Add(time.Duration(m.rng.Int64N(int64(3 * time.Hour))))
	}
	k.standing.attempts = slices.Clone(k.standing.attempts)
	if o.Attempt != nil {
		k.standing.attempts = append(k.standing.attempts, *o.Attempt)
		k.standing.pending.Attempts++
	}
	k.standing.state, k.standing.pending.Due = o.State, o.Due
	if o.State != delivery.Pending {
		k.standing.finished = m.clock.Now()
	}
	return o
}

func (m *model) replayOne() {
	k := m.pick(delivery.Delivered + delivery.State(m.rng.IntN(3)))
	if k == nil {
		return
	}
	d, err := m.Replay(m.ctx, m.subs[k.sub].Tenant, k.id)
	if errors.Is(err, store.ErrNotFound) && m.mayBeGone(k) {
		k.gone = true
		return
	}
	if err != nil {
		m.Fatalf("Replay of %s, which is %s: %v", k.id, k.standing.state, err)
	}
	if k.standing.state == delivery.Delivered {
		again := m.newKnown(d)
		again.standing.replayOf = k.id
		m.deliveries = append(m.deliveries, again)
		k.past = nil // the replay was accepted, so this is durable
		return
	}
	p := &k.standing.pending
	p.Due, p.Since, p.AttemptsBefore, p.Order = m.clock.Now(), m.clock.Now(), p.Attempts, 0
	k.standing.state, k.past = delivery.Pending, nil
	m.same("replay", bare(k.standing.pending), bare(d))
}

func (m *model) mayBeGone(k *known) bool {
	keep := keepFailed
	if k.standing.state == delivery.Delivered {
		keep = keepDelivered
	}
	return k.standing.state != delivery.Pending && m.clock.Now().Sub(k.standing.finished) >= keep
}

// check compares all that can be asked.
func (m *model) check() {
	m.Helper()
	for i, sub := range m.subs {
		var want []delivery.PendingDelivery
		c := m.counts[i]
		for _, k := range m.deliveries {
			if k.sub != i {
				continue
			}
			switch k.standing.state {
			case delivery.Pending:
				want = append(want, k.standing.pending)
				c.Retrying += int64(btoi(k.standing.pending.Attempts > 0))
			case delivery.Delivered:
				c.Delivered++
			case delivery.Failed:
				c.Failed++
			case delivery.Cancelled:
				c.Cancelled++
			}
		}
		slices.SortFunc(want, func(a, b delivery.PendingDelivery) int { return 1 - 2*btoi(a.Position().Before(b.Position())) })
		if got := bare(m.pending(sub)...); !slices.EqualFunc(want, got, samePending) {
			m.same("pending of "+sub.Name, want, got)
		}
		m.same("counts of "+sub.Name, c, m.fixture.counts(sub))
		m.checkFirst(sub, want)
		m.checkOldest(sub, want)
	}
	m.checkTotals()
	m.checkRecords()
}

func (m *model) checkFirst(sub delivery.Subscription, pending []delivery.PendingDelivery) {
	m.Helper()
	orders := map[uint64]bool{1: true, 2: true, 3: true}
	for _, d := range pending {
		orders[d.Order] = d.Order != 0
	}
	for order, some := range orders {
		if !some {
			continue
		}
		var want []delivery.PendingDelivery
		for _, d := range pending {
			if d.Order == order && (want == nil || slices.Compare(d.ID.Event[:], want[0].ID.Event[:]) < 0) {
				want = []delivery.PendingDelivery{d}
			}
		}
		m.first(sub, order, want...)
	}
}

func (m *model) checkOldest(sub delivery.Subscription, pending []delivery.PendingDelivery) {
	m.Helper()
	var want time.Time
	for _, d := range pending {
		if at := d.ID.Event.Accepted(); want.IsZero() || at.Before(want) {
			want = at
		}
	}
	got, err := m.OldestPending(m.ctx, sub.Key)
	if err != nil || !got.Equal(want) {
		m.Errorf("OldestPending gave %v, %v; want %v", got, err, want)
	}
}

// checkRecords compares every delivery's record, and the lists.
func (m *model) checkRecords() {
	m.Helper()
	want := map[string][]store.Record{}
	for _, k := range m.deliveries {
		if k.gone {
			continue
		}
		sub := m.subs[k.sub]
		got, err := m.Get(m.ctx, sub.Tenant, k.id)
		if errors.Is(err, store.ErrNotFound) && m.mayBeGone(k) {
			k.gone = true
			continue
		}
		if err != nil {
			m.Fatalf("Get(%s), which is %s: %v", k.id, k.standing.state, err)
		}
		r := k.record(sub)
		m.sameRecords("record", []store.Record{r}, []store.Record{got})
		r.Attempts = nil
		want[sub.Tenant] = append(want[sub.Tenant], r)
	}
	for namespace, records := range want {
		slices.SortFunc(records, func(a, b store.Record) int { return -slices.Compare([]byte(a.ID.String()), []byte(b.ID.String())) })
		m.sameRecords("list", records, m.list(store.Query{Tenant: namespace, Limit: 1 << 20}))
	}
}

// sameRecords is same without reflection as long as nothing differs: a history compares very many.
func (m *model) sameRecords(what string, want, got []store.Record) {
	m.Helper()
	same := slices.EqualFunc(want, got, func(a, b store.Record) bool {
		return a.ID == b.ID && a.EventID == b.EventID && a.Type == b.Type && a.Tenant == b.Tenant && a.Subscription == b.Subscription &&
			a.State == b.State && a.Created.Equal(b.Created) && a.AttemptCount == b.AttemptCount && a.Due.Equal(b.Due) &&
			a.ReplayOf == b.ReplayOf && slices.EqualFunc(a.Attempts, b.Attempts, sameAttempt)
	})
	if !same {
		m.same(what, want, got)
	}
}

func sameAttempt(a, b delivery.Attempt) bool {
	return a.Number == b.Number && a.Started.Equal(b.Started) && a.Duration == b.Duration && a.StatusCode == b.StatusCode && a.Reason == b.Reason
}

func samePending(a, b delivery.PendingDelivery) bool {
	return a.ID == b.ID && a.Due.Equal(b.Due) && a.Since.Equal(b.Since) && a.Attempts == b.Attempts &&
		a.AttemptsBefore == b.AttemptsBefore && a.Order == b.Order && a.Size == b.Size
}

func (k *known) record(sub delivery.Subscription) store.Record {
	r := store.Record{
		ID: k.id, EventID: k.eventID, Type: "patient.created", Tenant: sub.Tenant, Subscription: sub.Name,
		State: k.standing.state, Created: k.id.Event.Accepted(), AttemptCount: k.standing.pending.Attempts,
		Attempts: k.standing.attempts, ReplayOf: k.standing.replayOf,
	}
	if k.standing.state == delivery.Pending {
		r.Due = k.standing.pending.Due
	}
	return r
}

// crash cuts the power. Each delivery must stand where it stood, or where it stood at some time since it was durable.
func (m *model) crash() {
	m.Helper()
	m.fixture.crash()
	for _, k := range m.deliveries {
		if !k.gone {
			m.recover(k)
		}
	}
	for i, sub := range m.subs {
		c := m.fixture.counts(sub)
		c.Delivered, c.Retrying, c.Failed, c.Cancelled = 0, 0, 0, 0
		m.counts[i] = c
	}
	m.settle()
	m.check()
}

func (m *model) recover(k *known) {
	m.Helper()
	got, err := m.Get(m.ctx, m.subs[k.sub].Tenant, k.id)
	if errors.Is(err, store.ErrNotFound) && m.mayBeGone(k) {
		k.gone = true
		return
	}
	if err != nil {
		m.Fatalf("after a crash, Get(%s), which was %s: %v", k.id, k.standing.state, err)
	}
	for _, s := range append(k.past, k.standing) {
		if s.state == got.State && s.pending.Attempts == got.AttemptCount && (got.Due.IsZero() || got.Due.Equal(s.pending.Due)) {
			k.standing = s
			return
		}
	}
	m.Fatalf("after a crash, %s is %s with %d attempts, which it never was", k.id, got.State, got.AttemptCount)
}

// load appends from many goroutines, cuts the power at some moment, and audits what was acknowledged before.
func (m *model) load() {
	m.Helper()
	const writers = 4
	stop := int64(1 + m.rng.IntN(40))
	type ack struct {
		events     []store.NewEvent
		deliveries []delivery.PendingDelivery
	}
	var done [writers][]ack
	var before [writers]int
	acks := make(chan int, writers)
	image := make(chan struct{})
	parallel(writers+1, func(w int) {
		if w == writers {
			for range stop {
				before[<-acks]++
			}
			m.place.Crash()
			close(image)
			return
		}
		for n := 0; ; n++ {
			var events []store.NewEvent
			for i := range 1 + n%3 {
				events = append(events, newEvent(clinicA, fmt.Sprintf("load-%d-%d-%d", w, n, i), "x", m.subs[0], m.subs[1]))
			}
			_, deliveries, err := m.Append(m.ctx, events)
			if err == nil {
				done[w] = append(done[w], ack{events, deliveries})
				if n%2 == 0 {
					err = m.Record(m.ctx, []delivery.Outcome{m.delivered(deliveries[0])})
				}
			}
			if err != nil && m.place.Kills {
				<-image
				return
			}
			if err != nil {
				m.Error(err)
				return
			}
			select {
			case <-image:
				return
			case acks <- w:
			}
		}
	})
	m.fixture.reopen()
	for w := range done {
		for i, a := range done[w] {
			m.auditLoad(a.deliveries, i < before[w])
		}
	}
}

// auditLoad expects all of a call's deliveries if it was acknowledged before the crash, else all or none.
func (m *model) auditLoad(deliveries []delivery.PendingDelivery, acknowledged bool) {
	m.Helper()
	found := 0
	for _, d := range deliveries {
		_, err := m.Get(m.ctx, clinicA, d.ID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			m.Fatal(err)
		}
		if err == nil {
			found++
			if _, err := m.Event(m.ctx, d.ID.Event); err != nil {
				m.Errorf("event of %s: %v", d.ID, err)
			}
		}
	}
	if found != len(deliveries) && (acknowledged || found > 0) {
		m.Errorf("%d of %d deliveries of a call are there; it was acknowledged: %t", found, len(deliveries), acknowledged)
	}
}
