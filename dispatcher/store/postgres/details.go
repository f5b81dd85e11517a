package postgres

import (
	"bytes"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// detailRows are details of finished deliveries that are about to be stored.
type detailRows struct {
	tenants, planned   []*int64
	events, subs, keys [][]byte
	states             []int16
	reasons            []string
	open               []bool
}

const insertDetails = `INSERT INTO @1 AS o (tenant, event, sub, state, planned, plan_key, reason, open)
SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::smallint[], $5::bigint[], $6::bytea[], $7::text[], $8::boolean[])
ON CONFLICT (event, sub) DO UPDATE SET state = excluded.state, planned = excluded.planned, plan_key = excluded.plan_key, reason = excluded.reason, open = excluded.open`

// detailed reports whether there is something to be kept of the delivery, which has finished, beside its row.
func (st *standing) detailed() bool { return !st.Planned.IsZero() || st.reason != "" || st.key != nil }

// add adds what is known of the delivery. open says that an attempt is in flight.
func (d *detailRows) add(st *standing, open bool) {
	if !st.detailed() {
		return
	}
	var planned *int64
	if !st.Planned.IsZero() {
		ns := nanos(st.Planned)
		planned = &ns
	}
	d.tenants, d.planned = append(d.tenants, &st.tenant), append(d.planned, planned)
	d.events, d.subs, d.keys = append(d.events, st.ID.Event[:]), append(d.subs, st.ID.Subscription[:]), append(d.keys, st.key)
	d.states, d.reasons, d.open = append(d.states, int16(st.state)), append(d.reasons, string(st.reason)), append(d.open, open)
}

func (d *detailRows) queue(s *Store, b *pgx.Batch, into period) {
	if len(d.events) > 0 {
		b.Queue(s.sql(insertDetails, into.table()), d.tenants, d.events, d.subs, d.states, d.planned, d.keys, d.reasons, d.open)
	}
}

// detailsDay is the day of the details of a delivery that has finished.
func (e *entryOf) detailsDay() int64 {
	if e.state == delivery.Delivered {
		return kindDetails.bucket(e.bucket * hour)
	}
	return e.bucket
}

// readDetails fills in what is known of the finished deliveries among the entries beside their rows. It asks only where
// there are such tables.
func (s *Store) readDetails(ctx context.Context, conn *pgx.Conn, all live, entries []entryOf) error {
	if len(all[kindDetails]) == 0 {
		return nil
	}
	var q statement
	byDay, byID := map[int64][][]byte{}, map[event.DeliveryID]*entryOf{}
	for i := range entries {
		e := &entries[i]
		if e.state == delivery.Pending {
			continue
		}
		if day := e.detailsDay(); all.has(period{kindDetails, day}) {
			byDay[day], byID[e.id] = append(byDay[day], e.id.Event[:]), e
		}
	}
	for day, keys := range byDay {
		q.union("SELECT event, sub, coalesce(planned, 0), plan_key, reason FROM %s.%s WHERE event = ANY(%s)", s.options.Schema, kindDetails.table(day), q.argument(keys))
	}
	if q.branches == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, q.text.String(), q.arguments...)
	if err != nil {
		return err
	}
	var key, sub, planKey []byte
	var planned int64
	var reason string
	_, err = pgx.ForEachRow(rows, []any{&key, &sub, &planned, &planKey, &reason}, func() error {
		var id event.DeliveryID
		var err error
		if id.Event, err = decodeKey(key); err != nil {
			return err
		}
		if id.Subscription, err = decodeSubscription(sub); err != nil {
			return err
		}
		if e := byID[id]; e != nil {
			e.planned, e.key, e.reason = planned, bytes.Clone(planKey), reason
		}
		return nil
	})
	return err
}

// eventsOfKey returns the events of the finished deliveries that were planned for the query's key, the newest that it may
// select; none without a key.
func (s *Store) eventsOfKey(ctx context.Context, conn *pgx.Conn, all live, query *store.Query, subs [][]byte) ([][]byte, error) {
	if query.Key.IsZero() || query.Scheduled || query.State == delivery.Pending {
		return nil, nil
	}
	var q statement
	below := below(query)
	keys, key, limit := q.argument(subs), q.argument(query.Key[:]), q.argument(query.Limit)
	where := fmt.Sprintf("event >= %s AND (event, sub) < (%s, %s)",
		q.argument(keyBytes(nanos(query.Since))), q.argument(below.Event[:]), q.argument(below.Subscription[:]))
	if query.State != 0 {
		where += fmt.Sprintf(" AND state = %d", query.State)
	}
	for _, bucket := range all.from(kindDetails, kindDetails.bucket(nanos(query.Since))) {
		q.union("(SELECT event FROM %s.%s WHERE sub = ANY(%s) AND plan_key = %s AND %s ORDER BY event DESC LIMIT %s)",
			s.options.Schema, kindDetails.table(bucket), keys, key, where, limit)
	}
	if q.branches == 0 {
		return nil, nil
	}
	text := fmt.Sprintf("SELECT event FROM (%s) AS a ORDER BY event DESC LIMIT %s", q.text.String(), limit)
	rows, err := conn.Query(ctx, text, q.arguments...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[[]byte])
}
