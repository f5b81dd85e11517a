package dispatcher

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/quota"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/status"
)

// quotaOf returns what the tenant may use: what the routing table says of it, or the dispatcher's default.
func (d *dispatcher) quotaOf(tenant string) quota.Limits {
	q := &d.live.Load().Quota
	if table := d.table.Load(); table != nil {
		q = cmp.Or(table.Quota(tenant), q)
	}
	return limitsOf(q)
}

func limitsOf(q *routing.Quota) quota.Limits {
	return quota.Limits{
		EventsPerSecond: q.EventsPerSecond, Burst: q.EventsBurst,
		PendingDeliveries: q.PendingDeliveries, PendingBytes: q.PendingBytes, ScheduledDeliveries: q.ScheduledDeliveries,
	}
}

// maxLargest is how many tenants a dispatcher's status names.
const maxLargest = 10

// largest are the tenants with the most deliveries pending, as the dispatcher's status names them. Of several dispatchers
// that share a store one says it: the owner of the first shard.
func (d *dispatcher) largest() []v1alpha1.TenantUsage {
	table := d.table.Load()
	if table == nil || !d.engine.Owns(event.SubscriptionKey{}) {
		return nil
	}
	var usage []v1alpha1.TenantUsage
	for _, u := range d.quotas.Largest(maxLargest) {
		namespace := table.Namespace(u.Tenant)
		named := slices.ContainsFunc(usage, func(other v1alpha1.TenantUsage) bool { return other.Namespace == namespace })
		if namespace != "" && u.Bytes > 0 && !named { // a namespace that was made again is named once
			usage = append(usage, v1alpha1.TenantUsage{
				Namespace: namespace, PendingDeliveries: u.Deliveries, PendingBytes: u.Bytes, ScheduledDeliveries: u.Scheduled,
			})
		}
	}
	return usage
}

const (
	// recountPause is how often what is pending is counted anew.
	recountPause = time.Minute
	// countShare is how many times longer than a count the pause after it is at least.
	countShare = 20
)

// countPending counts what is pending again and again: of each tenant, for its quota, once, or each time where other
// dispatchers share the store or something is planned; and of each subscription, for its status and the metrics.
func (d *dispatcher) countPending(ctx context.Context) {
	for first := true; ; first = false {
		began := time.Now()
		rebase := first || d.postgresURL != "" || d.schedules()
		if err := d.count(ctx, rebase); err != nil && ctx.Err() == nil {
			d.Logger.Error(err, "Counting what is pending failed; trying again", "pause", recountPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(recountPause, countShare*time.Since(began))):
		}
	}
}

// count counts what is pending once, for quotas if rebase is set.
func (d *dispatcher) count(ctx context.Context, rebase bool) error {
	pending := make(map[event.SubscriptionKey]int64)
	var scheduled map[event.SubscriptionKey]status.Scheduled
	count := func(add func(tenant string, deliveries, bytes, scheduled int64)) error {
		err := d.store.Totals(ctx, func(sub event.SubscriptionKey, deliveries, bytes int64) error {
			if route, ok := d.table.Load().Get(sub); ok { // what a deleted subscription had is about to be cancelled
				add(route.Tenant(), deliveries, bytes, 0)
				pending[sub] = deliveries
			}
			return nil
		})
		if err == nil {
			scheduled, err = d.countScheduled(ctx, func(tenant string, n int64) { add(tenant, 0, 0, n) })
		}
		return err
	}
	var err error
	if rebase {
		err = d.quotas.Rebase(count)
	} else {
		err = count(func(string, int64, int64, int64) {})
	}
	if err != nil {
		return err
	}
	d.show(pending, scheduled)
	if d.status != nil {
		d.status.Pending(pending)
		d.status.Scheduled(scheduled)
	}
	return nil
}

// show makes what was counted that of the metrics. Each of several processes shows its own shards.
func (d *dispatcher) show(pending map[event.SubscriptionKey]int64, scheduled map[event.SubscriptionKey]status.Scheduled) {
	var all, planned int64
	for sub, n := range pending {
		if d.engine.Owns(sub) {
			all += n
		}
	}
	for _, s := range scheduled { // of those owned here alone
		planned += s.Count
	}
	d.counted.pending.Store(all)
	d.counted.scheduled.Store(planned)
}

// schedules reports whether a subscription has a schedule: what its store replaces and cancels within a publish, quotas hear
// of by a count alone.
func (d *dispatcher) schedules() bool {
	for route := range d.table.Load().All() {
		if route.Rules.HasSchedule() {
			return true
		}
	}
	return false
}

// countScheduled counts the planned deliveries of the subscriptions that this process delivers to, for their statuses, and
// adds those of the tenants that have a quota for them, or may stand in the dispatcher's status.
func (d *dispatcher) countScheduled(ctx context.Context, add func(tenant string, n int64)) (map[event.SubscriptionKey]status.Scheduled, error) {
	counts := make(map[event.SubscriptionKey]status.Scheduled)
	names := d.engine.Owns(event.SubscriptionKey{}) // the one that says which tenants are the largest
	for route := range d.table.Load().All() {
		if !route.Rules.HasSchedule() {
			continue
		}
		owned := d.engine.Owns(route.Key)
		if !owned && !names && d.quotaOf(route.Tenant()).ScheduledDeliveries == 0 {
			continue
		}
		count, next, err := d.store.Scheduled(ctx, route.Key)
		if err != nil {
			return nil, err
		}
		add(route.Tenant(), count)
		if owned {
			counts[route.Key] = status.Scheduled{Count: count, Next: next}
		}
	}
	return counts, nil
}
