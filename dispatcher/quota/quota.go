// Package quota holds tenants to what their dispatcher allows them: events a second, and deliveries that are pending.
//
// A publish is admitted before it is stored, and charged what it will cause. What it did not cause after all, because
// events were repeated or the store failed, is returned. What is pending when the dispatcher starts is added once it has
// been counted, so that a quota on it holds from soon after the start.
package quota

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits are one tenant's. 0 means no limit.
type Limits struct {
	// EventsPerSecond is the rate of events, and Burst how many may come at once; without one, a second's worth.
	EventsPerSecond, Burst int
	// PendingDeliveries and PendingBytes bound what waits to be delivered. Each delivery counts the bytes of its body.
	PendingDeliveries, PendingBytes int64
	// ScheduledDeliveries bounds those of them that wait for a planned time.
	ScheduledDeliveries int64
}

// The quotas, as problems and metrics name them, and as they are called in spec.quotas of a WebhookDispatcher.
const (
	EventsPerSecond   = "eventsPerSecond"
	EventsBurst       = "eventsBurst"
	PendingDeliveries = "pendingDeliveries"
	PendingBytes      = "pendingBytes"

	ScheduledDeliveries = "scheduledDeliveries"
)

// ExceededError says which quota a publish would have gone beyond.
type ExceededError struct {
	// Quota is one of the constants.
	Quota string
	Limit int64
	// RetryAfter is when the publish may succeed; 0 if it never will, because it is larger than the quota itself.
	RetryAfter time.Duration
}

// Error names the quota and its limit.
func (e *ExceededError) Error() string {
	return fmt.Sprintf("the namespace's quota %s of %d is used up", e.Quota, e.Limit)
}

const (
	// pendingPause is when to try again where deliveries have to end first.
	pendingPause = 10 * time.Second
	// scheduledPause is the same for planned deliveries: what became of them is known from the next count.
	scheduledPause = time.Minute
	// maxIdle is how many tenants without anything pending are remembered, for the rates of their events.
	maxIdle = 4096
)

// Keeper keeps what each tenant uses. It is safe for concurrent use.
type Keeper struct {
	limits func(tenant string) Limits
	now    func() time.Time

	mu      sync.Mutex
	tenants map[string]*account
	refused map[string]int64 // by quota
	// since is what changed since a count of what is pending began; nil while none is under way.
	since map[string]*account
}

// account is what one tenant uses.
type account struct {
	limiter    *rate.Limiter // nil without a limit
	deliveries int64
	bytes      int64
	scheduled  int64 // of the deliveries
}

// add adds amounts, which may be negative.
func (a *account) add(deliveries, bytes, scheduled int64) {
	a.deliveries += deliveries
	a.bytes += bytes
	a.scheduled += scheduled
}

// New returns a keeper. limits returns a tenant's limits of now; it must not block.
func New(limits func(tenant string) Limits, now func() time.Time) *Keeper {
	return &Keeper{limits: limits, now: now, tenants: make(map[string]*account), refused: make(map[string]int64)}
}

// Admit charges the tenant with events that cause so many deliveries, with bodies of so many bytes in all, and so many of
// them planned. If a quota does not allow that, it charges nothing and returns an *ExceededError.
func (k *Keeper) Admit(tenant string, events int, deliveries, bytes, scheduled int64) error {
	limits := k.limits(tenant)
	if limits == (Limits{}) {
		k.AddScheduled(tenant, deliveries, bytes, scheduled)
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	a := k.account(tenant)
	exceeded := a.exceeded(limits, deliveries, bytes, scheduled)
	if exceeded == nil {
		exceeded = a.pace(limits, events, k.now())
	}
	if exceeded != nil {
		k.refused[exceeded.Quota]++
		return exceeded
	}
	k.change(tenant, a, deliveries, bytes, scheduled)
	return nil
}

// change changes what is pending. mu is held.
func (k *Keeper) change(tenant string, a *account, deliveries, bytes, scheduled int64) {
	a.add(deliveries, bytes, scheduled)
	if k.since == nil {
		return
	}
	since, ok := k.since[tenant]
	if !ok {
		since = &account{}
		k.since[tenant] = since
	}
	since.add(deliveries, bytes, scheduled)
}

// Rebase replaces what is known to be pending by what count adds, and what changed since count began. One at a time.
func (k *Keeper) Rebase(count func(add func(tenant string, deliveries, bytes, scheduled int64)) error) error {
	k.mu.Lock()
	k.since = make(map[string]*account)
	k.mu.Unlock()
	counted := make(map[string]*account)
	err := count(func(tenant string, deliveries, bytes, scheduled int64) {
		a, ok := counted[tenant]
		if !ok {
			a = &account{}
			counted[tenant] = a
		}
		a.add(deliveries, bytes, scheduled)
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	since := k.since
	k.since = nil
	if err != nil {
		return err
	}
	for _, a := range k.tenants {
		a.deliveries, a.bytes, a.scheduled = 0, 0, 0
	}
	for _, part := range []map[string]*account{counted, since} {
		for tenant, n := range part {
			k.account(tenant).add(n.deliveries, n.bytes, n.scheduled)
		}
	}
	return nil
}

// exceeded reports which quota of what is pending does not allow for more.
func (a *account) exceeded(limits Limits, deliveries, bytes, scheduled int64) *ExceededError {
	for _, q := range [...]struct {
		name              string
		limit, have, more int64
		pause             time.Duration
	}{
		{PendingDeliveries, limits.PendingDeliveries, a.deliveries, deliveries, pendingPause},
		{PendingBytes, limits.PendingBytes, a.bytes, bytes, pendingPause},
		{ScheduledDeliveries, limits.ScheduledDeliveries, a.scheduled, scheduled, scheduledPause},
	} {
		switch {
		case q.limit == 0 || q.more == 0 || q.have+q.more <= q.limit:
		case q.more > q.limit:
			return &ExceededError{Quota: q.name, Limit: q.limit}
		default:
			return &ExceededError{Quota: q.name, Limit: q.limit, RetryAfter: q.pause}
		}
	}
	return nil
}

// pace takes the events from the tenant's rate.
func (a *account) pace(limits Limits, events int, now time.Time) *ExceededError {
	if limits.EventsPerSecond == 0 {
		a.limiter = nil
		return nil
	}
	burst := cmp.Or(limits.Burst, limits.EventsPerSecond)
	switch {
	case a.limiter == nil:
		a.limiter = rate.NewLimiter(rate.Limit(limits.EventsPerSecond), burst)
	case a.limiter.Limit() != rate.Limit(limits.EventsPerSecond) || a.limiter.Burst() != burst:
		a.limiter.SetLimitAt(now, rate.Limit(limits.EventsPerSecond))
		a.limiter.SetBurstAt(now, burst)
	}
	reservation := a.limiter.ReserveN(now, events)
	if !reservation.OK() { // more than may ever come at once
		return &ExceededError{Quota: EventsBurst, Limit: int64(burst)}
	}
	if wait := reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
		return &ExceededError{Quota: EventsPerSecond, Limit: int64(limits.EventsPerSecond), RetryAfter: wait}
	}
	return nil
}

// account returns the tenant's account, and makes one if there is none. mu is held.
func (k *Keeper) account(tenant string) *account {
	a, ok := k.tenants[tenant]
	if !ok {
		if len(k.tenants) >= maxIdle {
			k.forgetIdle()
		}
		a = &account{}
		k.tenants[tenant] = a
	}
	return a
}

// forgetIdle forgets tenants that nothing has to be known of: nothing of theirs is pending, and their rate is rested.
func (k *Keeper) forgetIdle() {
	now := k.now()
	for tenant, a := range k.tenants {
		if a.deliveries == 0 && a.bytes == 0 && a.scheduled == 0 && (a.limiter == nil || a.limiter.TokensAt(now) >= float64(a.limiter.Burst())) {
			delete(k.tenants, tenant)
		}
	}
}

// Add charges the tenant with deliveries that are pending whatever its quotas are: those that were when the dispatcher
// started, and replays. Negative numbers return what ended, or was not caused after all.
func (k *Keeper) Add(tenant string, deliveries, bytes int64) {
	k.AddScheduled(tenant, deliveries, bytes, 0)
}

// AddScheduled is Add of deliveries of which some are planned. When a planned one is due or ends, only the next count says
// so.
func (k *Keeper) AddScheduled(tenant string, deliveries, bytes, scheduled int64) {
	if deliveries == 0 && bytes == 0 && scheduled == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.change(tenant, k.account(tenant), deliveries, bytes, scheduled)
}

// Refused counts the publishes that a quota did not admit, by quota.
func (k *Keeper) Refused(quota string) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refused[quota]
}

// Usage is what a tenant has pending.
type Usage struct {
	Tenant                       string
	Deliveries, Bytes, Scheduled int64
}

// Largest returns the n tenants with the most pending deliveries, the largest first.
func (k *Keeper) Largest(n int) []Usage {
	k.mu.Lock()
	all := make([]Usage, 0, len(k.tenants))
	for tenant, a := range k.tenants {
		if a.deliveries > 0 {
			all = append(all, Usage{Tenant: tenant, Deliveries: a.deliveries, Bytes: a.bytes, Scheduled: max(a.scheduled, 0)})
		}
	}
	k.mu.Unlock()
	slices.SortFunc(all, func(a, b Usage) int {
		return cmp.Or(cmp.Compare(b.Deliveries, a.Deliveries), cmp.Compare(a.Tenant, b.Tenant))
	})
	return all[:min(n, len(all))]
}

// Fullest returns how much of each quota of what is pending the tenant uses that uses most of it: 1 is all of it. A quota
// that no tenant has is 0.
func (k *Keeper) Fullest() map[string]float64 {
	fullest := map[string]float64{PendingDeliveries: 0, PendingBytes: 0, ScheduledDeliveries: 0}
	k.mu.Lock()
	defer k.mu.Unlock()
	for tenant, a := range k.tenants {
		limits := k.limits(tenant)
		for _, q := range [...]struct {
			name        string
			limit, have int64
		}{
			{PendingDeliveries, limits.PendingDeliveries, a.deliveries},
			{PendingBytes, limits.PendingBytes, a.bytes},
			{ScheduledDeliveries, limits.ScheduledDeliveries, a.scheduled},
		} {
			if q.limit > 0 {
				fullest[q.name] = max(fullest[q.name], float64(q.have)/float64(q.limit))
			}
		}
	}
	return fullest
}

// Full reports whether the tenant has no room for another pending delivery. It charges nothing.
func (k *Keeper) Full(tenant string) bool {
	limits := k.limits(tenant)
	k.mu.Lock()
	defer k.mu.Unlock()
	a, ok := k.tenants[tenant]
	return ok && (limits.PendingDeliveries > 0 && a.deliveries >= limits.PendingDeliveries || limits.PendingBytes > 0 && a.bytes >= limits.PendingBytes)
}
