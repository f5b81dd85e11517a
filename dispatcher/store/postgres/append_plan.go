package postgres

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// planning is what the schedules of a transaction's events change. It holds the rows of all keys that it decides on, in
// sorted order, and of their pending deliveries.
type planning struct {
	store *Store
	// filed is the time in whose tables deliveries that end are filed.
	filed int64
	keys  map[plannedKey]*keyState
	// made are new deliveries, ended others that ended: new ones that are not planned or not any more, and ones that were
	// pending.
	made, ended []*planned
}

// plannedKey is a key of a subscription.
type plannedKey struct {
	sub event.SubscriptionKey
	key plan.Key
}

// planned is a delivery that a schedule planned.
type planned struct {
	*standing
	// entry whose event it is of; nil if it was pending before.
	entry *entry
	sub   *delivery.Subscription
}

// keyState is what is known of a key.
type keyState struct {
	known   bool
	stamp   int64
	changed bool
	newest  event.Key // the event of the newest delivery; zero for none
	pending []*planned
}

// plans reports whether schedules decide on one of the events.
func (w *writing) plans() bool {
	for _, e := range w.entries {
		if ev := e.event(); len(ev.Plans)+len(ev.Cancels) > 0 {
			return true
		}
	}
	return false
}

// planPeriods are those of the tables that the plans may need.
func (w *writing) planPeriods(now int64) []period {
	wanted := []period{
		{kindFailed, kindFailed.bucket(now)}, {kindFailedEvents, kindFailedEvents.bucket(now)}, {kindDetails, kindDetails.bucket(now)},
	}
	for _, e := range w.entries {
		for i := range e.event().Plans {
			p := &e.event().Plans[i]
			if at := plannedPeriod(p.Decision.At); p.Decision.Planned() && !p.Failed && !slices.Contains(wanted, at) {
				wanted = append(wanted, at)
			}
		}
	}
	return wanted
}

const (
	// lockKeys makes and locks rows in sorted order, so that no two transactions wait for each other.
	lockKeys = `INSERT INTO eventflow.plan_keys AS o (sub, key, kept)
SELECT sub, key, $3 FROM unnest($1::bytea[], $2::bytea[]) AS u (sub, key) ORDER BY sub, key
ON CONFLICT (sub, key) DO UPDATE SET kept = greatest(o.kept, excluded.kept)
RETURNING sub, key, stamp, event`

	// lockPlanned comes after lockKeys: nobody else plans for these keys, but Start and Record may be at work.
	lockPlanned = `SELECT p.sub, p.due, p.event, p.since, p.attempts, p.before, p.ord, p.size, p.tenant, p.history, p.log, p.replay_of, coalesce(p.planned, 0), p.plan_key, coalesce(p.started, false)
FROM unnest($1::bytea[], $2::bytea[]) AS u (sub, key), eventflow.pending AS p
WHERE p.sub = u.sub AND p.plan_key = u.key AND p.plan_key IS NOT NULL ORDER BY p.sub, p.event FOR UPDATE OF p`

	saveKeys = `UPDATE eventflow.plan_keys AS k SET stamp = u.stamp, kept = u.kept, event = u.event
FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[]) AS u (sub, key, stamp, kept, event) WHERE k.sub = u.sub AND k.key = u.key`

	endPlanned = `DELETE FROM eventflow.pending AS p USING unnest($1::bytea[], $2::bigint[], $3::bytea[]) AS u (sub, due, event)
WHERE p.sub = u.sub AND p.due = u.due AND p.event = u.event`
)

// plan decides on the plans and cancellations of the events that are new, in their order.
func (w *writing) plan(ctx context.Context, conn *connection, filed int64) error {
	p := &planning{store: w.store, filed: filed, keys: map[plannedKey]*keyState{}}
	w.planning = p
	for _, e := range w.entries {
		if e.at != 0 && !e.stored {
			p.collect(e.event())
		}
	}
	if err := p.lock(conn); err != nil {
		return err
	}
	for _, e := range w.entries {
		if e.at != 0 && !e.stored {
			p.decide(e)
		}
	}
	for _, d := range p.ended {
		if d.entry == nil && !w.looked && !w.store.periods.has(plannedPeriod(d.Planned)) { // another may have made it
			w.looked = true
			conn.release()
			if _, err := w.store.seePeriods(ctx); err != nil {
				return err
			}
			return errHourTurned
		}
	}
	return nil
}

func (p *planning) collect(ev *store.NewEvent) {
	add := func(sub *delivery.Subscription, key plan.Key) {
		if of := (plannedKey{sub.Key, key}); !key.IsZero() && p.keys[of] == nil {
			p.keys[of] = &keyState{}
		}
	}
	for i := range ev.Cancels {
		add(ev.Cancels[i].Subscription, ev.Cancels[i].Key)
	}
	for i := range ev.Plans {
		if !ev.Plans[i].Failed {
			add(ev.Plans[i].Subscription, ev.Plans[i].Key)
		}
	}
}

// sorted are the keys in the order in which all transactions lock them.
func (p *planning) sorted() (keys []plannedKey) {
	for of := range p.keys {
		keys = append(keys, of)
	}
	slices.SortFunc(keys, func(x, y plannedKey) int {
		return cmp.Or(bytes.Compare(x.sub[:], y.sub[:]), bytes.Compare(x.key[:], y.key[:]))
	})
	return keys
}

// lock takes the keys' rows, and then reads what is pending for them.
func (p *planning) lock(conn *connection) error {
	sorted := p.sorted()
	for part := range slices.Chunk(sorted, partRows) {
		subs, keys := make([][]byte, len(part)), make([][]byte, len(part))
		for i := range part {
			subs[i], keys[i] = part[i].sub[:], part[i].key[:]
		}
		b := &pgx.Batch{}
		b.Queue(settingsIndexed)
		b.Queue(p.store.sql(lockKeys), subs, keys, p.filed)
		b.Queue(p.store.sql(lockPlanned), subs, keys)
		if err := conn.send(b, nil, p.readKeys, p.readPending); err != nil {
			return err
		}
	}
	return nil
}

func (p *planning) readKeys(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	var sub, key, newest []byte
	var stamp *int64
	_, err = pgx.ForEachRow(rows, []any{&sub, &key, &stamp, &newest}, func() error {
		of, err := decodeSubscription(sub)
		if err != nil || len(key) != len(plan.Key{}) {
			return errDamaged
		}
		if state := p.keys[plannedKey{of, plan.Key(key)}]; state != nil && stamp != nil {
			state.known, state.stamp = true, *stamp
			copy(state.newest[:], newest)
		}
		return nil
	})
	return err
}

func (p *planning) readPending(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	return readStandings(rows, func(st *standing) {
		if state := p.keys[plannedKey{st.ID.Subscription, plan.Key(st.key)}]; state != nil {
			state.pending = append(state.pending, &planned{standing: st})
		}
	})
}

// latest is what plan.Resolve and plan.Cancel need of a key; nil if there is nothing.
func (k *keyState) latest() *plan.Latest {
	if k == nil || !k.known {
		return nil
	}
	latest := &plan.Latest{State: plan.Ended, Timestamp: moment(k.stamp)}
	for _, d := range k.pending {
		switch {
		case d.ID.Event != k.newest: // a replay of one before
		case d.waits():
			latest.State = plan.Waiting
		default:
			latest.State = plan.Started
		}
	}
	return latest
}

// waits reports whether no attempt of the delivery has begun.
func (d *planned) waits() bool { return !d.started && d.Attempts == 0 }

// decide applies an event: what it cancels first, and then its own plans, but for subscriptions in which it cancels.
func (p *planning) decide(e *entry) {
	ev := e.event()
	for i := range ev.Cancels {
		c := &ev.Cancels[i]
		k := p.keys[plannedKey{c.Subscription.Key, c.Key}]
		if c.Key.IsZero() {
			continue
		}
		stamp := moment(nanos(c.Timestamp))
		if plan.Cancel(k.latest(), stamp).Ignore {
			continue
		}
		// Also what began before the newest was planned, or was replayed.
		p.end(k, c.Subscription, delivery.ReasonCancelledByEvent, func(*planned) bool { return true })
		k.set(nanos(stamp))
	}
	for i := range ev.Plans {
		pl := &ev.Plans[i]
		cancelled := slices.ContainsFunc(ev.Cancels, func(c store.Cancel) bool {
			return c.Subscription.Key == pl.Subscription.Key
		})
		if !cancelled {
			p.decidePlan(e, pl)
		}
	}
}

func (p *planning) decidePlan(e *entry, pl *store.Plan) {
	d := &planned{entry: e, sub: pl.Subscription, standing: &standing{
		PendingDelivery: delivery.PendingDelivery{
			ID: event.DeliveryID{Event: e.key, Subscription: pl.Subscription.Key}, Size: e.event().Event.Size(),
		},
		tenant: tenantOf(pl.Subscription.Tenant), state: delivery.Pending,
	}}
	if pl.Failed {
		d.state, d.reason = delivery.Failed, delivery.ReasonScheduleFailed
		p.ended = append(p.ended, d)
		return
	}
	var k *keyState
	if !pl.Key.IsZero() {
		k = p.keys[plannedKey{pl.Subscription.Key, pl.Key}]
		d.key = slices.Clone(pl.Key[:])
	}
	stamp := moment(nanos(pl.Timestamp))
	verdict := plan.Resolve(k.latest(), stamp)
	if verdict.Ignore {
		return
	}
	if verdict.End != "" {
		p.end(k, pl.Subscription, delivery.Reason(verdict.End), func(d *planned) bool { return d.ID.Event == k.newest && d.waits() })
	}
	if k != nil {
		k.newest = e.key
		k.set(nanos(stamp))
	}
	if !pl.Decision.Planned() {
		d.state, d.reason = delivery.Cancelled, delivery.Reason(pl.Decision.Reason)
		p.ended = append(p.ended, d)
		return
	}
	at := moment(nanos(pl.Decision.At))
	d.Planned, d.Due, d.Since = at, at, at
	p.made = append(p.made, d)
	if k != nil {
		k.pending = append(k.pending, d)
	}
}

// set notes the event that decided on the key last.
func (k *keyState) set(stamp int64) { k.known, k.stamp, k.changed = true, stamp, true }

// end ends those of the key's deliveries that are selected.
func (p *planning) end(k *keyState, sub *delivery.Subscription, reason delivery.Reason, selects func(*planned) bool) {
	k.pending = slices.DeleteFunc(k.pending, func(d *planned) bool {
		if !selects(d) {
			return false
		}
		d.state, d.reason, d.sub = delivery.Cancelled, reason, sub
		p.ended = append(p.ended, d)
		p.made = slices.DeleteFunc(p.made, func(other *planned) bool { return other == d })
		return true
	})
}
