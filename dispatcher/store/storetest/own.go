package storetest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// owner notes what a store gives it to work on.
type owner struct {
	mu     sync.Mutex
	epochs map[int]int64
	newest map[int]int64 // also of shards that were lost
	all    chan struct{} // closed once every shard was taken
	faults []string
	// notices are of what is due earliest, by subscription; changed is closed when one comes.
	notices map[event.SubscriptionKey][]time.Time
	changed chan struct{}
}

// ownTimeout bounds how long a store may take to hand out all shards.
const ownTimeout = 60 * time.Second

// own begins to own the store's shards, all of them, and returns what ends it.
func own(f *fixture, s store.Store) (*owner, func()) {
	f.Helper()
	o := &owner{epochs: map[int]int64{}, newest: map[int]int64{}, all: make(chan struct{})}
	o.notices, o.changed = map[event.SubscriptionKey][]time.Time{}, make(chan struct{})
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.ctx))
	ended := make(chan error, 1)
	go func() { ended <- s.Own(ctx, o) }()
	timeout := time.NewTimer(ownTimeout)
	defer timeout.Stop()
	select {
	case <-o.all:
	case err := <-ended:
		cancel()
		f.Fatalf("Own ended: %v", err)
	case <-timeout.C:
		cancel()
		f.Fatalf("only %d shards of %d were handed out", len(o.epochs), delivery.Shards)
	}
	return o, sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			f.Errorf("Own: %v", err)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, fault := range o.faults {
			f.Error(fault)
		}
	})
}

// epoch of the lease under which a delivery is taken up.
func (f *fixture) epoch(d delivery.PendingDelivery) int64 {
	f.owner.mu.Lock()
	defer f.owner.mu.Unlock()
	return f.owner.newest[delivery.ShardOf(d.ID.Subscription)]
}

// Take notes the lease.
func (o *owner) Take(lease delivery.Lease) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.newest[lease.Shard] >= lease.Epoch {
		o.faults = append(o.faults, "a shard was taken again without a new epoch")
	}
	o.epochs[lease.Shard], o.newest[lease.Shard] = lease.Epoch, lease.Epoch
	if len(o.newest) == delivery.Shards {
		select {
		case <-o.all:
		default:
			close(o.all)
		}
	}
}

// Release forgets the lease.
func (o *owner) Release(_ context.Context, shard int) { o.Lose(shard) }

// Lose forgets the lease.
func (o *owner) Lose(shard int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.epochs, shard)
}

// Notice notes it: tests read the store when they want to.
func (o *owner) Notice(b delivery.Backlog) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notices[b.Subscription] = append(o.notices[b.Subscription], b.Due)
	close(o.changed)
	o.changed = make(chan struct{})
}

// noticed waits until the owner was told that sub has something due by the given time.
func (f *fixture) noticed(sub delivery.Subscription, due time.Time) {
	f.Helper()
	timeout := time.NewTimer(ownTimeout)
	defer timeout.Stop()
	for {
		f.owner.mu.Lock()
		told := slices.ContainsFunc(f.owner.notices[sub.Key], func(at time.Time) bool { return !at.After(due) })
		changed := f.owner.changed
		f.owner.mu.Unlock()
		if told {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			f.Fatalf("the owner was not told that %s has something due at %s", sub.Name, due)
		}
	}
}
