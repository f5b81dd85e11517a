package simulate

import (
	"cmp"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// state is that of a delivery.
type state int

const (
	pending state = iota
	ended
)

// planned is a delivery that a schedule planned, or one that is due at once.
type planned struct {
	subscription *subscription
	key          plan.Key
	id           event.DeliveryID
	event        *delivery.Event
	variable     *expression.Event // the same, as recheck reads it
	number       int               // of the event
	due          time.Time
	planned      time.Time // zero without a schedule
	state        state
	result       *Result
}

// memory is what a store knows: the planned deliveries, and the latest event of each key.
type memory struct {
	deliveries []*planned
	latest     map[latestKey]*latest
}

type latestKey struct {
	subscription event.SubscriptionKey
	key          plan.Key
}

type latest struct {
	timestamp time.Time
	newest    *planned // nil if the latest event planned nothing
	number    int      // of the event
}

// known is what package plan is told of a key; nil for none.
func (m *memory) known(sub event.SubscriptionKey, key plan.Key) (*plan.Latest, *latest) {
	l := m.latest[latestKey{sub, key}]
	if l == nil || key.IsZero() {
		return nil, nil
	}
	of := &plan.Latest{State: plan.Ended, Timestamp: l.timestamp}
	if l.newest != nil && l.newest.state == pending {
		of.State = plan.Waiting
	}
	return of, l
}

func (m *memory) note(sub event.SubscriptionKey, key plan.Key, l *latest) {
	if key.IsZero() {
		return
	}
	if m.latest == nil {
		m.latest = make(map[latestKey]*latest)
	}
	m.latest[latestKey{sub, key}] = l
}

// cancel does what an event of cancelOn does, and returns the deliveries that it ends, or the number of the later event for
// which it is ignored.
func (m *memory) cancel(c store.Cancel, number int) (all []*planned, later int) {
	of, l := m.known(c.Subscription.Key, c.Key)
	verdict := plan.Cancel(of, c.Timestamp)
	if verdict.Ignore {
		return nil, l.number
	}
	for _, d := range m.deliveries {
		if d.key == c.Key && d.id.Subscription == c.Subscription.Key && d.state == pending && !d.planned.IsZero() {
			d.end(plan.CancelledByEvent, number)
			all = append(all, d)
		}
	}
	m.note(c.Subscription.Key, c.Key, &latest{timestamp: c.Timestamp, number: number})
	return all, 0
}

// plan takes up what a schedule says of an event, and returns the delivery that it replaces, or the number of the later event
// for which it is ignored. d has no due time if nothing is planned.
func (m *memory) plan(p *store.Plan, d *planned) (replaced *planned, later int) {
	of, l := m.known(p.Subscription.Key, p.Key)
	verdict := plan.Resolve(of, p.Timestamp)
	if verdict.Ignore {
		return nil, l.number
	}
	if verdict.End != "" {
		replaced = l.newest
		replaced.end(verdict.End, d.number)
	}
	d.key = p.Key
	if p.Decision.Planned() {
		d.due, d.planned = p.Decision.At, p.Decision.At
		m.deliveries = append(m.deliveries, d)
	} else {
		d.state = ended
	}
	m.note(p.Subscription.Key, p.Key, &latest{timestamp: p.Timestamp, newest: d, number: d.number})
	return replaced, 0
}

// end ends a delivery for an event.
func (d *planned) end(reason plan.Reason, by int) {
	d.state = ended
	d.result.Outcome, d.result.Reason = Cancelled, string(reason)
	d.result.EndedBy = &Ended{Event: by, Reason: string(reason)}
}

// due returns the deliveries that are due by a time, the earliest first.
func (m *memory) due(by time.Time) []*planned {
	return slices.DeleteFunc(m.waiting(), func(d *planned) bool { return d.due.After(by) })
}

// waiting returns the deliveries that are pending, the earliest first.
func (m *memory) waiting() []*planned {
	all := slices.DeleteFunc(slices.Clone(m.deliveries), func(d *planned) bool { return d.state != pending })
	slices.SortStableFunc(all, func(a, b *planned) int { return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.number, b.number)) })
	return all
}
