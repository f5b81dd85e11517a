package engine

import (
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
)

const (
	// maxSweepPause and minSweepPause bound how often a lane that does not deliver is searched for deliveries that
	// aged out; in between, it is a hundredth of their age.
	maxSweepPause = time.Minute
	minSweepPause = time.Second
	// probeSlack is how late a failing endpoint's delivery may come to its last attempt before it is given up
	// without: probes go one at a time, and a backlog that hangs must not outlive its age for ever.
	probeSlack = time.Minute
	// farthest is beyond the age of all that is pending: what is planned has its age from its planned time on.
	farthest = plan.MaxAhead + 24*time.Hour
	// sweepBatch is how many deliveries one search finishes.
	sweepBatch = 256
)

// nextSweep is when to search the lane for deliveries to finish without an attempt; zero if there is no need to.
func (e *Engine) nextSweep(l *lane, now time.Time) time.Time {
	switch {
	case l.closed:
		return time.Time{}
	case l.loading || l.sweeping || l.endpoint == nil:
		return l.sweepAt // it was set when the endpoint went, and after each search
	case !l.opened || !l.backlogged || (l.open() && !l.failing()):
		return time.Time{}
	case !l.sweepAt.IsZero():
		return l.sweepAt
	default:
		return now.Add(min(max(l.endpoint.Retry.MaxAge/100, minSweepPause), maxSweepPause))
	}
}

// wantsSweep reports whether the lane is to be searched for deliveries to finish without an attempt.
func (l *lane) wantsSweep(now time.Time) bool {
	return l.opened && !l.closed && !l.sweepAt.IsZero() && !l.sweepAt.After(now)
}

// wantSweep lets the lane be swept in its tenant's turn.
func (e *Engine) wantSweep(l *lane) {
	l.toSweep = true
	t := l.tenant
	t.sweep.push(l)
	if !t.sweeping {
		t.sweeping = true
		e.sweeps.push(t)
	}
	e.sweepWork.Signal()
}

// nextToSweep takes the lane whose turn it is to be swept: tenants take turns, and their lanes. It returns nil if there is none.
func (e *Engine) nextToSweep() *lane {
	t := e.sweeps.pop()
	if t == nil {
		return nil
	}
	l := t.sweep.pop()
	l.toSweep = false
	if t.sweeping = t.sweep.len() > 0; t.sweeping {
		e.sweeps.push(t)
	} else {
		e.dismiss(t)
	}
	return l
}

// sweepLanes finishes what ends without an attempt, a batch of one lane after the other, until the engine stops. It waits for
// the recorder, and nothing else waits for it: neither loads nor attempts.
func (e *Engine) sweepLanes() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.stopping {
		l := e.nextToSweep()
		if l == nil {
			e.sweepWork.Wait()
			continue
		}
		now := e.Now()
		if l.wantsSweep(now) {
			l.sweepAt, l.sweeping = time.Time{}, true
			sent, err := e.sweep(l, now)
			if !sent {
				l.sweeping = false
				e.calmed()
			}
			if err != nil && e.attempts.Err() == nil {
				l.sweepAt = now
				e.Logger.Error(err, "Finishing a subscription's deliveries failed; trying again", "pause", storeRetry)
				e.unlocked(func() { pause(e.attempts) })
			}
		}
		e.arrange(l)
	}
}

// lookAgain ends the searches of a lane whose consumer has pulled everything: the engine does not hear of that.
func (e *Engine) lookAgain(l *lane) (err error) {
	before := l.unloaded
	l.backlogged = false // what comes meanwhile sets it again
	var next delivery.Position
	var more bool
	e.unlocked(func() {
		_, next, more, err = e.Store.Due(e.attempts, l.key, delivery.Position{}, time.Unix(0, 0), 1, nil)
	})
	switch {
	case err != nil:
		l.leave(before)
	case more:
		l.leave(next)
	}
	return err
}

// sweep finishes deliveries of a lane that does not deliver them: cancelled if the subscription is gone, failed if they
// are past their age. It reports whether there are any: then the lane is being swept until they are recorded.
func (e *Engine) sweep(l *lane, now time.Time) (sent bool, err error) {
	state, reason, since, removed := delivery.Cancelled, delivery.ReasonSubscriptionDeleted, now.Add(farthest), l.removed
	if l.endpoint != nil {
		state, reason, since = delivery.Failed, "", now.Add(-l.endpoint.Retry.MaxAge)
		if l.open() {
			since = since.Add(-probeSlack)
		}
	}
	var found []delivery.PendingDelivery
	e.unlocked(func() { found, err = e.Store.Aged(e.attempts, l.key, since, sweepBatch, nil) })
	if err != nil {
		return false, err
	}
	if state == delivery.Cancelled && (l.endpoint != nil || !l.removed.Equal(removed)) {
		return false, nil // the subscription came back while the store was read
	}
	finished := make([]settlement, 0, len(found))
	for _, d := range found {
		if _, held := l.held[d.ID.Event]; !held {
			l.keep(d.ID.Event)
			finished = append(finished, settlement{lane: l, swept: true, outcome: delivery.Outcome{Delivery: d, State: state, Reason: reason, Epoch: l.lease.Epoch}})
		}
	}
	if len(finished) > 0 {
		l.sweepAt = e.Now() // there may be more, once these are recorded
		e.unlocked(func() { e.swept <- finished })
		return true, nil
	}
	switch {
	case l.pulled():
		return false, e.lookAgain(l)
	case l.endpoint != nil:
	case len(l.held) > 0 || l.loading: // what is in flight ends first
		l.sweepAt = e.Now().Add(minSweepPause)
	case !l.closed:
		l.backlogged = false
		delete(e.lanes, l.key)
		e.forget(l)
	}
	return false, nil
}
