package engine

import (
	"context"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

const (
	// recordBatch is how many outcomes are written at once, at most.
	recordBatch = 512
	// recordLinger is how long the first outcome of a batch waits for others: writing many at once is cheaper, and
	// nothing but memory waits for it.
	recordLinger = 2 * time.Millisecond
)

// settlement is an outcome on its way to the store.
type settlement struct {
	lane    *lane
	outcome delivery.Outcome
	swept   bool   // it ends without an attempt
	tenant  string // whose quota counts it; filled in once the outcome is recorded
	became  became // what the attempt showed of the endpoint's health
}

// record writes outcomes, many at once, until both channels are closed. It goes on trying as long as the store fails;
// ctx ends that.
func (e *Engine) record(ctx context.Context) {
	batch := make([]settlement, 0, recordBatch+sweepBatch)
	outcomes := make([]delivery.Outcome, 0, recordBatch+sweepBatch)
	linger := time.NewTimer(recordLinger)
	defer linger.Stop()
	for batch = e.first(batch[:0]); len(batch) > 0; batch = e.first(batch[:0]) {
		batch = e.gather(batch, linger)
		outcomes = outcomes[:0]
		for _, s := range batch {
			outcomes = append(outcomes, s.outcome)
		}
		for {
			// Not ctx: what was answered in time is written, also while the engine stops.
			err := e.Store.Record(context.WithoutCancel(ctx), outcomes)
			if err == nil {
				break
			}
			e.Logger.Error(err, "Recording outcomes failed; trying again", "outcomes", len(outcomes))
			if !pause(ctx) {
				break // they will be attempted again
			}
		}
		e.settle(batch)
	}
}

// first waits for an outcome, or for what a search finished. It adds nothing once both channels are closed.
func (e *Engine) first(batch []settlement) []settlement {
	swept := e.swept
	for {
		select {
		case s, ok := <-e.outcomes:
			switch {
			case ok:
				return append(batch, s)
			case swept == nil:
				return batch
			default:
				return append(batch, <-swept...)
			}
		case found, ok := <-swept:
			if ok {
				return append(batch, found...)
			}
			swept = nil
		}
	}
}

// gather takes further outcomes as they come, until the batch is full or recordLinger has passed. If no attempt is under
// way, it does not wait for one. Then it takes what one search finished, if there is anything: outcomes of attempts wait
// for no more than that, however much is cancelled.
func (e *Engine) gather(batch []settlement, linger *time.Timer) []settlement {
	batch = e.gatherAttempts(batch, linger)
	select {
	case found := <-e.swept:
		batch = append(batch, found...)
	default:
	}
	return batch
}

func (e *Engine) gatherAttempts(batch []settlement, linger *time.Timer) []settlement {
	if e.calm() && len(e.outcomes) == 0 {
		return batch
	}
	linger.Reset(recordLinger)
	for len(batch) < recordBatch {
		select {
		case s, ok := <-e.outcomes:
			if !ok {
				return batch
			}
			batch = append(batch, s)
		case <-linger.C:
			return batch
		}
	}
	return batch
}

// calm reports whether no attempt is under way.
func (e *Engine) calm() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.places.total() == 0
}

// settle lets go of deliveries whose outcomes are in the store now.
func (e *Engine) settle(batch []settlement) {
	e.mu.Lock()
	for i, s := range batch {
		l, key := s.lane, s.outcome.Delivery.ID.Event
		if !l.orphan {
			batch[i].tenant = l.tenant.name
		}
		l.release(key)
		if s.swept {
			l.sweeping = false
		}
		if l.loading && l.settled != nil {
			l.settled[key] = struct{}{}
		}
		switch {
		case s.outcome.State == delivery.Pending:
			l.leave(delivery.Position{Due: s.outcome.Due, Event: key})
		case l.ordered(&s.outcome.Delivery):
			l.successors = append(l.successors, s.outcome.Delivery.Order)
		}
		e.arrange(l)
	}
	e.calmed()
	e.mu.Unlock()
	for i := range batch {
		e.Changed(batch[i].lane.key)
		e.tell(&batch[i])
	}
	e.reportFinished(batch)
}

// reportFinished reports the deliveries that ended, those of one tenant together where they follow each other.
func (e *Engine) reportFinished(batch []settlement) {
	e.metrics.ended(batch)
	var tenant string
	var deliveries, bytes int64
	for i := range batch {
		if batch[i].outcome.State == delivery.Pending || batch[i].tenant == "" {
			continue
		}
		if batch[i].tenant != tenant && deliveries > 0 {
			e.Finished(tenant, deliveries, bytes)
			deliveries, bytes = 0, 0
		}
		tenant = batch[i].tenant
		deliveries++
		bytes += int64(batch[i].outcome.Delivery.Size)
	}
	if deliveries > 0 {
		e.Finished(tenant, deliveries, bytes)
	}
}
