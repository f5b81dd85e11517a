package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
)

// The errors that callers tell apart, with errors.Is.
var (
	// ErrConflict: an event with this namespace and id, and other content, was accepted within the last 24 hours.
	ErrConflict = errors.New("another event with this id was accepted within the last 24 hours")
	// ErrNotFound: no such delivery, or it is not kept any more.
	ErrNotFound = errors.New("no such delivery")
	// ErrStillPending: the delivery cannot be replayed, because it is on its way.
	ErrStillPending = errors.New("the delivery is still pending")
	// ErrNotPending: the delivery has ended.
	ErrNotPending = errors.New("the delivery is not pending")
	// ErrFull: too little space is left to accept events. It passes once space was made.
	ErrFull = errors.New("the store is full")
	// ErrReadOnly: the database takes no writes: its transactions are read-only, or it is a standby. It passes once it
	// takes some.
	ErrReadOnly = errors.New("the store is read-only")
	// ErrNotOpen: the embedded store could not be opened. The three below say why, where that is known, and come with it.
	ErrNotOpen = errors.New("the store could not be opened")
	// ErrLocked: another process has it open.
	ErrLocked = errors.New("another process uses the directory")
	// ErrDamaged: a file or a record of it cannot be read.
	ErrDamaged = errors.New("the store is damaged")
	// ErrNewer: a newer program wrote it.
	ErrNewer = errors.New("a newer program wrote the store")
	// ErrKeys: the encryption key of the tenant cannot be had now. It passes once the keys' place can be read.
	ErrKeys = errors.New("the tenant's encryption key is not available")
	// ErrErased: what was asked for was encrypted with a key that was deleted. It does not pass.
	ErrErased = errors.New("the tenant's encryption key was deleted")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
)

// NewEvent is an event to be stored, with the subscriptions that it matched: each gets one delivery.
type NewEvent struct {
	// Fanout's Due and its Event's Key are left empty: Append fills them in.
	delivery.Fanout
	// Plans are what the schedules of subscriptions that it matched say; those are not among Fanout's.
	Plans []Plan
	// Cancels end what is planned, before the event's own Plans.
	Cancels []Cancel
	// Digest is a hash of all that the producer sent for the event. The same namespace, id and digest again is a
	// repetition, another digest a conflict.
	Digest [16]byte
	// Fresh says that the id was made for this event, by event.NewID, and nobody knows it yet: no other event can have
	// it, so a store need not look for one. Later ones can, and meet it.
	Fresh bool
}

// Plan is what a schedule says of one event for one subscription. plan.Resolve decides, in the commit, what it does to the
// delivery that is planned for the same key.
type Plan struct {
	Subscription *delivery.Subscription
	// Key is the zero key if the event has none: it then replaces nothing.
	Key plan.Key
	// Timestamp is the event's: of two events of a key, the older changes nothing.
	Timestamp time.Time
	// Decision is when the delivery is due, or why it is Cancelled as soon as it is stored. It is stored in either case, so
	// that it is listed; not if plan.Resolve says Ignore.
	Decision plan.Decision
	// Failed is set in place of a Decision if the schedule could not be evaluated: the delivery is stored as Failed, with
	// delivery.ReasonScheduleFailed, and replaces nothing.
	Failed bool
}

// Cancel ends what is planned for a key of a subscription, as plan.Cancel says of the latest delivery of the key. Unless
// that says Ignore, all deliveries of the key that are pending end, also one that has started before the latest was
// planned. A Cancel of a key that has none is remembered all the same, so that an older event plans nothing.
// A Plan of the same event for the same subscription is dropped.
type Cancel struct {
	Subscription *delivery.Subscription
	Key          plan.Key
	Timestamp    time.Time
}

// What a call of Append holds at most beside what it is given, in bytes. Stores bound it; tests measure it.
const (
	// EventBytes is for each event: its records' keys, their copies on the way to the disk, its answer.
	EventBytes = 1 << 10
	// BodyCopies is how many copies of each event's body are made.
	BodyCopies = 3 // in the batch, on its way to the disk, and sealed
	// DeliveryBytes and OrderedDeliveryBytes are for each delivery, to a subscription that is not ordered or is.
	DeliveryBytes        = 112
	OrderedDeliveryBytes = 224
	// PlanBytes is for each Plan and Cancel, with what it ends.
	PlanBytes = 2 << 10
)

// SameSubscriptions reports whether two fan-outs share their subscriptions, as the events of one type in a request do.
func SameSubscriptions(a, b []*delivery.Subscription) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// Accepted is the answer to one event. A repetition gets the first answer again.
type Accepted struct {
	ID string
	// Deliveries counts the subscriptions that it matched: those of the fan-out and those of Plans, whatever became of them.
	Deliveries int
	// Repeated is set if the event was accepted before, and caused nothing now.
	Repeated bool
}

// Query selects a tenant's deliveries.
type Query struct {
	Tenant string
	// Subscription's name, or "" for all.
	Subscription string
	// State, or 0 for all.
	State delivery.State
	// Scheduled selects those of State Pending that wait for their planned time. One that SendNow or Replay made due does
	// not.
	Scheduled bool
	// Key, where it is not zero, selects what a schedule of Subscription, which is then set, planned for the key.
	Key plan.Key
	// Since and Until bound the event's acceptance, where they are not zero: since ≤ t < until.
	Since, Until time.Time
	// Before leaves out this delivery and all that are newer, where it is not zero: List's way to go on.
	Before event.DeliveryID
	// Limit bounds the answer; at least 1.
	Limit int
	// LastAttempt asks for the newest attempt of each delivery, too.
	LastAttempt bool
}

// Record is all that is known of a delivery.
type Record struct {
	ID           event.DeliveryID
	EventID      string
	Type         event.Type
	Tenant       string
	Subscription string // the name
	State        delivery.State
	Created      time.Time
	// AttemptCount counts every attempt; Attempts holds the newest MaxAttempts of them, oldest first. List leaves
	// Attempts empty, or all but the newest out if Query.LastAttempt is set.
	AttemptCount int
	Attempts     []delivery.Attempt
	// Due is when the next attempt starts; zero unless State is Pending.
	Due time.Time
	// Planned is the time that a schedule gave it; zero without one.
	Planned time.Time
	// Reason of a delivery that ended without an attempt; empty otherwise.
	Reason delivery.Reason
	// ReplayOf is the delivered delivery that this one repeats; zero if it does not.
	ReplayOf event.DeliveryID
}

// Listed returns the attempts of r that List answers with: the newest, or none.
func (r *Record) Listed(lastAttempt bool) []delivery.Attempt {
	if n := len(r.Attempts); lastAttempt && n > 0 {
		return slices.Clone(r.Attempts[n-1:])
	}
	return nil
}

// MaxAttempts is how many attempts of one delivery are kept in full: the newest.
const MaxAttempts = 50

// Store keeps events and deliveries. All methods are safe for concurrent use. A method whose context ends returns its
// error; Append may then have stored the events all the same, and the repetition finds them.
type Store interface {
	delivery.Store

	// Append makes events and their deliveries durable, all or none, and answers each in its place. The second result
	// are the fan-outs of the events that are new and cause deliveries, due at once, in the order of events. Two events
	// of one call with the same namespace and id are treated as a repetition or a conflict, too. It fails with
	// ErrConflict (as a *ConflictError), ErrFull, ErrReadOnly or ErrClosed. Beside the events it is given, a call holds at most
	// EventBytes, DeliveryBytes and PlanBytes for each of them, of their deliveries and of their plans. Planned deliveries are
	// not among the fan-outs, also where they are due: Own's owner gets a Notice of each.
	Append(ctx context.Context, events []NewEvent) ([]Accepted, []delivery.Fanout, error)

	// Get returns the delivery with its attempts, or ErrNotFound if the tenant has none such.
	Get(ctx context.Context, tenant string, id event.DeliveryID) (Record, error)

	// List returns the deliveries that q selects, newest first by event. It costs by what is listed where neither state
	// nor subscription leave much out.
	List(ctx context.Context, q Query) ([]Record, error)

	// Replay makes a finished delivery pending again, due at once, with its age and its maxAttempts started anew. A
	// failed or cancelled one keeps its id; a delivered one becomes a new delivery that names it in ReplayOf. The result
	// is to be handed to the engine. It is durable on return. ErrNotFound, ErrStillPending, ErrFull, ErrReadOnly.
	Replay(ctx context.Context, tenant string, id event.DeliveryID) (delivery.PendingDelivery, error)

	// SendNow makes a planned delivery that is pending due at once; what it answers is to be handed to the engine. It is
	// durable on return. Its age counts from now, and it keeps its planned time. ErrNotFound, ErrNotPending, ErrFull,
	// ErrReadOnly.
	SendNow(ctx context.Context, tenant string, id event.DeliveryID) (delivery.PendingDelivery, error)

	// Cancel makes a pending delivery Cancelled, for delivery.ReasonByUser. It is durable on return, and in one order with
	// Start. ErrNotFound, ErrNotPending, ErrFull, ErrReadOnly.
	Cancel(ctx context.Context, tenant string, id event.DeliveryID) error

	// Settle records outcomes of pending deliveries that are attempted without a lease, as those that a consumer pulls. It
	// is durable on return. settled reports, in each place, whether the outcome took effect. One does not whose delivery is
	// not pending any more, or is due at another time than it says. Epoch and Gone are not read.
	Settle(ctx context.Context, outcomes []delivery.Outcome) (settled []bool, err error)

	// StillPending reports, in each place, whether the delivery of sub that was pending there is so still. What a Cancel or a
	// Settle that returned before the call ended is not. It reads keys alone.
	StillPending(ctx context.Context, sub event.SubscriptionKey, at []delivery.Position) ([]bool, error)

	// Scheduled returns how many planned deliveries of sub wait for their time, and when the first is due; zero if none does.
	// It costs by those whose time has come.
	Scheduled(ctx context.Context, sub event.SubscriptionKey) (count int64, next time.Time, err error)

	// Retrying returns up to limit of sub's deliveries that failed at least once and are pending, next due first.
	Retrying(ctx context.Context, sub event.SubscriptionKey, limit int) ([]RetryingDelivery, error)

	// OldestPending returns when the oldest event with a pending delivery to sub was accepted; zero if there is none. A
	// planned delivery that was not attempted counts from its planned time, and not before that has come.
	OldestPending(ctx context.Context, sub event.SubscriptionKey) (time.Time, error)

	// Totals calls yield once for each subscription that has something pending, in any order: with the number of its
	// deliveries, and the sum of the sizes of their bodies in bytes. A body counts once for each delivery of it. All totals
	// are of one moment after the call began. Writers go on meanwhile.
	//
	// It ends with the error of yield or of ctx, or with ErrClosed once Close is called; then some totals are missing. The
	// store cannot give up what it replaces or deletes before the call ends, so yield must not wait.
	//
	// It reads every pending delivery once, in the background, on one processor: half a second for a million of them. It
	// holds a bounded amount of memory, whatever is pending.
	Totals(ctx context.Context, yield func(sub event.SubscriptionKey, deliveries, bytes int64) error) error

	// Now is the clock that due times and ages are kept by. It never shows a time before one at which the store accepted
	// an event, also after a restart.
	Now() time.Time

	// Ready returns nil while the store accepts events; else ErrFull, ErrReadOnly, ErrClosed, or why it does not.
	Ready() error

	// Close releases the store. What was acknowledged stays.
	Close() error
}

// RetryingDelivery is a delivery that failed at least once and is pending.
type RetryingDelivery struct {
	ID             event.DeliveryID
	Type           event.Type
	Attempts       int
	LastStatusCode int
	Due            time.Time
}

// ConflictError says which event of an Append met another with its id. It is ErrConflict.
type ConflictError struct {
	// Index of the event in the call.
	Index int
	ID    string
}

// Error names the event.
func (e *ConflictError) Error() string { return "event " + e.ID + ": " + ErrConflict.Error() }

// Unwrap returns ErrConflict.
func (e *ConflictError) Unwrap() error { return ErrConflict }
