package engine

import (
	"maps"
	"time"

	"golang.org/x/time/rate"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

const (
	// laneWindow is how many deliveries a lane loads to have in memory, and how many new ones it may keep there whatever
	// other lanes keep.
	laneWindow = 256
	// failingWindow is the same while its endpoint is failing and takes one at a time.
	failingWindow = 8
	// scarceLoad is how many deliveries an idle lane may load while the engine's bound on memory is reached.
	scarceLoad = 4
)

// lane is one subscription's way through the engine. The engine's mutex guards it.
type lane struct {
	key      event.SubscriptionKey
	tenant   *tenant
	endpoint *Endpoint // nil once the subscription is gone
	removed  time.Time // when that was seen
	orphan   bool      // it was gone when the lane was made: its tenant's quota does not count it
	lease    delivery.Lease
	closed   bool // its shard was given back or lost: the lane is not the engine's any more

	// opened is set once the lane's health was read from the store.
	opened   bool
	failures int   // in a row
	gone     int64 // the generation that answered 410, or 0
	evidence evidence
	hold     hold
	// delivered is when the endpoint answered 2xx last; zero if it never did. It names the run of failures that follows.
	delivered time.Time

	ready    queue
	inFlight int
	waiting  int // of inFlight, those that outlasted the engine's patience
	// held are the deliveries in ready, in flight, or with an outcome that is not recorded yet: a load must not take
	// them up again.
	held map[event.Key]struct{}
	peak int // the most that held has had since it was made

	// backlogged tells that the store has deliveries at or after unloaded that are not held.
	backlogged bool
	unloaded   delivery.Position
	loading    bool
	// scanned is how far loads have read: what comes before it may have been taken from the store already, and
	// finished since.
	scanned delivery.Position
	// settled are those whose outcome was recorded while a load was under way: what it found may be out of date.
	settled map[event.Key]struct{}

	// successors are the orders whose first delivery was finished: the next one may go.
	successors []uint64

	limiter *rate.Limiter // nil without a bound on the rate
	allowed int           // requests a minute, by the endpoint's own word; 0 for no limit
	paceAt  time.Time     // when the rate lets the next attempt start, if that is to come

	queued    bool        // its next attempt waits for its turn
	queuedIn  room        // in this room
	listed    [rooms]bool // in the tenant's queue of lanes to serve there
	wants     bool        // in its tenant's queue of lanes to load
	toSweep   bool        // in its tenant's queue of lanes to sweep
	sweeping  bool        // it is being swept, or what that finished is being recorded
	wake      time.Time   // when to look at the lane again; zero if nothing is to come
	wakeIndex int         // in the engine's heap; -1 if it is not there
	sweepAt   time.Time   // when to look for deliveries that aged out or are to be cancelled; zero if not
}

func newLane(key event.SubscriptionKey, of *tenant) *lane {
	of.lanes++
	return &lane{key: key, tenant: of, held: make(map[event.Key]struct{}), wakeIndex: -1}
}

// open reports whether deliveries may go out at all.
func (l *lane) open() bool {
	return l.opened && !l.closed && l.endpoint != nil && l.endpoint.Target != nil && !l.endpoint.Pull && !l.endpoint.Suspended && (l.gone == 0 || l.gone != l.endpoint.Generation)
}

// pulled reports whether the lane's consumer asks for its deliveries.
func (l *lane) pulled() bool { return l.endpoint != nil && l.endpoint.Pull }

// ordered reports whether d may have to wait for another.
func (l *lane) ordered(d *delivery.PendingDelivery) bool {
	return d.Order != 0 && l.endpoint != nil && l.endpoint.Ordered
}

// paceBurst is how many attempts a second's worth is divided into: so many may start at once after a pause.
const paceBurst = 20

// fit takes the endpoint's rate over.
func (l *lane) fit(endpoint *Endpoint, now time.Time) {
	if l.endpoint != endpoint {
		l.allowed = 0 // the next attempt asks
	}
	l.endpoint = endpoint
	l.pace(now)
}

// pace makes the rate the lower one of the endpoint's spec and of what it allowed in a handshake.
func (l *lane) pace(now time.Time) {
	perSecond := rate.Limit(l.endpoint.RequestsPerSecond)
	if allowed := rate.Limit(l.allowed) / 60; allowed > 0 && (perSecond == 0 || allowed < perSecond) {
		perSecond = allowed
	}
	burst := max(1, int(perSecond)/paceBurst)
	switch {
	case perSecond == 0:
		l.limiter, l.paceAt = nil, time.Time{}
	case l.limiter == nil:
		l.limiter = rate.NewLimiter(perSecond, burst)
	case l.limiter.Limit() != perSecond:
		l.limiter.SetLimitAt(now, perSecond)
		l.limiter.SetBurstAt(now, burst)
		l.paceAt = time.Time{}
	}
}

// paced reports whether the rate lets an attempt start now. If it does not, paceAt says when it will.
func (l *lane) paced(now time.Time) bool {
	if l.limiter == nil {
		return true
	}
	reservation := l.limiter.ReserveN(now, 1)
	delay := reservation.DelayFrom(now)
	if delay == 0 {
		l.paceAt = time.Time{}
		return true
	}
	reservation.CancelAt(now)
	l.paceAt = now.Add(delay)
	return false
}

// startAt is when the lane's rate and the endpoint's Retry-After let the next attempt start, if that is to come.
func (l *lane) startAt() time.Time {
	if l.hold.active && l.hold.next.After(l.paceAt) {
		return l.hold.next
	}
	return l.paceAt
}

// failing reports whether the circuit breaker lets only single probes through.
func (l *lane) failing() bool { return l.failures >= BreakerThreshold }

// window is how many deliveries the lane may load to have in memory.
func (l *lane) window() int {
	if l.failing() || l.hold.active {
		return failingWindow
	}
	return laneWindow
}

// capacity is how many deliveries the lane may keep in memory as they come, given how many more the engine may. A lane that
// is behind takes as much as it leaves to others: what stays in memory need not be read back.
func (l *lane) capacity(free int) int {
	if l.failing() || l.hold.active {
		return failingWindow
	}
	return max(laneWindow, free)
}

// keep notes that the delivery of the event is in memory.
func (l *lane) keep(key event.Key) {
	l.held[key] = struct{}{}
	l.peak = max(l.peak, len(l.held))
}

// release undoes keep. A map does not shrink by itself: the memory of a burst would stay.
func (l *lane) release(key event.Key) {
	delete(l.held, key)
	if l.peak > 4*laneWindow && len(l.held) < l.peak/4 {
		rest := make(map[event.Key]struct{}, 2*len(l.held))
		maps.Copy(rest, l.held)
		l.held, l.peak = rest, len(rest)
	}
}

// due reports whether the store has something for the lane to load now.
func (l *lane) due(now time.Time) bool { return l.backlogged && !l.unloaded.Due.After(now) }

// scan notes that the store is read, or was read, up to p.
func (l *lane) scan(p delivery.Position) {
	if l.scanned.Before(p) {
		l.scanned = p
	}
}

// leave notes that d is in the store and not in memory.
func (l *lane) leave(p delivery.Position) {
	if !l.backlogged || p.Before(l.unloaded) {
		l.backlogged, l.unloaded = true, p
	}
}
