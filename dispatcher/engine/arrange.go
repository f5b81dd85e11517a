package engine

import (
	"container/heap"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// arrange puts the lane into the queues it belongs into now, and sets its wake-up. Call it after every change.
func (e *Engine) arrange(l *lane) {
	now := e.Now()
	if l.closed || l.opened && !l.open() || (l.failing() || l.hold.active) && l.ready.len() > laneWindow {
		e.shelve(l)
	}
	if e.serves(l) && !l.startAt().After(now) {
		e.queue(l)
	}
	if e.endpoints != nil && !e.stopping {
		if !l.wants && !l.loading && e.wantsLoad(l, now) {
			e.wantLoad(l)
		}
		if !l.toSweep && !l.sweeping && l.wantsSweep(now) {
			e.wantSweep(l)
		}
	}
	e.setWake(l, now)
}

// serves reports whether the lane has something ready and room in flight.
func (e *Engine) serves(l *lane) bool {
	return l.ready.len() > 0 && l.inFlight < l.limit(&e.places)
}

// queue gives the lane its turn among those of its tenant, and the tenant its own. What a lane had queued in another
// room is passed over there.
func (e *Engine) queue(l *lane) {
	t, r := l.tenant, l.room()
	if l.queued && l.queuedIn == r {
		return
	}
	l.queued, l.queuedIn = true, r
	if !l.listed[r] {
		l.listed[r] = true
		t.serve[r].push(l)
	}
	e.serve[r].enter(t)
	if t.standing[r] == inTurn {
		e.summon()
	}
}

// wantLoad lets the lane be loaded in its tenant's turn.
func (e *Engine) wantLoad(l *lane) {
	l.wants = true
	t := l.tenant
	t.load.push(l)
	if !t.loading {
		t.loading = true
		e.load.push(t)
	}
	e.loadWork.Signal()
}

// nextLoad takes the lane whose turn it is to be loaded: tenants take turns, and their lanes. It returns nil if there is none.
func (e *Engine) nextLoad() *lane {
	t := e.load.pop()
	if t == nil {
		return nil
	}
	l := t.load.pop()
	if t.loading = t.load.len() > 0; t.loading {
		e.load.push(t)
	}
	return l
}

// wantsLoad reports whether the lane should read from the store: its health, or what fell due.
func (e *Engine) wantsLoad(l *lane, now time.Time) bool {
	if l.closed {
		return false
	}
	if !l.opened {
		return true
	}
	if !l.open() {
		return false
	}
	if len(l.successors) > 0 {
		return true
	}
	if !l.due(now) {
		return false
	}
	if !e.fits(l.tenant) {
		return l.ready.len() == 0 && l.inFlight == 0
	}
	return l.ready.len() <= l.window()/2
}

// shelve puts what a lane that is not open, or began to fail, has in memory back to the store, where it is anyway.
func (e *Engine) shelve(l *lane) {
	for l.ready.len() > 0 {
		d := l.ready.pop()
		l.tenant.held--
		e.held--
		e.letGo(&d)
		l.release(d.ID.Event)
		l.leave(d.Position())
	}
	e.rest(l.tenant)
	if len(l.successors) > 0 { // they are found again from the beginning
		l.successors = nil
		l.leave(delivery.Position{})
	}
}

// setWake sets the time at which the lane is looked at again by itself.
func (e *Engine) setWake(l *lane, now time.Time) {
	var wake time.Time
	if l.sweepAt = e.nextSweep(l, now); l.sweepAt.After(now) {
		wake = l.sweepAt
	}
	if l.open() && l.backlogged && l.unloaded.Due.After(now) && (wake.IsZero() || l.unloaded.Due.Before(wake)) {
		wake = l.unloaded.Due
	}
	if at := l.startAt(); at.After(now) && e.serves(l) && (wake.IsZero() || at.Before(wake)) {
		wake = at
	}
	if wake.Equal(l.wake) {
		return
	}
	l.wake = wake
	switch {
	case wake.IsZero():
		if l.wakeIndex >= 0 {
			heap.Remove(&e.wakes, l.wakeIndex)
		}
		return
	case l.wakeIndex >= 0:
		heap.Fix(&e.wakes, l.wakeIndex)
	default:
		heap.Push(&e.wakes, l)
	}
	if e.wakes[0] == l {
		e.rouse()
	}
}

// rouse makes wakeLanes look again.
func (e *Engine) rouse() {
	select {
	case e.poke <- struct{}{}:
	default:
	}
}
