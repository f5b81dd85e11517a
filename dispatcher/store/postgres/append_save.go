package postgres

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	undoIDs = `DELETE FROM @1 WHERE id = ANY($1)`

	saveEvents = `INSERT INTO @1 (key, namespace, id, type, traceparent, body)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[])`

	savePlannedEvents = `INSERT INTO @1 (key, namespace, id, type, traceparent, body, refs)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::integer[])`

	savePending = `INSERT INTO eventflow.pending (sub, due, event, tenant, since, attempts, before, ord, size, history)
SELECT sub, due, event, tenant, since, 0, 0, ord, size, history
FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::integer[], $8::boolean[])
AS u (sub, due, event, tenant, since, ord, size, history)`

	saveSubscriptions = `INSERT INTO eventflow.subscriptions AS o (sub, namespace, name)
SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[])
ON CONFLICT (sub, namespace) DO UPDATE SET name = excluded.name WHERE o.name <> excluded.name`

	saveNotices = `INSERT INTO eventflow.notices (shard, sub, due) SELECT * FROM unnest($1::integer[], $2::bytea[], $3::bigint[])`
)

// The bounds of what is sent to the database at once: a transaction of any size is held in parts of these. One event may
// go over them.
const (
	partRows  = 4096
	partBytes = 1 << 20
)

// parts sends the statements of a transaction, some at a time.
type parts struct {
	conn  *connection
	batch *pgx.Batch
	bytes int // of bodies in batch
}

// flush sends what is queued.
func (p *parts) flush() error {
	b := p.batch
	p.batch, p.bytes = &pgx.Batch{}, 0
	return p.conn.send(b)
}

// save stores the events and ends the transaction.
func (w *writing) save(conn *connection, ids string, undo [][16]byte, hours []int64) error {
	s := w.store
	p := &parts{conn: conn, batch: &pgx.Batch{}}
	if len(undo) > 0 {
		p.batch.Queue(s.sql(undoIDs, ids), undo)
	}
	for _, hour := range hours {
		if err := w.saveEvents(p, hour); err != nil {
			return err
		}
	}
	if err := w.saveDeliveries(p); err != nil {
		return err
	}
	if w.scheduled {
		if err := w.planning.save(w, p); err != nil {
			return err
		}
	}
	unknown := s.known.unknown(w.entries, w.planning)
	if err := s.saveSubscriptions(p, unknown); err != nil {
		return err
	}
	p.batch.Queue("commit")
	for _, e := range w.entries {
		if e.at != 0 && !e.stored {
			e.tried = append(e.tried, e.at)
		}
	}
	if err := p.flush(); err != nil {
		return err
	}
	s.known.add(unknown)
	return nil
}

// saveSubscriptions stores names, in an order that all transactions share.
func (s *Store) saveSubscriptions(p *parts, subs []*delivery.Subscription) error {
	slices.SortFunc(subs, func(x, y *delivery.Subscription) int {
		return cmp.Or(bytes.Compare(x.Key[:], y.Key[:]), cmp.Compare(x.Tenant, y.Tenant))
	})
	for part := range slices.Chunk(subs, partRows) {
		if len(part) == partRows {
			if err := p.flush(); err != nil {
				return err
			}
		}
		var keys [][]byte
		var namespaces, names []string
		for _, sub := range part {
			keys, namespaces, names = append(keys, sub.Key[:]), append(namespaces, sub.Tenant), append(names, sub.Name)
		}
		p.batch.Queue(s.sql(saveSubscriptions), keys, namespaces, names)
	}
	return nil
}

// saveEvents stores the events of an hour that are due at once.
func (w *writing) saveEvents(p *parts, hour int64) error {
	var entries []*entry
	for _, e := range w.entries {
		if e.at != 0 && !e.stored && kindEvents.bucket(e.at) == hour && len(e.event().Subscriptions) > 0 {
			entries = append(entries, e)
		}
	}
	return w.saveEntries(p, period{kindEvents, hour}, entries, nil)
}

// saveEntries stores the events of the entries in a period's table. refs is how many planned deliveries of each have their
// event there; only the tables of planned events keep it.
func (w *writing) saveEntries(p *parts, into period, entries []*entry, refs map[*entry]int32) error {
	var counts []int32
	var keys, bodies [][]byte
	var namespaces, ids, types, traces []string
	queue := func() {
		if len(keys) > 0 && into.kind == kindPlannedEvents {
			p.batch.Queue(w.store.sql(savePlannedEvents, into.table()), keys, namespaces, ids, types, traces, bodies, counts)
		} else if len(keys) > 0 {
			p.batch.Queue(w.store.sql(saveEvents, into.table()), keys, namespaces, ids, types, traces, bodies)
		}
		keys, bodies, namespaces, ids, types, traces, counts = nil, nil, nil, nil, nil, nil, nil
	}
	for _, e := range entries {
		ev := e.event()
		if p.bytes > 0 && p.bytes+len(ev.Event.Body) > partBytes {
			queue()
			if err := p.flush(); err != nil {
				return err
			}
		}
		p.bytes += len(ev.Event.Body)
		keys, bodies = append(keys, e.key[:]), append(bodies, encodeBody(ev.Event))
		namespaces, ids = append(namespaces, ev.Event.Tenant), append(ids, ev.Event.ID)
		types, traces = append(types, string(ev.Event.Type)), append(traces, ev.Event.Traceparent)
		counts = append(counts, refs[e])
	}
	queue()
	return nil
}

// saveDeliveries stores the new deliveries, and leaves the notices that others need of them.
func (w *writing) saveDeliveries(p *parts) error {
	rows := &pendingRows{quiet: map[int]int64{}}
	w.quiet = rows.quiet
	var before []*delivery.Subscription
	for _, e := range w.entries {
		if e.at == 0 || e.stored {
			continue
		}
		subs, due := e.event().Subscriptions, w.due(e)
		noticed := store.SameSubscriptions(subs, before) // those of an event before, which is due before
		before = subs
		for _, sub := range subs {
			rows.add(e, sub, due)
			if !noticed {
				rows.notify(w.store, sub.Key, due)
			}
			if len(rows.subs) == partRows {
				rows.queue(w.store, p.batch)
				if err := p.flush(); err != nil {
					return err
				}
				rows.clear()
			}
		}
	}
	rows.queue(w.store, p.batch)
	rows.queueNotices(w.store, p.batch)
	return nil
}

// due is when the entry's deliveries are.
func (w *writing) due(e *entry) int64 {
	if e.at > w.now+maxSkew {
		return w.now // The clock was set back. It would come to the time of acceptance late, and the delivery with it.
	}
	return e.at
}

// answer hands the fan-outs to the calls, once they are durable.
func (w *writing) answer() {
	for _, e := range w.entries {
		if e.at == 0 {
			continue
		}
		ev := e.event()
		ev.Event.Key = e.key
		w.store.clock.accept(e.at)
		if len(ev.Subscriptions) > 0 {
			fresh := ev.Fanout
			fresh.Due = moment(w.due(e))
			e.call.fanouts = append(e.call.fanouts, fresh)
		}
	}
	w.store.ownership.recheck(w.store, w.quiet, w.subscriptions)
	if w.planning != nil {
		w.store.ownership.tellPlanned(w.planning.earliest())
	}
}

// subscriptions calls yield for each new delivery's.
func (w *writing) subscriptions(yield func(event.SubscriptionKey, int64)) {
	for _, e := range w.entries {
		if e.at == 0 {
			continue
		}
		for _, sub := range e.event().Subscriptions {
			yield(sub.Key, w.due(e))
		}
	}
	if w.planning != nil {
		for sub, due := range w.planning.earliest() {
			yield(sub, due)
		}
	}
}
