package engine

import (
	"context"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// Take begins the work on a shard: what it has pending is read in the background.
func (e *Engine) Take(lease delivery.Lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping {
		return
	}
	e.leases[lease.Shard] = lease
	e.Taken(lease.Shard)
	ctx := e.attempts
	e.runs.Go(func() { e.resume(ctx, lease) })
}

// resume makes a lane for each of the shard's subscriptions that has something pending from before.
func (e *Engine) resume(ctx context.Context, lease delivery.Lease) {
	for {
		err := e.Store.Backlogs(ctx, lease.Shard, func(b delivery.Backlog) error {
			e.notice(b, lease)
			return nil
		})
		if err == nil || ctx.Err() != nil {
			return
		}
		e.Logger.Error(err, "Reading what is pending failed; trying again", "shard", lease.Shard)
		if !pause(ctx) || !e.owns(lease) {
			return
		}
	}
}

// Owns reports whether this engine works on the subscription's deliveries.
func (e *Engine) Owns(key event.SubscriptionKey) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, owned := e.leases[delivery.ShardOf(key)]
	return owned
}

func (e *Engine) owns(lease delivery.Lease) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.stopping && e.leases[lease.Shard] == lease
}

// Notice makes the subscription's lane read from the store.
func (e *Engine) Notice(b delivery.Backlog) {
	e.mu.Lock()
	lease, owned := e.leases[delivery.ShardOf(b.Subscription)]
	e.mu.Unlock()
	if owned {
		e.notice(b, lease)
	}
}

func (e *Engine) notice(b delivery.Backlog, lease delivery.Lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping || e.leases[lease.Shard] != lease {
		return
	}
	l := e.lane(b.Subscription)
	l.leave(delivery.Position{Due: b.Due})
	e.arrange(l)
}

// Lose forgets a shard at once. Attempts in flight end as they may; the store refuses their outcomes.
func (e *Engine) Lose(shard int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.close(shard)
}

// Release forgets a shard once none of its attempts is in flight and each outcome is recorded.
func (e *Engine) Release(ctx context.Context, shard int) {
	stop := context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.quiet.Broadcast()
	})
	defer stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	closed := e.close(shard)
	e.releases++
	for ctx.Err() == nil && busy(closed) {
		e.quiet.Wait()
	}
	e.releases--
}

// close takes the shard's lanes out of the engine and returns them.
func (e *Engine) close(shard int) []*lane {
	delete(e.leases, shard)
	var closed []*lane
	for key, l := range e.lanes {
		if delivery.ShardOf(key) != shard {
			continue
		}
		delete(e.lanes, key)
		l.closed = true
		e.shelve(l)
		e.forget(l)
		e.setWake(l, e.Now())
		closed = append(closed, l)
	}
	return closed
}

func busy(lanes []*lane) bool {
	for _, l := range lanes {
		if len(l.held) > 0 || l.inFlight > 0 || l.loading || l.sweeping {
			return true
		}
	}
	return false
}

// calmed tells those who give a shard back that something of it may have ended.
func (e *Engine) calmed() {
	if e.releases > 0 {
		e.quiet.Broadcast()
	}
}

var _ delivery.Owner = (*Engine)(nil)
