package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// planModel does to a store what it does to itself, and compares. It works on a few keys of one subscription, in so little
// time that nothing is forgotten.
type planModel struct {
	*fixture
	rng        *rand.Rand
	sub        delivery.Subscription
	minute     int
	latest     map[plan.Key]*plan.Latest
	newest     map[plan.Key]*modelPlan // the deliveries that latest is about, if there are some
	deliveries []*modelPlan
}

// modelPlan is a delivery of an event that plans.
type modelPlan struct {
	id      event.DeliveryID
	key     plan.Key
	state   delivery.State
	reason  delivery.Reason
	pending delivery.PendingDelivery // if state is Pending
	// started: Start said so, and there is no outcome.
	started bool
}

func testPlanModel(f *fixture) {
	for seed := range uint64(6) {
		m := &planModel{
			fixture: f, rng: rand.New(rand.NewPCG(seed, 1)), sub: subscription(clinicA, fmt.Sprint("sms-", seed)), minute: 10,
			latest: map[plan.Key]*plan.Latest{}, newest: map[plan.Key]*modelPlan{},
		}
		for step := 0; step < 120 && !f.Failed(); step++ {
			m.step()
			if step%10 == 9 {
				m.check()
			}
		}
		if f.Failed() {
			f.Fatalf("with seed %d", seed)
		}
	}
}

func (m *planModel) step() {
	switch n := m.rng.IntN(100); {
	case n < 45:
		m.append()
	case n < 58:
		m.starts()
	case n < 76:
		m.outcome()
	case n < 80:
		m.cancelOne()
	case n < 84:
		m.sendOne()
	case n < 88:
		m.replayOne()
	case n < 96:
		m.clock.Advance(time.Duration(m.rng.Int64N(int64(10 * time.Minute))))
	default:
		m.restart()
	}
}

// restart closes the store, or cuts the power after an acknowledgement, before which nothing is lost.
func (m *planModel) restart() {
	if m.place.Crash != nil && m.rng.IntN(2) == 0 {
		m.next++
		m.publish(clinicA, fmt.Sprintf("%s-sync-%d", m.sub.Name, m.next))
		m.fixture.crash()
	} else {
		m.fixture.reopen()
	}
	for _, d := range m.deliveries {
		d.started = false
	}
}

// pick returns a delivery for which ok holds, nil if there is none.
func (m *planModel) pick(ok func(*modelPlan) bool) *modelPlan {
	fitting := slices.DeleteFunc(slices.Clone(m.deliveries), func(d *modelPlan) bool { return !ok(d) })
	if len(fitting) == 0 {
		return nil
	}
	return fitting[m.rng.IntN(len(fitting))]
}

func isPending(d *modelPlan) bool { return d.state == delivery.Pending }

// append publishes some events, and foresees what they do.
func (m *planModel) append() {
	var events []store.NewEvent
	var after []func(id event.DeliveryID)
	for range 1 + m.rng.IntN(3) {
		m.next++
		m.minute++
		minute := m.minute - m.rng.IntN(2)*m.rng.IntN(6)
		id := fmt.Sprintf("%s-%d", m.sub.Name, m.next)
		key := keyOf(m.fixture, fmt.Sprint("key-", m.rng.IntN(3)))
		if m.rng.IntN(4) == 0 {
			events = append(events, cancelEvent(m.sub, id, key, minute))
			after = append(after, func(event.DeliveryID) { m.cancels(key, minute) })
			continue
		}
		p := planFor(key, minute, m.clock.Now().Add(time.Duration(m.rng.Int64N(int64(3*time.Hour)))))
		if m.rng.IntN(6) == 0 {
			p.Decision = plan.Decision{Reason: plan.Past}
		}
		events = append(events, planEvent(m.sub, id, p))
		size := len(events[len(events)-1].Event.Body)
		after = append(after, func(id event.DeliveryID) { m.plans(id, p, size) })
	}
	for i, id := range m.accept(m.sub, events...) {
		after[i](id)
	}
}

// known is what package plan is told of a key.
func (m *planModel) known(key plan.Key) *plan.Latest {
	latest, newest := m.latest[key], m.newest[key]
	if latest == nil {
		return nil
	}
	latest.State = plan.Ended
	if newest != nil && isPending(newest) {
		latest.State = plan.Waiting
		if newest.started || newest.pending.Attempts > 0 {
			latest.State = plan.Started
		}
	}
	return latest
}

func (d *modelPlan) end(reason delivery.Reason) { d.state, d.reason = delivery.Cancelled, reason }

func (m *planModel) plans(id event.DeliveryID, p store.Plan, size int) {
	verdict := plan.Resolve(m.known(p.Key), p.Timestamp)
	if verdict.Ignore {
		m.unknown(id, clinicA)
		return
	}
	if verdict.End != "" {
		m.newest[p.Key].end(delivery.Reason(verdict.End))
	}
	d := &modelPlan{id: id, key: p.Key, state: delivery.Pending}
	d.pending = delivery.PendingDelivery{ID: id, Due: p.Decision.At, Since: p.Decision.At, Planned: p.Decision.At, Size: size}
	if !p.Decision.Planned() {
		d.end(delivery.Reason(p.Decision.Reason))
	}
	m.deliveries = append(m.deliveries, d)
	m.newest[p.Key], m.latest[p.Key] = d, &plan.Latest{Timestamp: p.Timestamp}
}

func (m *planModel) cancels(key plan.Key, minute int) {
	if plan.Cancel(m.known(key), timestamp(minute)).Ignore {
		return
	}
	for _, d := range m.deliveries {
		if d.key == key && isPending(d) && !d.pending.Planned.IsZero() {
			d.end(delivery.ReasonCancelledByEvent)
		}
	}
	m.latest[key] = &plan.Latest{Timestamp: timestamp(minute)}
}

func (m *planModel) starts() {
	if d := m.pick(func(*modelPlan) bool { return true }); d != nil {
		m.fixture.starts(d.id, isPending(d))
		d.started = d.started || isPending(d) && !d.pending.Planned.IsZero()
	}
}

// outcome records what came of an attempt, also of one whose delivery was cancelled meanwhile.
func (m *planModel) outcome() {
	d := m.pick(func(d *modelPlan) bool { return isPending(d) || d.started })
	if d == nil {
		return
	}
	o := m.outcomeOf(d.pending, delivery.State(1+m.rng.IntN(3)))
	m.record(o)
	d.started = false
	switch {
	case isPending(d):
		d.state, d.pending.Due = o.State, o.Due
		d.pending.Attempts++
	case o.State == delivery.Delivered && d.state == delivery.Cancelled:
		d.state, d.reason = o.State, ""
		d.pending.Attempts++
	}
}

func (m *planModel) cancelOne() {
	if d := m.pick(isPending); d != nil {
		m.fixture.cancel(d.id, clinicA, nil)
		d.end(delivery.ReasonByUser)
	}
}

func (m *planModel) sendOne() {
	d := m.pick(isPending)
	if d == nil {
		return
	}
	sent, err := m.Store.SendNow(m.ctx, clinicA, d.id)
	if err != nil {
		m.Fatalf("SendNow: %v", err)
	}
	d.pending.Due = m.clock.Now()
	if d.pending.Since.After(d.pending.Due) {
		d.pending.Since = d.pending.Due
	}
	m.same("sent now", bare(d.pending), bare(sent))
}

func (m *planModel) replayOne() {
	d := m.pick(func(d *modelPlan) bool { return d.state == delivery.Cancelled || d.state == delivery.Failed })
	if d == nil {
		return
	}
	again := m.fixture.replay(clinicA, d.id)
	p := &d.pending
	if d.reason == delivery.ReasonPast {
		p.Planned = time.Time{}
	}
	p.Due, p.Since, p.AttemptsBefore = m.clock.Now(), m.clock.Now(), p.Attempts
	d.state, d.reason, d.started = delivery.Pending, "", false
	m.same("replay", bare(*p), bare(again))
}

func (m *planModel) check() {
	var want []delivery.PendingDelivery
	var waiting int64
	var next time.Time
	for _, d := range m.deliveries {
		if r := m.get(d.id, clinicA); r.State != d.state || r.Reason != d.reason || r.AttemptCount != d.pending.Attempts {
			m.Errorf("%s is %s %q after %d attempts, want %s %q, %d", d.id, r.State, r.Reason, r.AttemptCount, d.state, d.reason, d.pending.Attempts)
		}
		if !isPending(d) {
			continue
		}
		p := d.pending
		want = append(want, p)
		if p.Due.Equal(p.Planned) && p.Attempts == 0 && p.Due.After(m.clock.Now()) {
			waiting++
			if next.IsZero() || p.Due.Before(next) {
				next = p.Due
			}
		}
	}
	slices.SortFunc(want, func(a, b delivery.PendingDelivery) int { return 1 - 2*btoi(a.Position().Before(b.Position())) })
	m.same("pending", bare(want...), bare(m.pending(m.sub)...))
	m.scheduled(m.sub, waiting, next)
}
