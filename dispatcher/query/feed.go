package query

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// The bounds of a feed.
const (
	maxLogs           = 64        // tenants whose changes are kept
	maxLogEntries     = 2048      // changes of one tenant that are kept; each is a record with one attempt, below 1 KiB
	maxNotices        = 8192      // changes of one tenant that are not read from the store yet
	ownWatchers       = 8         // of each tenant, which no other can take; each is a goroutine and a connection
	sharedWatchers    = 512       // of all tenants together, beyond their own
	maxTenantWatchers = 128       // per tenant, both
	logAge            = time.Hour // then watchers start anew: retention and what was not noticed shows
	noticeLinger      = 20 * time.Millisecond
	// maxOfKey is how many of the newest deliveries of a schedule's key an event may have changed.
	maxOfKey = 8
)

var (
	// ErrExpired is returned for a revision from which the changes are not kept: list, and watch from there.
	ErrExpired = errors.New("the changes since then are not kept any more")
	// ErrTooManyWatchers is returned while a tenant, or all tenants together, have as many as there may be.
	ErrTooManyWatchers = errors.New("too many watchers")
)

// Before says in which states a delivery may have been before a change: a bit for each of delivery.State.
type Before uint8

// Has reports whether the delivery may have been in the state.
func (b Before) Has(s delivery.State) bool { return b&(1<<s) != 0 }

const (
	wasNew      Before = 0
	wasPending         = Before(1) << delivery.Pending
	wasFinished        = Before(1)<<delivery.Failed | 1<<delivery.Cancelled
	wasAnything        = wasPending | wasFinished | 1<<delivery.Delivered
)

// Change is what became of a delivery. Its revision is higher than those before.
type Change struct {
	Revision uint64
	Before   Before
	// Record is shared, and has the newest attempt alone.
	Record *store.Record
}

// Feed is a store that notices the changes which are made through it, and keeps the newest of each tenant that is watched.
// While nobody watches, a change costs the look at a counter. It does not see the changes of other processes.
type Feed struct {
	store.Store
	// tenantOf says which tenant a subscription is of, where that is known.
	tenantOf func(event.SubscriptionKey) (string, bool)
	now      func() time.Time
	ctx      context.Context //nolint:containedctx // the readers of all logs live as long as the feed
	stop     context.CancelFunc
	readers  sync.WaitGroup

	mu       sync.Mutex
	revision uint64
	logs     map[string]*changes
	watching map[string]int // watchers by tenant
}

// NewFeed returns a feed of the store's changes. tenantOf says of which tenant a subscription is. Close ends it.
func NewFeed(of store.Store, tenantOf func(event.SubscriptionKey) (string, bool)) *Feed {
	ctx, stop := context.WithCancel(context.Background())
	return &Feed{
		Store: of, tenantOf: tenantOf, now: time.Now, ctx: ctx, stop: stop, logs: map[string]*changes{}, watching: map[string]int{},
		// Revisions go on across restarts, so that none is given twice, unless there were a million changes a second.
		revision: uint64(time.Now().UnixMicro()),
	}
}

// CloseFeed ends all watches, and not the store.
func (f *Feed) CloseFeed() {
	f.mu.Lock()
	f.stop() // under the lock: no log begins afterwards
	f.mu.Unlock()
	f.readers.Wait()
}

// Append appends, and notices what was new.
func (f *Feed) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	accepted, fanouts, err := f.Store.Append(ctx, events)
	if err != nil || !f.watched() {
		return accepted, fanouts, err
	}
	for i := range fanouts {
		for _, sub := range fanouts[i].Subscriptions {
			id := event.DeliveryID{Event: fanouts[i].Event.Key, Subscription: sub.Key}
			f.notice(sub.Tenant, notice{id: id, before: wasNew})
		}
	}
	for i := range events {
		e := &events[i]
		for j := range e.Plans {
			sub := e.Plans[j].Subscription
			f.notice(sub.Tenant, notice{id: event.DeliveryID{Event: e.Event.Key, Subscription: sub.Key}, before: wasNew})
			f.notice(sub.Tenant, notice{key: &store.Query{Tenant: sub.Tenant, Subscription: sub.Name, Key: e.Plans[j].Key}, before: wasPending})
		}
		for _, c := range e.Cancels {
			f.notice(c.Subscription.Tenant, notice{key: &store.Query{Tenant: c.Subscription.Tenant, Subscription: c.Subscription.Name, Key: c.Key}, before: wasPending})
		}
	}
	return accepted, fanouts, nil
}

// Record records, and notices what became of the deliveries.
func (f *Feed) Record(ctx context.Context, outcomes []delivery.Outcome) error {
	err := f.Store.Record(ctx, outcomes)
	if err == nil && f.watched() {
		f.noticeOutcomes(outcomes)
	}
	return err
}

// Settle settles, and notices what became of the deliveries.
func (f *Feed) Settle(ctx context.Context, outcomes []delivery.Outcome) ([]bool, error) {
	settled, err := f.Store.Settle(ctx, outcomes)
	if err == nil && f.watched() {
		f.noticeOutcomes(outcomes)
	}
	return settled, err
}

func (f *Feed) noticeOutcomes(outcomes []delivery.Outcome) {
	for i := range outcomes {
		id := outcomes[i].Delivery.ID
		tenant, known := f.tenantOf(id.Subscription)
		if e := outcomes[i].Delivery.Event; !known && e != nil {
			tenant, known = e.Tenant, true
		}
		if known {
			f.notice(tenant, notice{id: id, before: wasPending})
		} else {
			f.noticeAll(notice{id: id, before: wasPending})
		}
	}
}

// Replay replays, and notices it.
func (f *Feed) Replay(ctx context.Context, tenant string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	d, err := f.Store.Replay(ctx, tenant, id)
	if err == nil && f.watched() {
		before := wasFinished
		if d.ID != id {
			before = wasNew
		}
		f.notice(tenant, notice{id: d.ID, before: before})
	}
	return d, err
}

// SendNow sends now, and notices it.
func (f *Feed) SendNow(ctx context.Context, tenant string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	d, err := f.Store.SendNow(ctx, tenant, id)
	if err == nil && f.watched() {
		f.notice(tenant, notice{id: id, before: wasPending})
	}
	return d, err
}

// Cancel cancels, and notices it.
func (f *Feed) Cancel(ctx context.Context, tenant string, id event.DeliveryID) error {
	err := f.Store.Cancel(ctx, tenant, id)
	if err == nil && f.watched() {
		f.notice(tenant, notice{id: id, before: wasPending})
	}
	return err
}

// watched reports whether any tenant's changes are kept.
func (f *Feed) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.logs) > 0
}

// Revision returns that of now, from which a tenant's changes are kept for a while, if there is room: ask before you list.
func (f *Feed) Revision(tenant string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log(tenant)
	return f.revision
}

// log returns the tenant's changes, nil if there is no room or the feed ended. The feed's lock is held.
func (f *Feed) log(tenant string) *changes {
	now := f.now()
	l := f.logs[tenant]
	if l != nil && now.Before(l.born.Add(logAge)) {
		l.used = now
		return l
	}
	if f.ctx.Err() != nil || l == nil && len(f.logs) >= maxLogs && !f.dropOldest() {
		return nil
	}
	if l != nil {
		l.end(ErrExpired)
	}
	l = newChanges(f, tenant, now)
	f.logs[tenant] = l
	f.readers.Go(l.read)
	return l
}

// dropOldest makes room: the log that nobody watches and that was not asked for the longest goes.
func (f *Feed) dropOldest() bool {
	var oldest *changes
	for _, l := range f.logs {
		if f.watching[l.tenant] == 0 && (oldest == nil || l.used.Before(oldest.used)) {
			oldest = l
		}
	}
	if oldest == nil {
		return false
	}
	oldest.end(ErrExpired)
	delete(f.logs, oldest.tenant)
	return true
}

// notice hands a change to the tenant's log, if there is one.
func (f *Feed) notice(tenant string, n notice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.logs[tenant]; l != nil {
		l.add(n)
	}
}

// noticeAll hands a change of a tenant that is not known to all logs. Each reads its own tenant's deliveries alone.
func (f *Feed) noticeAll(n notice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.logs {
		l.add(n)
	}
}
