package delivery

import (
	"bytes"
	"context"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// State is where a delivery stands. A finished one becomes Pending again only by a replay.
type State uint8

// The states.
const (
	Pending   State = iota + 1
	Delivered       // the endpoint answered 2xx
	Failed          // given up: kept, listed, replayable
	Cancelled       // not wanted any more; a Reason says why
)

// String returns the state as the API writes it.
func (s State) String() string {
	switch s {
	case Pending:
		return "Pending"
	case Delivered:
		return "Delivered"
	case Failed:
		return "Failed"
	case Cancelled:
		return "Cancelled"
	default:
		return "Unknown"
	}
}

// Event is what is stored once for however many deliveries an event causes. Its exported fields never change.
type Event struct {
	Key event.Key
	// Tenant is the uid of the namespace that the event was published into, or its name where there are no uids.
	Tenant string
	ID     string
	Type   event.Type
	// Body is the full body, as it is signed and sent.
	Body []byte
	// Traceparent is the publisher's W3C trace context, if it sent one.
	Traceparent string
	// Sealed says that Body, and maybe ID, are ciphertexts. Only package sealed and the stores below it see such events.
	Sealed bool

	// Charge is the engine's: it says who pays for the memory that the event takes there.
	Charge Charge
}

// SealedExtra is by how many bytes the Body of a sealed event is longer than the event's own.
const SealedExtra = 110

// Size is the length of the event's own body in bytes, also while it is sealed.
func (e *Event) Size() int {
	if e.Sealed {
		return len(e.Body) - SealedExtra
	}
	return len(e.Body)
}

// Charge says how many deliveries keep an event in memory, and for whom. Only the engine reads and writes it, under its lock.
type Charge struct {
	Holders int
	Payer   any
}

// Subscription is what a store keeps of a subscription: enough to list its deliveries after it is gone. It is immutable;
// all that refer to one share it.
type Subscription struct {
	Key    event.SubscriptionKey
	Tenant string
	Name   string
	// Ordered deliveries go one at a time for each order. It holds for what is appended from now on, until a replay.
	Ordered bool
}

// Fanout is an accepted event and the deliveries that it causes: one for each subscription, all due at the same time.
type Fanout struct {
	Event *Event
	// Due is when the deliveries fall due; their age counts from the event's acceptance.
	Due time.Time
	// Order is the hash of what the deliveries of ordered subscriptions are ordered by, 0 if there is nothing. A store may
	// put another number in its place, the same for the same.
	Order uint64
	// Subscriptions that the event matched. The slice and what it refers to are shared and never written.
	Subscriptions []*Subscription
}

// PendingDelivery is a delivery on its way.
type PendingDelivery struct {
	ID event.DeliveryID
	// Due is when the next attempt starts.
	Due time.Time
	// Since is what the delivery's age counts from: its event's acceptance, its planned time, or the newest replay.
	Since time.Time
	// Planned is the time that a schedule gave the delivery; zero without one. What has it is attempted only after
	// Store.Start said so.
	Planned time.Time
	// Attempts made so far; they number on across replays.
	Attempts int
	// AttemptsBefore are those of them that were made before the newest replay: maxAttempts does not count them.
	AttemptsBefore int
	// Order is the hash of what the delivery is ordered by, 0 if it is not.
	Order uint64
	// Size of the event's body, in bytes.
	Size int
	// Event is there if it happens to be in memory.
	Event *Event
	// Mark is the store's own note of when it read a planned delivery, for its Start; 0 if it has none.
	Mark uint64
}

// Attempt is one attempt as it is recorded.
type Attempt struct {
	Number     int
	Started    time.Time
	Duration   time.Duration
	StatusCode int    // 0 if there was no answer
	Reason     Reason // empty if it succeeded
}

// Pulled reports whether the attempt is one that a consumer pulled and acknowledged. Its Duration is the time between.
func (a *Attempt) Pulled() bool { return a.Reason == "" && a.StatusCode == 0 }

// Outcome is a delivery's next state.
type Outcome struct {
	// Delivery as it was when it was taken up.
	Delivery PendingDelivery
	// Attempt is nil if the delivery was given up or cancelled without one.
	Attempt *Attempt
	// State that follows.
	State State
	// Reason of a delivery that ends without an attempt; empty otherwise.
	Reason Reason
	// Due is when the next attempt starts, if State is Pending.
	Due time.Time
	// Gone is set if the endpoint answered 410: the generation of the spec that stops here.
	Gone int64
	// Epoch of the lease under which the delivery was taken up.
	Epoch int64
}

// Counts sums up a subscription's deliveries over its life. They are kept in the store, with the outcomes they count.
type Counts struct {
	Delivered, Retrying, Failed, Cancelled int64
	// LastDelivered is when the endpoint last answered 2xx; zero if it never did.
	LastDelivered time.Time
	// LastFailure is the newest failed attempt; zero if there was none.
	LastFailure Attempt
	// FailuresInARow since the last success.
	FailuresInARow int
	// Gone is the generation whose endpoint answered 410, 0 if none did.
	Gone int64
}

// Backlog is what a subscription still has to deliver.
type Backlog struct {
	Subscription event.SubscriptionKey
	// Due is when its earliest delivery falls due.
	Due time.Time
}

// Position is a place in a subscription's pending deliveries, which are ordered by due time and then by event.
type Position struct {
	Due   time.Time
	Event event.Key
}

// Before reports whether p comes before q.
func (p Position) Before(q Position) bool {
	if c := p.Due.Compare(q.Due); c != 0 {
		return c < 0
	}
	return bytes.Compare(p.Event[:], q.Event[:]) < 0
}

// Position is where the delivery stands among those of its subscription.
func (d *PendingDelivery) Position() Position { return Position{Due: d.Due, Event: d.ID.Event} }

// Shards is how many parts subscriptions are divided into. A process works on whole shards, those that it has a lease of.
const Shards = 64

// ShardOf is the shard of a subscription. The keys of one shard are a range.
func ShardOf(key event.SubscriptionKey) int { return int(key[0]) * Shards / 256 }

// Lease is the right to work on the deliveries of a shard's subscriptions.
type Lease struct {
	Shard int
	// Epoch grows each time the shard changes hands: the store refuses outcomes of an older one.
	Epoch int64
}

// Owner is told by a store what to work on. The engine is one.
type Owner interface {
	// Take begins the work on a shard.
	Take(lease Lease)
	// Release ends it in good order: it starts no attempt any more, and returns once none is in flight and every
	// outcome is recorded, or ctx ended.
	Release(ctx context.Context, shard int)
	// Lose ends it at once, because the lease was lost.
	Lose(shard int)
	// Notice says that a subscription of an owned shard has something due that was stored elsewhere.
	Notice(b Backlog)
}

// Store is what the engine needs of a store. Every method may be called from many goroutines at once, blocks while the
// store is slow, and fails only if the context ended or the store cannot go on.
type Store interface {
	// Own tells owner what to work on, until ctx ends; it has given everything back when it returns. A store that only
	// one process can open gives it all shards at once.
	Own(ctx context.Context, owner Owner) error

	// Backlogs calls yield for each subscription of a shard that has something pending.
	Backlogs(ctx context.Context, shard int, yield func(Backlog) error) error

	// Due appends to into the deliveries of sub that are pending at or after from and due at or before until, earliest
	// first, at most limit. next is the place of the first that it did not return, whenever that is due; ok is false
	// if there is none. It costs by what it returns.
	Due(ctx context.Context, sub event.SubscriptionKey, from Position, until time.Time, limit int, into []PendingDelivery) (found []PendingDelivery, next Position, ok bool, err error)

	// Aged is like Due, for the deliveries whose Since is at or before the given time, in no particular order.
	Aged(ctx context.Context, sub event.SubscriptionKey, since time.Time, limit int, into []PendingDelivery) ([]PendingDelivery, error)

	// First returns, of the subscription's pending deliveries with this order, the one whose event was accepted first,
	// and false if there is none.
	First(ctx context.Context, sub event.SubscriptionKey, order uint64) (PendingDelivery, bool, error)

	// Event returns the event of a pending delivery.
	Event(ctx context.Context, key event.Key) (*Event, error)

	// Start reports whether a planned delivery may be attempted now: it is pending. From then on a later event of its key
	// does not replace it; one of cancelOn still cancels what follows the attempt. Start and Append are in one order: a
	// delivery whose cancellation Append has acknowledged does not start.
	Start(ctx context.Context, d PendingDelivery) (bool, error)

	// Record writes outcomes, all or none. They need not be durable when it returns: a lost outcome means a repeated
	// attempt. An outcome of a delivery that is not pending any more is dropped, and so is one whose Epoch is not that of
	// its shard's lease. One exception: where an event or a user cancelled the delivery while its last attempt was on its
	// way, State Delivered takes the place of Cancelled.
	Record(ctx context.Context, outcomes []Outcome) error

	// Counts returns the subscription's counts; zero if it has none yet.
	Counts(ctx context.Context, sub event.SubscriptionKey) (Counts, error)
}
