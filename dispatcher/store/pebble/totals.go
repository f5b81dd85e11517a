package pebble

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	// totalsStep is how many deliveries are read through one iterator, which holds on to tables and to memory.
	totalsStep = 1 << 16
	// totalsCheck is after how many deliveries it is checked again that the call is to go on.
	totalsCheck = 1 << 10
)

// Totals reads the pending deliveries of one snapshot in the order of their keys, and so one subscription after another.
// It holds one subscription's sums.
func (s *Store) Totals(ctx context.Context, yield func(sub event.SubscriptionKey, deliveries, bytes int64) error) error {
	return s.totalsBy(ctx, totalsStep, yield)
}

// totalsBy is Totals with steps of the given length.
func (s *Store) totalsBy(ctx context.Context, length int, yield func(sub event.SubscriptionKey, deliveries, bytes int64) error) (err error) {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	snapshot := s.db.NewSnapshot()
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	t := totals{ctx: ctx, closing: s.closing, length: length, yield: yield}
	for from := []byte{spacePending}; from != nil; {
		if from, err = t.step(snapshot, from); err != nil {
			return err
		}
	}
	return t.finish()
}

// totals is the work of one Totals.
type totals struct {
	ctx, closing context.Context
	length       int // of a step
	yield        func(sub event.SubscriptionKey, deliveries, bytes int64) error
	// sub is the subscription whose deliveries are being read; the sums are of those that were.
	sub               event.SubscriptionKey
	deliveries, bytes int64
}

// step reads some deliveries, from the given key on, and returns the key that the next step begins at; nil at the end.
func (t *totals) step(snapshot *pebble.Snapshot, from []byte) (next []byte, err error) {
	it, err := snapshot.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: []byte{spacePending + 1}})
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	n := 0
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		if n == t.length {
			next = slices.Clone(it.Key())
			break
		}
		if n%totalsCheck == 0 {
			err = t.ended()
		}
		if err == nil {
			err = t.add(it.Key(), it.Value())
		}
		n++
	}
	return next, errors.Join(err, it.Error(), it.Close())
}

// add adds a delivery. The first one of a subscription finishes the one before.
func (t *totals) add(key, value []byte) error {
	if len(key) != pendingKeyLength {
		return &DamagedError{Kind: kindPending}
	}
	sub, _, of := parsePendingKey(key)
	if sub != t.sub {
		if err := t.finish(); err != nil {
			return err
		}
		t.sub = sub
	}
	p, err := decodePending(of, value)
	t.deliveries++
	t.bytes += int64(p.size)
	return err
}

// finish yields the subscription's sums, unless it has nothing pending.
func (t *totals) finish() error {
	if t.deliveries == 0 {
		return nil
	}
	if err := t.ended(); err != nil {
		return err
	}
	deliveries, bytes := t.deliveries, t.bytes
	t.deliveries, t.bytes = 0, 0
	return t.yield(t.sub, deliveries, bytes)
}

// ended returns why the call is not to go on, or nil.
func (t *totals) ended() error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if t.closing.Err() != nil {
		return store.ErrClosed
	}
	return nil
}
