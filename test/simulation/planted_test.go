package simulation

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// planted is a bug that is put into a world, to see that it is found.
type planted int

const (
	noBug       planted = iota
	earlyAck            // an event is acknowledged before it is synced
	keptLease           // after a crash, the lease of the process that is no more is waited out for too long
	lostCancel          // an event does not cancel what it should
	lostReplace         // an event does not replace what is planned for its key
	mixedKey            // after a change of keys, a tenant's deliveries are signed with another tenant's
	lostAttempt         // a planned delivery does not start
	lostOutcome         // an outcome is not written
	doubled             // an event that is published again is another one
	unordered           // nothing is held back
	hasty               // what is planned goes too early
	unfiltered          // a filter is not applied
	undeleted           // that a subscription was removed is not heard of
	openDoor            // everybody may publish everywhere
)

// worldStore is a store on a disk that may be slow, and with a bug if there is one.
type worldStore struct {
	store.Store
	slow   func() time.Duration
	bug    planted
	orphan bool // the process before did not end in order
	count  *atomic.Int64
}

// ID is that of the store, by which what is encrypted is bound to it.
func (s worldStore) ID() string { return s.Store.(interface{ ID() string }).ID() }

const keptFor = 10 * time.Minute

// Own hands the shards out too late.
func (s worldStore) Own(ctx context.Context, owner delivery.Owner) error {
	if s.bug == keptLease && s.orphan {
		select {
		case <-time.After(keptFor):
		case <-ctx.Done():
			return nil
		}
	}
	return s.Store.Own(ctx, owner)
}

// Append forgets every other cancellation, what an id was used for, or what is planned for the same key.
func (s worldStore) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	for i := range events {
		switch {
		case s.bug == lostCancel && len(events[i].Cancels) > 0 && s.count.Add(1)%2 == 0:
			events[i].Cancels = nil
		case s.bug == doubled:
			events[i].Fresh = true
		case s.bug == lostReplace:
			for n := range events[i].Plans {
				events[i].Plans[n].Key = plan.Key{}
			}
		}
	}
	s.wait()
	return s.Store.Append(ctx, events)
}

// wait takes the time that the disk takes.
func (s worldStore) wait() {
	if d := s.slow(); d > 0 {
		<-time.After(d)
	}
}

// Record writes outcomes, or forgets every twentieth.
func (s worldStore) Record(ctx context.Context, outcomes []delivery.Outcome) error {
	s.wait()
	if s.bug == lostOutcome && s.count.Add(1)%20 == 0 {
		return nil
	}
	return s.Store.Record(ctx, outcomes)
}

// Due reads what is due.
func (s worldStore) Due(ctx context.Context, sub event.SubscriptionKey, from delivery.Position, until time.Time, limit int, into []delivery.PendingDelivery) ([]delivery.PendingDelivery, delivery.Position, bool, error) {
	s.wait()
	return s.Store.Due(ctx, sub, from, until, limit, into)
}

// Event reads an event.
func (s worldStore) Event(ctx context.Context, key event.Key) (*delivery.Event, error) {
	s.wait()
	return s.Store.Event(ctx, key)
}

// Start says of every fifth planned delivery that it was cancelled.
func (s worldStore) Start(ctx context.Context, d delivery.PendingDelivery) (bool, error) {
	if s.bug == lostAttempt && s.count.Add(1)%5 == 0 {
		return false, nil
	}
	s.wait()
	return s.Store.Start(ctx, d)
}
