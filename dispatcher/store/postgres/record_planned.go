package postgres

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// detailed reports whether details may have to be kept of what is recorded.
func (r *recording) detailed() bool {
	return slices.ContainsFunc(r.outcomes, func(o delivery.Outcome) bool { return !o.Delivery.Planned.IsZero() || o.Reason != "" })
}

// seePlanned finds out whether another made the tables that the outcomes' events may be in.
func (r *recording) seePlanned(ctx context.Context) error {
	for i := range r.outcomes {
		if planned := r.outcomes[i].Delivery.Planned; !planned.IsZero() && !r.store.periods.has(plannedPeriod(planned)) {
			_, err := r.store.seePeriods(ctx)
			return err
		}
	}
	return nil
}

// plannedPeriod is that of the events of deliveries which are planned for the time.
func plannedPeriod(planned time.Time) period {
	return period{kindPlannedEvents, kindPlannedEvents.bucket(nanos(planned))}
}

// details are those of the deliveries that finished.
func (r *recording) details() *detailRows {
	var rows detailRows
	for _, id := range r.order {
		if st := r.standings[id]; st.state != delivery.Pending {
			rows.add(st, false)
		}
	}
	return &rows
}

// sort brings the deliveries into the order in which all that lock more than one planned delivery do so.
func (t *taking) sort() {
	order := make([]int, len(t.subs))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(bytes.Compare(t.subs[i], t.subs[j]), bytes.Compare(t.events[i], t.events[j]))
	})
	var sorted taking
	for _, i := range order {
		sorted.shards, sorted.epochs = append(sorted.shards, t.shards[i]), append(sorted.epochs, t.epochs[i])
		sorted.subs, sorted.events = append(sorted.subs, t.subs[i]), append(sorted.events, t.events[i])
		sorted.dues = append(sorted.dues, t.dues[i])
	}
	*t = sorted
}

// takeLate takes deliveries that were cancelled while an attempt of them was in flight, out of the tables of a day.
const takeLate = `WITH fence AS (SELECT shard, epoch FROM eventflow.leases WHERE owner = $1 AND shard = ANY($2::integer[]) FOR SHARE),
taken AS (DELETE FROM @1 AS d USING unnest($2::integer[], $3::bigint[], $4::bytea[], $5::bytea[]) AS u (shard, epoch, sub, event), fence AS f
WHERE f.shard = u.shard AND f.epoch = u.epoch AND d.sub = u.sub AND d.event = u.event AND d.open
RETURNING d.tenant, d.sub, d.event, d.planned, d.plan_key, d.reason)
DELETE FROM @2 AS g USING taken AS t WHERE g.tenant = t.tenant AND g.event = t.event AND g.sub = t.sub
RETURNING g.tenant, g.sub, g.event, g.attempts, g.log, g.replay_of, coalesce(t.planned, 0), t.plan_key, t.reason`

// takeLate looks for the deliveries that are not pending any more among those that were cancelled today or yesterday.
func (r *recording) takeLate(conn *connection) error {
	var t taking
	for i := range r.outcomes {
		if o := &r.outcomes[i]; r.standings[o.Delivery.ID] == nil {
			t.add(o, 0)
		}
	}
	if len(t.subs) == 0 {
		return nil
	}
	t.sort()
	today := kindDetails.bucket(r.now)
	b := &pgx.Batch{}
	var readers []func(pgx.BatchResults) error
	for _, day := range []int64{today, today - 1} {
		details, failed := period{kindDetails, day}, period{kindFailed, day}
		if r.store.periods.has(details) && r.store.periods.has(failed) {
			b.Queue(r.store.sql(takeLate, details.table(), failed.table()), r.store.options.Identity, t.shards, t.epochs, t.subs, t.events)
			readers = append(readers, func(results pgx.BatchResults) error { return r.readLate(results, day) })
		}
	}
	if len(readers) == 0 {
		return nil
	}
	return conn.send(b, readers...)
}

func (r *recording) readLate(results pgx.BatchResults, day int64) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	var p rowOfPending
	var tenant int64
	var sub, log, replayOf, key []byte
	var reason string
	_, err = pgx.ForEachRow(rows, []any{&tenant, &sub, &p.event, &p.attempts, &log, &replayOf, &p.planned, &key, &reason}, func() error {
		of, err := decodeSubscription(sub)
		if err != nil {
			return err
		}
		st := standing{
			state: delivery.Pending, tenant: tenant, replayOf: bytes.Clone(replayOf), key: bytes.Clone(key),
			late: true, filed: day, reason: delivery.Reason(reason),
		}
		if st.PendingDelivery, err = p.delivery(of); err != nil {
			return err
		}
		st.list, err = decodeAttempts(log)
		r.standings[st.ID] = &st
		return err
	})
	return err
}

// afterCancel is what an outcome is to a delivery that was cancelled meanwhile: it is Delivered, or stays Cancelled.
func (r *recording) afterCancel(st *standing, o *delivery.Outcome) *delivery.Outcome {
	r.counts.of(st.ID.Subscription).cancelled--
	if o.State == delivery.Delivered {
		return o
	}
	cancelled := *o
	cancelled.State, cancelled.Reason = delivery.Cancelled, st.reason
	return &cancelled
}

// plannedKeys are events of planned deliveries that ended, by the table that each is in, and the others.
type plannedKeys struct {
	byPeriod map[period][]event.Key
	others   []event.Key
}

func (p *plannedKeys) add(s *Store, st *standing) {
	at := plannedPeriod(st.Planned)
	if !s.periods.has(at) { // it was moved, or is being
		p.others = append(p.others, st.ID.Event)
		return
	}
	p.addFrom(at, st.ID.Event)
}

func (p *plannedKeys) addFrom(at period, key event.Key) {
	if p.byPeriod == nil {
		p.byPeriod = map[period][]event.Key{}
	}
	p.byPeriod[at] = append(p.byPeriod[at], key)
}

// releaseEvents and dropEvents are one after the other, so
// that of two transactions the second finds what the first left.
const (
	releaseEvents = `UPDATE @1 AS e SET refs = e.refs - u.n FROM unnest($1::bytea[], $2::integer[]) AS u (key, n) WHERE e.key = u.key`
	dropEvents    = `DELETE FROM @1 WHERE key = ANY($1) AND refs <= 0`
)

// queue copies the events into a period's table, and gives them up where they are.
func (p *plannedKeys) queue(s *Store, b *pgx.Batch, to period) {
	s.queueCopies(b, to, p.others)
	for _, from := range sortedPeriods(p.byPeriod) {
		keys := p.byPeriod[from]
		slices.SortFunc(keys, func(x, y event.Key) int { return bytes.Compare(x[:], y[:]) })
		var arguments [][]byte
		var counts []int32
		for i := range keys {
			if i > 0 && keys[i] == keys[i-1] {
				counts[len(counts)-1]++
				continue
			}
			arguments, counts = append(arguments, keys[i][:]), append(counts, 1)
		}
		if from != to {
			b.Queue(s.sql(copyEvents, to.table(), from.table()), arguments)
		}
		if from.kind == kindPlannedEvents {
			b.Queue(s.sql(releaseEvents, from.table()), arguments, counts)
			b.Queue(s.sql(dropEvents, from.table()), arguments)
		}
	}
}

const savePlanned = `INSERT INTO eventflow.pending (sub, due, event, tenant, since, attempts, before, ord, size, history, log, replay_of, planned, plan_key)
SELECT sub, due, event, tenant, since, attempts, before, 0, size, $10, log, replay_of, planned, plan_key
FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::integer[], $7::integer[], $8::integer[], $9::bytea[], $11::bytea[], $12::bigint[], $13::bytea[])
AS u (sub, due, event, tenant, since, attempts, before, size, log, replay_of, planned, plan_key)`

// queuePlanned stores planned deliveries as pending. history is unset while they are as their schedules planned them.
func queuePlanned(s *Store, b *pgx.Batch, all []*standing, history bool) {
	if len(all) == 0 {
		return
	}
	var subs, events, logs, replays, keys [][]byte
	var dues, tenants, sinces, planned []int64
	var attempts, befores, sizes []int32
	for _, st := range all {
		subs, events = append(subs, st.ID.Subscription[:]), append(events, st.ID.Event[:])
		var log []byte
		if history {
			log = encodeAttempts(st.list)
		}
		logs, replays, keys = append(logs, log), append(replays, st.replayOf), append(keys, st.key)
		dues, tenants = append(dues, nanos(st.Due)), append(tenants, st.tenant)
		sinces, planned = append(sinces, nanos(st.Since)), append(planned, nanos(st.Planned))
		attempts, befores = append(attempts, int32(st.Attempts)), append(befores, int32(st.AttemptsBefore))
		sizes = append(sizes, int32(st.Size))
	}
	b.Queue(s.sql(savePlanned), subs, dues, events, tenants, sinces, attempts, befores, sizes, logs, history, replays, planned, keys)
}
