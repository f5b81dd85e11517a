package pebble

import (
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// The greatest lengths of what a batch holds of a plan, and of a delivery that a plan or a cancel ends.
const (
	planLength = 3 + pendingKeyLength + headerLength + 1 + 8 + 16 + 5 + // p
		3 + historyKeyLength + headerLength + 1 + 8 + 1 + 8 + 2 + 8 + 16 + 5 + 1 + // v
		3 + pendingKeyLength + // w
		3 + keyedKeyLength + // n
		3 + 1 + planKeyLength + headerLength + 10 + 5 + 16 + 8 + // k
		3 + forgetKeyLength // y
	endLength = 2 + pendingKeyLength + 2 + historyKeyLength + 2 + pendingKeyLength + 2 + keyedKeyLength + // p, v, w, n
		3 + eventKeyLength + // g
		3 + finishedKeyLength + headerLength + 1 + 8 + 16 + 24 + 1 + 5 + 1 + // f
		3 + forgetKeyLength // y
)

// schedules reports whether one of the fresh events plans or cancels something.
func (a *appending) schedules(events []store.NewEvent) bool {
	return slices.ContainsFunc(a.fresh, func(i int) bool { return len(events[i].Plans)+len(events[i].Cancels) > 0 })
}

// writePlans adds the fresh events to the batch, with what they plan and cancel, and commits it. What they change is read,
// decided and committed with the ledger in hand, and so in one order with Start, Record and other calls. The caller waits
// for the log to be synced.
func (s *Store) writePlans(a *appending, b *pebble.Batch, events []store.NewEvent, first, now uint64) ([]delivery.Fanout, error) {
	s.dropping.RLock()
	defer s.dropping.RUnlock()
	l := &s.ledger
	l.Lock()
	defer l.Unlock()
	l.begin()
	defer s.starts.release()
	a.notices = a.notices[:0]
	fanouts := make([]delivery.Fanout, 0, len(a.fresh))
	for n, i := range a.fresh {
		e, at := &events[i], first+uint64(n)
		e.Event.Key = a.ids[i].eventKey(at)
		kept, err := s.schedule(a, b, e, s.latest(now))
		if err != nil {
			return nil, err
		}
		if fanout, ok := s.setAccepted(a, b, e, i, at, now, kept); ok {
			fanouts = append(fanouts, fanout)
		}
	}
	return fanouts, s.commitLedger(b)
}

// schedule adds to the batch what an event cancels and plans. kept says that a delivery needs the event.
func (s *Store) schedule(a *appending, b *pebble.Batch, e *store.NewEvent, now uint64) (kept bool, err error) {
	for i := range e.Cancels {
		if err := s.cancelKey(b, &e.Cancels[i], now); err != nil {
			return false, err
		}
	}
	for i := range e.Plans {
		p := &e.Plans[i]
		cancelled := slices.ContainsFunc(e.Cancels, func(c store.Cancel) bool { return c.Subscription.Key == p.Subscription.Key })
		if cancelled {
			continue
		}
		stored, err := s.plan(a, b, e, p, now)
		if err != nil {
			return false, err
		}
		kept = kept || stored
	}
	return kept, nil
}

// cancelKey ends the deliveries of a key, and remembers that it did.
func (s *Store) cancelKey(b *pebble.Batch, c *store.Cancel, now uint64) error {
	if c.Key.IsZero() {
		return nil
	}
	k := planKey{c.Subscription.Key, c.Key}
	of, err := s.ledger.keyOf(s, k)
	if err != nil {
		return err
	}
	known, err := s.latestOf(k, of)
	if err != nil || plan.Cancel(known, c.Timestamp).Ignore {
		return err
	}
	if err := s.endKey(b, k, of, tenantOf(c.Subscription.Tenant), now); err != nil {
		return err
	}
	of.set(latest{timestamp: c.Timestamp, event: of.event, ended: now})
	return nil
}

// plan stores what a schedule says of an event, and reports whether there is a delivery.
func (s *Store) plan(a *appending, b *pebble.Batch, e *store.NewEvent, p *store.Plan, now uint64) (bool, error) {
	id := event.DeliveryID{Event: e.Event.Key, Subscription: p.Subscription.Key}
	owner := tenantOf(p.Subscription.Tenant)
	st := standing{pending: pending{key: p.Key, size: e.Event.Size()}, read: true}
	o := delivery.Outcome{Delivery: delivery.PendingDelivery{ID: id}}
	if p.Failed {
		o.State, o.Reason = delivery.Failed, delivery.ReasonScheduleFailed
		return true, s.fileAtOnce(b, &o, &st, owner, now)
	}
	of := &keyed{}
	if !p.Key.IsZero() {
		var ignored bool
		var err error
		if of, ignored, err = s.resolve(b, p, owner, now); err != nil || ignored {
			return false, err
		}
	}
	if !p.Decision.Planned() {
		of.set(latest{timestamp: p.Timestamp, event: id.Event, ended: now})
		o.State, o.Reason = delivery.Cancelled, delivery.Reason(p.Decision.Reason)
		return true, s.fileAtOnce(b, &o, &st, owner, now)
	}
	of.set(latest{timestamp: p.Timestamp, event: id.Event})
	of.added = append(of.added, id.Event)
	st.is, st.due = true, max(nanos(p.Decision.At), 1)
	st.planned, st.since = st.due, st.due
	a.notices = append(a.notices, delivery.Backlog{Subscription: id.Subscription, Due: moment(st.due)})
	return true, s.setWaiting(b, id, &st)
}

// resolve ends the delivery that a plan replaces.
func (s *Store) resolve(b *pebble.Batch, p *store.Plan, owner tenant, now uint64) (of *keyed, ignored bool, err error) {
	k := planKey{p.Subscription.Key, p.Key}
	if of, err = s.ledger.keyOf(s, k); err != nil {
		return nil, false, err
	}
	known, err := s.latestOf(k, of)
	if err != nil {
		return nil, false, err
	}
	verdict := plan.Resolve(known, p.Timestamp)
	if !verdict.Ignore && verdict.End != "" {
		err = s.end(b, event.DeliveryID{Event: of.event, Subscription: k.sub}, delivery.Reason(verdict.End), owner, now)
	}
	return of, verdict.Ignore, err
}

// fileAtOnce stores a delivery that has ended before it began.
func (s *Store) fileAtOnce(b *pebble.Batch, o *delivery.Outcome, st *standing, owner tenant, now uint64) error {
	s.finish(b, o, st, owner, now)
	s.ledger.stands(o.Delivery.ID, st)
	return s.count(o, &standing{}, st, now)
}

// setWaiting stores a delivery that waits for its planned time.
func (s *Store) setWaiting(b *pebble.Batch, id event.DeliveryID, st *standing) error {
	l := &s.ledger
	l.key = appendPendingKey(l.key[:0], id.Subscription, st.due, id.Event)
	l.value = st.pending.append(l.value[:0])
	_ = b.Set(l.key, l.value, nil)
	full := history{pending: st.pending, due: st.due}
	full.history = true
	l.key = appendWaitingKey(l.key[:0], id.Subscription, id.Event)
	l.value = full.append(l.value[:0])
	_ = b.Set(l.key, l.value, nil)
	l.key = appendComingKey(l.key[:0], id.Subscription, st.due, id.Event)
	_ = b.Set(l.key, nil, nil)
	s.enterKey(b, id, &st.pending)
	l.stands(id, st)
	c, err := l.counts(s, id.Subscription)
	if err == nil {
		c.scheduled++
	}
	return err
}

// notify tells the owner what has been planned.
func (s *Store) notify(notices []delivery.Backlog) {
	s.owner.RLock()
	defer s.owner.RUnlock()
	if s.owner.is == nil {
		return
	}
	for _, b := range notices {
		s.owner.is.Notice(b)
	}
}

// scheduledLength is how much of a batch an event's plans and cancels can take.
func scheduledLength(e *store.NewEvent) int {
	return len(e.Plans)*(planLength+endLength) + len(e.Cancels)*(planLength+endLength)
}
