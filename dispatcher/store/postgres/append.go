package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	// committers is how many transactions of appends are under way at once.
	committers = 2
	// maxWaiting is how many calls may wait for a committer.
	maxWaiting = 4096
	// The bounds of a batch. One call may go over them.
	maxBatchEvents     = 2000
	maxBatchDeliveries = 20_000
	maxBatchBytes      = 8 << 20
	// deliveryTime is how much longer than Timeout a transaction may take for each delivery it stores.
	deliveryTime = 100 * time.Microsecond
	// commitTries is how often a batch is tried before its calls fail.
	commitTries = 4
)

// errBusy: the calls before took too long.
var errBusy = fmt.Errorf("%w: append events: the database is too slow for what is asked of it", errUsage)

// call is an Append that waits.
type call struct {
	events []store.NewEvent
	ids    []identity
	bytes  int
	// deliveries that the events cause.
	deliveries int
	// state says whose turn it is: the caller may leave only while the call is queued.
	state atomic.Int32
	done  chan struct{}

	answers []store.Accepted
	fanouts []delivery.Fanout
	err     error
}

// large reports whether the call is more than what a batch holds. It has a batch for itself.
func (c *call) large() bool { return c.deliveries > maxBatchDeliveries }

const (
	callQueued = iota
	callTaken
	callLeft
)

// Append makes events and their deliveries durable. It shares a transaction with the Appends that come meanwhile.
func (s *Store) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	if err := s.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer s.leave()
	if err := s.refusal(); err != nil {
		return nil, nil, err
	}
	if len(events) == 0 {
		return nil, nil, nil
	}
	c := &call{events: events, done: make(chan struct{})}
	for i := range events {
		c.ids = append(c.ids, identityOf(events[i].Event.Tenant, events[i].Event.ID))
		c.bytes += len(events[i].Event.Body)
		c.deliveries += len(events[i].Subscriptions) + len(events[i].Plans) + len(events[i].Cancels)
	}
	if c.large() {
		if err := s.awaitLarge(ctx); err != nil {
			return nil, nil, err
		}
		defer func() { <-s.large }()
	}
	if err := s.await(ctx, c); err != nil {
		return nil, nil, err
	}
	return c.answers, c.fanouts, c.err
}

// refusal is why nothing can be stored now.
func (s *Store) refusal() error {
	if down := s.down.Load(); down != nil {
		return *down
	}
	if s.full.Load() {
		return store.ErrFull
	}
	return nil
}

// awaitLarge waits for the right to store more than a batch's deliveries at once. One committer is always free of such
// calls: they take seconds, and others must not wait for them.
func (s *Store) awaitLarge(ctx context.Context) error {
	timeout := time.NewTimer(s.options.Timeout)
	defer timeout.Stop()
	select {
	case s.large <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return errBusy
	}
}

// await hands the call to a committer, and waits until it is done with it, or did not come to it in time.
func (s *Store) await(ctx context.Context, c *call) error {
	timeout := time.NewTimer(s.options.Timeout)
	defer timeout.Stop()
	var err error
	select {
	case s.calls <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return errBusy
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err = errBusy
	}
	if c.state.CompareAndSwap(callQueued, callLeft) {
		return err
	}
	<-c.done // a committer reads the events; it has a deadline
	return nil
}

// commitCalls stores calls, as many at once as are waiting, until the store is closed.
func (s *Store) commitCalls(n int) {
	b := &batcher{store: s, acceptor: fmt.Sprintf("%s/%d", s.options.Identity, n)}
	for b.gather(s.closing) {
		b.commit()
	}
}

// batcher is one committer.
type batcher struct {
	store    *Store
	acceptor string
	// calls of the present batch; no two of them share an id.
	calls []*call
	// later are calls that share an id with one of these.
	later []*call
	ids   map[identity]struct{}

	events, deliveries, bytes int
}

// gather takes calls, at least one, or returns false once ctx ended.
func (b *batcher) gather(ctx context.Context) bool {
	b.calls, b.events, b.deliveries, b.bytes = b.calls[:0], 0, 0, 0
	b.ids = map[identity]struct{}{}
	waiting := b.later
	b.later = nil
	for _, c := range waiting {
		b.add(c)
	}
	for len(b.calls) == 0 {
		select {
		case c := <-b.store.calls:
			b.take(c)
		case <-ctx.Done():
			return false
		}
	}
	for b.events < maxBatchEvents && b.deliveries < maxBatchDeliveries && b.bytes < maxBatchBytes {
		select {
		case c := <-b.store.calls:
			b.take(c)
		default:
			return true
		}
	}
	return true
}

func (b *batcher) take(c *call) {
	if c.state.CompareAndSwap(callQueued, callTaken) {
		b.add(c)
	}
}

// add puts the call into the batch, or off until the next.
func (b *batcher) add(c *call) {
	if len(b.calls) > 0 && (c.large() || b.calls[0].large()) {
		b.later = append(b.later, c)
		return
	}
	for _, id := range c.ids {
		if _, taken := b.ids[id]; taken {
			b.later = append(b.later, c)
			return
		}
	}
	b.calls = append(b.calls, c)
	b.events += len(c.events)
	b.bytes += c.bytes
	b.deliveries += c.deliveries
	for _, id := range c.ids {
		b.ids[id] = struct{}{}
	}
}

// commit stores the batch and answers its calls. What one call has in it that the database refuses fails that call
// alone.
func (b *batcher) commit() {
	timeout := b.store.options.Timeout + time.Duration(b.deliveries)*deliveryTime
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.store.closing), timeout)
	defer cancel()
	err := b.store.write(ctx, b.acceptor, b.calls)
	if err != nil && len(b.calls) > 1 && code(err) != "" && code(err)[:2] == classData {
		for _, c := range b.calls {
			b.finish([]*call{c}, b.store.write(ctx, b.acceptor, []*call{c}))
		}
		return
	}
	b.finish(b.calls, err)
}

func (b *batcher) finish(calls []*call, err error) {
	if err != nil {
		b.store.noteFailure(err)
		err = fmt.Errorf("append events: %w", explain(context.Background(), err))
	}
	for _, c := range calls {
		if err != nil {
			c.answers, c.fanouts, c.err = nil, nil, err
		}
		close(c.done)
	}
}

// write stores the calls in one transaction. A transaction whose connection was lost is tried again on another: what it
// may have stored is found then.
func (s *Store) write(ctx context.Context, acceptor string, calls []*call) error {
	w := newWriting(s, acceptor, calls)
	for try := 1; ; try++ {
		err := w.try(ctx)
		switch {
		case err == nil:
			s.noteSuccess()
			w.answer()
			return nil
		case ctx.Err() != nil || try == commitTries:
			return err
		case code(err) == codeUndefinedTable:
			if _, seeErr := s.seePeriods(ctx); seeErr != nil {
				return errors.Join(err, seeErr)
			}
		case errors.Is(err, errHourTurned):
		case isLost(err) || isContention(err) || isMade(err):
			pause(ctx, time.Duration(try)*10*time.Millisecond)
		default:
			return err
		}
	}
}
