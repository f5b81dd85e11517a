package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// standing is where a delivery stands.
type standing struct {
	delivery.PendingDelivery
	state    delivery.State
	tenant   int64
	history  bool
	list     []delivery.Attempt
	replayOf []byte
	// key that a schedule planned it for; nil for none.
	key []byte
	// started says that an attempt may be in flight, late that it was when the delivery was cancelled for the reason.
	started, late bool
	reason        delivery.Reason
	// filed is the day in which it was then.
	filed int64
}

// recording is the work of one Record.
type recording struct {
	store    *Store
	outcomes []delivery.Outcome
	// standings are those of the deliveries that were taken out of pending, in the order of outcomes.
	standings map[event.DeliveryID]*standing
	order     []event.DeliveryID
	counts    changes
	now       int64
	// settles is set for the work of a Settle, which needs no lease and waits for the disk.
	settles bool
}

// recordTries is how often a transaction of outcomes is tried before Record fails.
const recordTries = 3

// Record writes outcomes without waiting for the disk.
func (s *Store) Record(ctx context.Context, outcomes []delivery.Outcome) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	_, err := s.recordAll(ctx, outcomes, false)
	return err
}

// recordAll tries the transaction of a Record or of a Settle, again where that may help. It returns what was taken.
func (s *Store) recordAll(ctx context.Context, outcomes []delivery.Outcome, settles bool) (map[event.DeliveryID]*standing, error) {
	if len(outcomes) == 0 {
		return nil, nil
	}
	for try := 1; ; try++ {
		r := &recording{store: s, outcomes: outcomes, now: s.latest(), settles: settles}
		err := r.try(ctx)
		switch {
		case err == nil:
			return r.standings, nil
		case ctx.Err() != nil || try == recordTries:
			return nil, fmt.Errorf("record outcomes: %w", explain(ctx, err))
		case errors.Is(err, errHourTurned):
		case code(err) == codeUndefinedTable:
			if _, seeErr := s.seePeriods(ctx); seeErr != nil {
				return nil, fmt.Errorf("record outcomes: %w", explain(ctx, errors.Join(err, seeErr)))
			}
		case isContention(err), isLost(err) && !errors.Is(err, context.DeadlineExceeded):
		default:
			return nil, fmt.Errorf("record outcomes: %w", explain(ctx, err))
		}
	}
}

func (r *recording) try(ctx context.Context) error {
	s := r.store
	delivered := period{kindDelivered, kindDelivered.bucket(r.now)}
	failed := period{kindFailed, kindFailed.bucket(r.now)}
	failedEvents := period{kindFailedEvents, failed.bucket}
	late := period{kindEvents, kindEvents.bucket(r.now)}
	details := period{kindDetails, failed.bucket}
	wanted := []period{delivered, failed, failedEvents, late}
	if r.detailed() {
		wanted = append(wanted, details)
	}
	if err := errors.Join(s.ensure(ctx, wanted...), r.seePlanned(ctx)); err != nil {
		return err
	}
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return err
	}
	defer conn.release()
	take := r.take
	if r.settles {
		take = r.takePulled
	}
	if err := take(conn); err != nil {
		return err
	}
	if err := r.apply(); err != nil {
		return err
	}
	b := &pgx.Batch{}
	if rows := r.details(); len(rows.events) > 0 {
		if !s.periods.has(details) {
			conn.release()
			return errors.Join(s.ensure(ctx, details), errHourTurned)
		}
		rows.queue(s, b, details)
	}
	r.queueFinished(b, delivered, failed)
	r.queueEvents(b, late, failedEvents)
	r.queuePending(b)
	r.counts.queue(s, b)
	b.Queue("commit")
	return conn.send(b)
}

// fence are the leases that an outcome may rely on. They stay as they are until the transaction ends.
const fence = `WITH fence AS (SELECT shard, epoch FROM eventflow.leases WHERE owner = $1 AND shard = ANY($2::integer[]) FOR SHARE)
DELETE FROM eventflow.pending AS p
USING unnest($2::integer[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[]) AS u (shard, epoch, sub, event, due), fence AS f
WHERE f.shard = u.shard AND f.epoch = u.epoch AND p.sub = u.sub AND p.event = u.event AND `

const takenColumns = ` RETURNING p.sub, p.due, p.event, p.since, p.attempts, p.before, p.ord, p.size, p.tenant, p.history, p.log, p.replay_of, coalesce(p.planned, 0), p.plan_key, coalesce(p.started, false)`

const (
	// takeDue takes deliveries out of pending where they are expected.
	takeDue = fence + `p.due = u.due` + takenColumns
	// takeFresh and takeRetried take them where they may be else.
	takeFresh   = fence + `p.due = u.due AND NOT p.history` + takenColumns
	takeRetried = fence + `p.history` + takenColumns
)

// taking are the arguments of these.
type taking struct {
	shards       []int32
	epochs, dues []int64
	subs, events [][]byte
}

func (t *taking) add(o *delivery.Outcome, due int64) {
	id := &o.Delivery.ID
	t.shards, t.epochs = append(t.shards, int32(delivery.ShardOf(id.Subscription))), append(t.epochs, o.Epoch)
	t.subs, t.events, t.dues = append(t.subs, id.Subscription[:]), append(t.events, id.Event[:]), append(t.dues, due)
}

func (t *taking) arguments(owner string) []any {
	return []any{owner, t.shards, t.epochs, t.subs, t.events, t.dues}
}

// take begins the transaction, and takes the deliveries out of pending.
func (r *recording) take(conn *connection) error {
	s := r.store
	r.standings = make(map[event.DeliveryID]*standing, len(r.outcomes))
	asked := make(map[event.DeliveryID]struct{}, len(r.outcomes))
	var t taking
	for i := range r.outcomes {
		o := &r.outcomes[i]
		if _, again := asked[o.Delivery.ID]; !again {
			asked[o.Delivery.ID] = struct{}{}
			t.add(o, nanos(o.Delivery.Due))
		}
	}
	if r.detailed() {
		t.sort()
	}
	b := &pgx.Batch{}
	s.begin(b, settingsLazy)
	b.Queue(s.sql(takeDue), t.arguments(s.options.Identity)...)
	if err := conn.send(b, afterBegin(r.read)...); err != nil || len(r.standings) == len(asked) {
		return err
	}
	return r.takeElsewhere(conn)
}

// takeElsewhere looks for deliveries that were put elsewhere since they were taken up.
func (r *recording) takeElsewhere(conn *connection) error {
	var t taking
	for i := range r.outcomes {
		if o := &r.outcomes[i]; r.standings[o.Delivery.ID] == nil {
			t.add(o, accepted(o.Delivery.ID.Event))
		}
	}
	b := &pgx.Batch{}
	arguments := t.arguments(r.store.options.Identity)
	b.Queue(r.store.sql(takeFresh), arguments...)
	b.Queue(r.store.sql(takeRetried), arguments...)
	both := []func(pgx.BatchResults) error{r.read, r.read}
	if err := conn.send(b, both...); err != nil || !r.detailed() {
		return err
	}
	return r.takeLate(conn)
}

func (r *recording) read(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	return readStandings(rows, func(st *standing) { r.standings[st.ID] = st })
}

// readStandings calls yield for each row of takenColumns.
func readStandings(rows pgx.Rows, yield func(*standing)) error {
	var p rowOfPending
	var sub, log, replayOf, key []byte
	var st standing
	_, err := pgx.ForEachRow(rows, []any{
		&sub, &p.due, &p.event, &p.since, &p.attempts, &p.before, &p.order, &p.size, &st.tenant, &st.history, &log, &replayOf,
		&p.planned, &key, &st.started,
	}, func() error {
		of, err := decodeSubscription(sub)
		if err != nil {
			return err
		}
		one := standing{
			state: delivery.Pending, tenant: st.tenant, history: st.history, replayOf: bytes.Clone(replayOf),
			key: bytes.Clone(key), started: st.started,
		}
		if one.PendingDelivery, err = p.delivery(of); err != nil {
			return err
		}
		one.list, err = decodeAttempts(log)
		yield(&one)
		return err
	})
	return err
}

// apply lets the outcomes happen to the standings, one after the other.
func (r *recording) apply() error {
	seen := make(map[event.DeliveryID]struct{}, len(r.standings))
	for i := range r.outcomes {
		o := &r.outcomes[i]
		st := r.standings[o.Delivery.ID]
		if st == nil || st.state != delivery.Pending {
			continue
		}
		if st.late {
			o = r.afterCancel(st, o)
		}
		if o.State < delivery.Pending || o.State > delivery.Cancelled {
			return fmt.Errorf("%w: state %d does not follow an attempt", errUsage, o.State)
		}
		if _, again := seen[st.ID]; !again {
			seen[st.ID] = struct{}{}
			r.order = append(r.order, st.ID)
		}
		before := st.Attempts
		if st.late {
			before = 0 // it is not among those that are retried any more
		}
		if o.Attempt != nil {
			st.Attempts = max(st.Attempts+1, o.Attempt.Number)
			st.list = appendNewest(st.list, *o.Attempt)
		}
		st.state, st.reason = o.State, o.Reason
		if o.State == delivery.Pending {
			st.Due, st.history = o.Due, true
		}
		r.counts.record(o, before, st.Attempts, r.now)
	}
	return nil
}

const (
	insertDelivered = `INSERT INTO @1 (tenant, event, sub, attempts, log, replay_of)
SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::integer[], $5::bytea[], $6::bytea[]) ON CONFLICT DO NOTHING`

	insertFailed = `INSERT INTO @1 (tenant, event, sub, attempts, log, replay_of, state)
SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::integer[], $5::bytea[], $6::bytea[], $7::smallint[]) ON CONFLICT DO NOTHING`
)

// finishedRows are rows of finished deliveries.
type finishedRows struct {
	tenants                     []int64
	events, subs, logs, replays [][]byte
	attempts                    []int32
	states                      []int16
}

func (f *finishedRows) add(st *standing) {
	f.tenants, f.attempts = append(f.tenants, st.tenant), append(f.attempts, int32(st.Attempts))
	f.events, f.subs = append(f.events, st.ID.Event[:]), append(f.subs, st.ID.Subscription[:])
	f.logs, f.replays, f.states = append(f.logs, encodeAttempts(st.list)), append(f.replays, st.replayOf), append(f.states, int16(st.state))
}

// queueFinished files deliveries under the time they finished.
func (r *recording) queueFinished(b *pgx.Batch, delivered, failed period) {
	var arrived, lost finishedRows
	for _, id := range r.order {
		switch st := r.standings[id]; st.state {
		case delivery.Pending:
		case delivery.Delivered:
			arrived.add(st)
		case delivery.Failed, delivery.Cancelled:
			lost.add(st)
		}
	}
	if f := &arrived; len(f.events) > 0 {
		b.Queue(r.store.sql(insertDelivered, delivered.table()), f.tenants, f.events, f.subs, f.attempts, f.logs, f.replays)
	}
	if f := &lost; len(f.events) > 0 {
		b.Queue(r.store.sql(insertFailed, failed.table()), f.tenants, f.events, f.subs, f.attempts, f.logs, f.replays, f.states)
	}
}

// queueEvents copies the events that would be dropped before a delivery that finished.
func (r *recording) queueEvents(b *pgx.Batch, late, failed period) {
	var lateKeys, failedKeys []event.Key
	var latePlanned, failedPlanned plannedKeys
	for _, id := range r.order {
		switch st := r.standings[id]; {
		case st.late && st.state == delivery.Delivered:
			latePlanned.addFrom(period{kindFailedEvents, st.filed}, id.Event)
		case st.late:
			failedPlanned.addFrom(period{kindFailedEvents, st.filed}, id.Event)
		case (st.state == delivery.Failed || st.state == delivery.Cancelled) && !st.Planned.IsZero():
			failedPlanned.add(r.store, st)
		case st.state == delivery.Failed || st.state == delivery.Cancelled:
			failedKeys = append(failedKeys, id.Event)
		case st.state == delivery.Delivered && !st.Planned.IsZero():
			latePlanned.add(r.store, st)
		case st.state == delivery.Delivered && kindEvents.bucket(accepted(id.Event))+1 < late.bucket:
			lateKeys = append(lateKeys, id.Event) // an event's table is kept for an hour longer
		}
	}
	r.store.queueCopies(b, late, lateKeys)
	r.store.queueCopies(b, failed, failedKeys)
	latePlanned.queue(r.store, b, late)
	failedPlanned.queue(r.store, b, failed)
}

// queueCopies copies events into a period's table, from wherever they may be.
func (s *Store) queueCopies(b *pgx.Batch, to period, keys []event.Key) {
	if len(keys) == 0 {
		return
	}
	slices.SortFunc(keys, func(x, y event.Key) int { return bytes.Compare(x[:], y[:]) })
	keys = slices.Compact(keys)
	arguments := make([][]byte, len(keys))
	for i := range keys {
		arguments[i] = keys[i][:]
	}
	all := s.periods.list()
	for _, bucket := range all.from(kindEvents, kindEvents.bucket(accepted(keys[0]))) {
		if from := (period{kindEvents, bucket}); from != to {
			b.Queue(s.sql(copyEvents, to.table(), from.table()), arguments)
		}
	}
}

const copyEvents = `INSERT INTO @1 (key, namespace, id, type, traceparent, body)
SELECT key, namespace, id, type, traceparent, body FROM @2 WHERE key = ANY($1) ORDER BY key ON CONFLICT DO NOTHING`

const insertPending = `INSERT INTO eventflow.pending (sub, due, event, tenant, since, attempts, before, ord, size, history, log, replay_of)
SELECT sub, due, event, tenant, since, attempts, before, ord, size, true, log, replay_of
FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::integer[], $7::integer[], $8::bigint[], $9::integer[], $10::bytea[], $11::bytea[])
AS u (sub, due, event, tenant, since, attempts, before, ord, size, log, replay_of)`

// queuePending puts the deliveries back that are to be attempted again.
func (r *recording) queuePending(b *pgx.Batch) {
	var again []*standing
	for _, id := range r.order {
		if st := r.standings[id]; st.state == delivery.Pending {
			again = append(again, st)
		}
	}
	queueStandings(r.store, b, again)
}

// queueStandings stores deliveries as pending. Those that were planned have more columns.
func queueStandings(s *Store, b *pgx.Batch, all []*standing) {
	isPlanned := func(st *standing) bool { return !st.Planned.IsZero() }
	if !slices.ContainsFunc(all, isPlanned) {
		queuePlain(s, b, all)
		return
	}
	var plain, planned []*standing
	for _, st := range all {
		if isPlanned(st) {
			planned = append(planned, st)
		} else {
			plain = append(plain, st)
		}
	}
	queuePlain(s, b, plain)
	queuePlanned(s, b, planned, true)
}

func queuePlain(s *Store, b *pgx.Batch, all []*standing) {
	if len(all) == 0 {
		return
	}
	var subs, events, logs, replays [][]byte
	var dues, tenants, sinces, orders []int64
	var attempts, befores, sizes []int32
	for _, st := range all {
		subs, events = append(subs, st.ID.Subscription[:]), append(events, st.ID.Event[:])
		logs, replays = append(logs, encodeAttempts(st.list)), append(replays, st.replayOf)
		dues, tenants = append(dues, nanos(st.Due)), append(tenants, st.tenant)
		sinces, orders = append(sinces, nanos(st.Since)), append(orders, int64(st.Order))
		attempts, befores = append(attempts, int32(st.Attempts)), append(befores, int32(st.AttemptsBefore))
		sizes = append(sizes, int32(st.Size))
	}
	b.Queue(s.sql(insertPending), subs, dues, events, tenants, sinces, attempts, befores, orders, sizes, logs, replays)
}
