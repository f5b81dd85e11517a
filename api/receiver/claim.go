package receiver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// Claim is what a Deduplicator answers.
type Claim int

const (
	// Claimed means that the delivery is the caller's to handle.
	Claimed Claim = iota + 1
	// InProgress means that another attempt has claimed it, and its lease has not ended.
	InProgress
	// Handled means that it was handled.
	Handled
)

// Deduplicator remembers which deliveries were handled, and which are being handled. Implementations are safe for
// concurrent use, and those that several replicas share decide Claim atomically. receivertest.Deduplicator tests one.
// Keys are at most 300 bytes of visible ASCII.
//
// What is recorded should be kept for 73 hours: a delivery is retried for 72 (spec.retry.maxAge).
type Deduplicator interface {
	// Claim takes the delivery for owner until the lease ends, unless it was handled or is claimed.
	Claim(ctx context.Context, key, owner string, lease time.Duration) (Claim, error)
	// Done records that the delivery was handled, whoever has claimed it since.
	Done(ctx context.Context, key string) error
	// Release gives the claim back, if it is still owner's and the delivery was not handled.
	Release(ctx context.Context, key, owner string) error
}

// errInProgress is why a concurrent repetition is not accepted.
var errInProgress = errors.New("the delivery is being handled by another request")

// attempt is what once learned of a delivery, for its Outcome.
type attempt struct {
	duplicate bool
	handled   bool
	storeErr  error
}

// once runs handle unless the delivery was handled, and records that it was if handle succeeds. It records afterwards,
// so that a handler that fails, panics or dies with its process is run again. If the Deduplicator fails, handle runs.
func (r *Receiver) once(ctx context.Context, key string, a *attempt, handle func(context.Context) error) error {
	owner := rand.Text()
	claim, err := r.claim(ctx, key, owner)
	switch {
	case err != nil:
		a.storeErr = fmt.Errorf("claim: %w", err)
	case claim == Handled:
		a.duplicate = true
		return nil
	case claim == InProgress:
		return errInProgress
	}
	// What became of the handler is recorded even if the dispatcher has hung up by then.
	settled := context.WithoutCancel(ctx)
	defer func() {
		if a.handled || claim != Claimed {
			return
		}
		if err := r.store(settled, func(ctx context.Context) error { return r.config.Deduplicator.Release(ctx, key, owner) }); err != nil {
			a.storeErr = fmt.Errorf("release: %w", err)
		}
	}()
	leased, cancel := context.WithTimeout(ctx, r.config.Lease)
	defer cancel()
	if err := handle(leased); err != nil {
		return err
	}
	a.handled = true
	if err := r.store(settled, func(ctx context.Context) error { return r.config.Deduplicator.Done(ctx, key) }); err != nil {
		a.storeErr = errors.Join(a.storeErr, fmt.Errorf("record: %w", err))
	}
	return nil
}

// claim asks the Deduplicator, whose answer must be one of the three.
func (r *Receiver) claim(ctx context.Context, key, owner string) (claim Claim, err error) {
	err = r.store(ctx, func(ctx context.Context) error {
		claim, err = r.config.Deduplicator.Claim(ctx, key, owner, r.config.Lease)
		return err
	})
	if err != nil {
		return 0, err
	}
	if claim != Claimed && claim != Handled && claim != InProgress {
		return 0, fmt.Errorf("unknown answer %d", claim)
	}
	return claim, nil
}

// store calls the Deduplicator within its time. One that panics has failed like one that returns an error.
func (r *Receiver) store(ctx context.Context, call func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, r.config.StoreTimeout)
	defer cancel()
	defer func() {
		if recover() != nil {
			err = errors.New("the deduplicator panicked")
		}
	}()
	return call(ctx)
}
