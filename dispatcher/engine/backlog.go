package engine

import (
	"container/heap"
	"context"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// wakeLanes looks at each lane when its time has come, until ctx ends.
func (e *Engine) wakeLanes(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.poke:
		case <-timer.C:
		}
		timer.Reset(e.wakeDue())
	}
}

// starvedPause is how soon tenants that wait for memory are looked at again: others give it back, too.
const starvedPause = 50 * time.Millisecond

// wakeDue arranges every lane whose time has come, moves the attempts that outlasted the engine's patience, and returns
// the wait until it has to look again.
func (e *Engine) wakeDue() time.Duration {
	const idle = time.Hour
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.Now()
	wait := idle
	for len(e.wakes) > 0 {
		l := e.wakes[0]
		if wait = min(l.wake.Sub(now), idle); wait > 0 {
			break
		}
		heap.Pop(&e.wakes)
		l.wake, wait = time.Time{}, idle
		e.arrange(l)
	}
	for f := e.hurried.oldest; f != nil; f = e.hurried.oldest {
		if left := f.started.Add(e.Patience).Sub(now); left > 0 {
			wait = min(wait, left)
			break
		}
		e.outlast(f)
	}
	if !e.feedAt.IsZero() && !e.feedAt.After(now) {
		e.feedAt = time.Time{}
		e.feedAll()
	}
	if !e.feedAt.IsZero() {
		wait = min(wait, e.feedAt.Sub(now))
	}
	e.wakeAt = now.Add(wait)
	return wait
}

// loadLanes reads what lanes need from the store, one lane at a time, until the engine stops.
func (e *Engine) loadLanes() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.stopping {
		l := e.nextLoad()
		if l == nil {
			e.loadWork.Wait()
			continue
		}
		l.wants, l.loading = false, true
		err := e.loadLane(l)
		l.loading = false
		l.settled = nil
		e.calmed()
		if err != nil && e.attempts.Err() == nil {
			e.Logger.Error(err, "Reading a subscription's deliveries failed; trying again", "pause", storeRetry)
			e.unlocked(func() { pause(e.attempts) })
		}
		e.arrange(l)
	}
}

// unlocked runs f without the engine's lock.
func (e *Engine) unlocked(f func()) {
	e.mu.Unlock()
	defer e.mu.Lock()
	f()
}

// loadLane opens the lane if it is not open yet, then loads what is due.
func (e *Engine) loadLane(l *lane) error {
	if !l.opened {
		if err := e.openLane(l); err != nil {
			return err
		}
	}
	now := e.Now()
	if !l.open() {
		return nil
	}
	for len(l.successors) > 0 {
		if err := e.loadSuccessor(l, now); err != nil {
			return err
		}
	}
	if l.due(now) {
		return e.loadDue(l, now)
	}
	return nil
}

// openLane reads the lane's health. Of a subscription that is gone already, it finds out the tenant, in whose turn the lane
// is swept.
func (e *Engine) openLane(l *lane) error {
	var counts delivery.Counts
	var name string
	var err error
	gone := l.endpoint == nil && l.tenant.name == ""
	e.unlocked(func() {
		if counts, err = e.Store.Counts(e.attempts, l.key); err == nil && gone {
			name, err = e.tenantOf(l.key)
		}
	})
	if err != nil {
		return err
	}
	if name != "" && l.endpoint == nil && !l.closed {
		e.move(l, name)
		l.orphan = true
	}
	l.opened, l.failures, l.gone, l.delivered = true, counts.FailuresInARow, counts.Gone, counts.LastDelivered
	e.recall(l, &counts)
	if l.evidence == unknown {
		l.evidence = evidenceBefore(counts)
	}
	return nil
}

// tenantOf returns the tenant of the subscription's oldest pending delivery; "" if none is pending, or its event cannot be
// read.
func (e *Engine) tenantOf(key event.SubscriptionKey) (string, error) {
	found, err := e.Store.Aged(e.attempts, key, e.Now().Add(farthest), 1, nil)
	if err != nil || len(found) == 0 {
		return "", err
	}
	ev, err := e.Store.Event(e.attempts, found[0].ID.Event)
	if err != nil {
		e.Logger.V(1).Info("An event's tenant cannot be read; its deleted subscription is cancelled in nobody's turn", "reason", err.Error())
		return "", nil
	}
	return ev.Tenant, nil
}

// loadDue takes into memory what is due, as far as there is room.
func (e *Engine) loadDue(l *lane, now time.Time) error {
	limit := min(l.window()-l.ready.len(), greed*(e.MaxHeld-e.held)-l.tenant.held, e.MaxHeld-e.held)
	if limit <= 0 {
		limit = scarceLoad
	}
	from := l.unloaded
	l.backlogged = false
	var (
		found []delivery.PendingDelivery
		next  delivery.Position
		more  bool
		err   error
	)
	ordered := l.endpoint.Ordered
	l.settled = make(map[event.Key]struct{})
	before, all := l.scanned, delivery.Position{Due: now.Add(1)}
	l.scan(all) // a delivery that is published meanwhile may be among what is found
	t := l.tenant
	e.held += limit // so that loads at the same time do not take the same room
	t.held += limit
	e.unlocked(func() {
		if found, next, more, err = e.Store.Due(e.attempts, l.key, from, now, limit, nil); err == nil {
			found, err = e.firsts(ordered, found)
		}
	})
	e.held -= limit
	t.held -= limit
	if err != nil {
		l.leave(from)
		return err
	}
	for _, d := range found {
		e.holdLoaded(l, d)
	}
	l.scanned = before
	if more {
		l.leave(next)
	}
	if more && next.Before(all) {
		l.scan(next)
	} else {
		l.scan(all)
	}
	return nil
}

// holdLoaded takes d, which was read while the lock was free, into memory, unless it is there or was finished meanwhile.
func (e *Engine) holdLoaded(l *lane, d delivery.PendingDelivery) {
	if _, settled := l.settled[d.ID.Event]; !settled {
		e.keep(l, d)
	}
}

// firsts returns those of the deliveries that no earlier one of the same order keeps waiting. The others are found
// again as successors.
func (e *Engine) firsts(ordered bool, found []delivery.PendingDelivery) ([]delivery.PendingDelivery, error) {
	kept := found[:0]
	for _, d := range found {
		if d.Order != 0 && ordered {
			first, ok, err := e.Store.First(e.attempts, d.ID.Subscription, d.Order)
			if err != nil {
				return nil, err
			}
			if ok && first.ID != d.ID {
				continue
			}
		}
		kept = append(kept, d)
	}
	return kept, nil
}

// loadSuccessor lets the delivery go that waited for one of its order that was finished.
func (e *Engine) loadSuccessor(l *lane, now time.Time) error {
	order := l.successors[0]
	l.successors = l.successors[1:]
	var (
		d   delivery.PendingDelivery
		ok  bool
		err error
	)
	l.settled = make(map[event.Key]struct{})
	e.unlocked(func() { d, ok, err = e.Store.First(e.attempts, l.key, order) })
	switch {
	case err != nil:
		l.successors = append(l.successors, order)
	case !ok:
	case d.Due.After(now):
		l.leave(d.Position())
	default:
		e.holdLoaded(l, d)
	}
	return err
}
