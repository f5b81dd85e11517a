package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// entryOf is a delivery as its row tells, without its event.
type entryOf struct {
	id       event.DeliveryID
	state    delivery.State
	attempts int
	list     []delivery.Attempt
	due      int64
	replayOf []byte
	// bucket that it is filed in, if it has finished.
	bucket  int64
	planned int64  // 0 if it was not
	key     []byte // that it was planned for, if it has finished
	name    string // of its subscription
	reason  string
}

// entryColumns are what readEntries reads; where a table has none of them, another expression stands in.
const (
	pendingEntry   = `event, sub, 1::smallint AS state, attempts, %s AS log, due, replay_of, 0::bigint AS bucket, coalesce(planned, 0) AS planned`
	deliveredEntry = `event, sub, 2::smallint AS state, attempts, %s AS log, 0::bigint AS due, replay_of, %d::bigint AS bucket, 0::bigint AS planned`
	failedEntry    = `event, sub, state, attempts, %s AS log, 0::bigint AS due, replay_of, %d::bigint AS bucket, 0::bigint AS planned`
)

func readEntries(rows pgx.Rows) ([]entryOf, error) {
	var all []entryOf
	var key, sub, log, replayOf []byte
	var state int16
	var e entryOf
	_, err := pgx.ForEachRow(rows, []any{&key, &sub, &state, &e.attempts, &log, &e.due, &replayOf, &e.bucket, &e.planned, &e.name}, func() error {
		one := entryOf{state: delivery.State(state), attempts: e.attempts, due: e.due, bucket: e.bucket, planned: e.planned, name: e.name, replayOf: bytes.Clone(replayOf)}
		var errs [3]error
		one.id.Event, errs[0] = decodeKey(key)
		one.id.Subscription, errs[1] = decodeSubscription(sub)
		one.list, errs[2] = decodeAttempts(log)
		all = append(all, one)
		return errors.Join(errs[:]...)
	})
	return all, err
}

// statement is one that is put together of parts and their arguments.
type statement struct {
	text      strings.Builder
	arguments []any
	branches  int
}

// argument adds an argument and returns its name.
func (q *statement) argument(value any) string {
	q.arguments = append(q.arguments, value)
	return fmt.Sprintf("$%d", len(q.arguments))
}

// union begins another branch.
func (q *statement) union(format string, arguments ...any) {
	if q.branches > 0 {
		q.text.WriteString("\nUNION ALL ")
	}
	q.branches++
	fmt.Fprintf(&q.text, format, arguments...)
}

// find looks for a delivery of the namespace in every place that it may be.
func (s *Store) find(ctx context.Context, conn *pgx.Conn, all live, namespace string, id event.DeliveryID) (entryOf, error) {
	var q statement
	schema := s.options.Schema
	tenant, key, sub := q.argument(tenantOf(namespace)), q.argument(id.Event[:]), q.argument(id.Subscription[:])
	at := accepted(id.Event)
	if at < 0 {
		return entryOf{}, store.ErrNotFound
	}
	pending := fmt.Sprintf(pendingEntry, "log")
	q.union("SELECT %s FROM %s.pending WHERE sub = %s AND event = %s AND history AND tenant = %s", pending, schema, sub, key, tenant)
	q.union("SELECT %s FROM %s.pending WHERE sub = %s AND event = %s AND due = %s AND NOT history AND planned IS NULL AND tenant = %s", pending, schema, sub, key, q.argument(at), tenant)
	q.union("SELECT %s FROM %s.pending WHERE sub = %s AND event = %s AND NOT history AND planned IS NOT NULL AND tenant = %s", pending, schema, sub, key, tenant)
	const here = "SELECT %s FROM %s.%s WHERE tenant = %s AND event = %s AND sub = %s"
	for _, bucket := range all.from(kindDelivered, kindDelivered.bucket(at)) {
		q.union(here, fmt.Sprintf(deliveredEntry, "log", bucket), schema, kindDelivered.table(bucket), tenant, key, sub)
	}
	for _, bucket := range all.from(kindFailed, kindFailed.bucket(at)) {
		q.union(here, fmt.Sprintf(failedEntry, "log", bucket), schema, kindFailed.table(bucket), tenant, key, sub)
	}
	text := fmt.Sprintf("SELECT d.*, s.name FROM (%s) AS d JOIN %s.subscriptions AS s ON s.sub = d.sub AND s.namespace = %s",
		q.text.String(), schema, q.argument(namespace))
	rows, err := conn.Query(ctx, text, q.arguments...)
	if err != nil {
		return entryOf{}, err
	}
	found, err := readEntries(rows)
	if err != nil {
		return entryOf{}, err
	}
	if len(found) == 0 {
		return entryOf{}, store.ErrNotFound
	}
	return found[0], s.readDetails(ctx, conn, all, found[:1])
}

// eventOf returns the event of a delivery of the namespace.
func (s *Store) eventOf(ctx context.Context, conn *pgx.Conn, all live, namespace string, of *entryOf, body bool) (*delivery.Event, error) {
	wanted := wantedEvents{}
	wanted.add(of.id.Event, of.place())
	found, err := s.findEvents(ctx, conn, all, wanted, body)
	if err != nil {
		return nil, err
	}
	e := found[of.id.Event]
	if e == nil || e.Tenant != namespace {
		return nil, store.ErrNotFound
	}
	return e, nil
}

// place is where the delivery's event is looked for first.
func (e *entryOf) place() place {
	if e.state == delivery.Failed || e.state == delivery.Cancelled {
		return place{failed: &e.bucket}
	}
	if e.state == delivery.Delivered && e.planned != 0 {
		return place{hour: &e.bucket}
	}
	return place{planned: plannedTime(e.planned)}
}

// record tells all of a delivery.
func (e *entryOf) record(of *delivery.Event) (store.Record, error) {
	replayOf, err := decodeID(e.replayOf)
	r := store.Record{
		ID: e.id, EventID: of.ID, Type: of.Type, Tenant: of.Tenant, Subscription: e.name, State: e.state,
		Created: e.id.Event.Accepted(), AttemptCount: e.attempts, Attempts: e.list, ReplayOf: replayOf,
		Planned: plannedTime(e.planned), Reason: delivery.Reason(e.reason),
	}
	if e.state == delivery.Pending {
		r.Due = moment(e.due)
	}
	return r, err
}

// Get returns the delivery with its attempts.
func (s *Store) Get(ctx context.Context, namespace string, id event.DeliveryID) (store.Record, error) {
	if err := s.enter(ctx); err != nil {
		return store.Record{}, err
	}
	defer s.leave()
	var r store.Record
	err := s.view(ctx, func(ctx context.Context, conn *pgx.Conn, all live) error {
		found, err := s.find(ctx, conn, all, namespace, id)
		if err != nil {
			return err
		}
		e, err := s.eventOf(ctx, conn, all, namespace, &found, false)
		if err != nil {
			return err
		}
		r, err = found.record(e)
		return err
	})
	return r, err
}

// List merges the tables that the query touches.
func (s *Store) List(ctx context.Context, q store.Query) ([]store.Record, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	var records []store.Record
	err := s.view(ctx, func(ctx context.Context, conn *pgx.Conn, all live) (err error) {
		records, err = s.list(ctx, conn, all, &q)
		return err
	})
	return records, err
}

func (s *Store) list(ctx context.Context, conn *pgx.Conn, all live, q *store.Query) ([]store.Record, error) {
	subs, err := s.subscriptionsOf(ctx, conn, q)
	if err != nil || len(subs) == 0 {
		return nil, err
	}
	keys, err := s.eventsOfKey(ctx, conn, all, q, subs)
	if err != nil {
		return nil, err
	}
	text, arguments := s.listStatement(all, q, subs, keys)
	if text == "" {
		return nil, nil
	}
	rows, err := conn.Query(ctx, text, arguments...)
	if err != nil {
		return nil, err
	}
	entries, err := readEntries(rows)
	if err != nil {
		return nil, err
	}
	if err := s.readDetails(ctx, conn, all, entries); err != nil {
		return nil, err
	}
	wanted := wantedEvents{}
	for i := range entries {
		wanted.add(entries[i].id.Event, entries[i].place())
	}
	events, err := s.findEvents(ctx, conn, all, wanted, false)
	if err != nil {
		return nil, err
	}
	var records []store.Record
	for i := range entries {
		e := events[entries[i].id.Event]
		if e == nil || e.Tenant != q.Tenant {
			continue
		}
		r, err := entries[i].record(e)
		if err != nil {
			return nil, err
		}
		r.Attempts = r.Listed(q.LastAttempt)
		records = append(records, r)
	}
	return records, nil
}

// subscriptionsOf returns the keys of the subscriptions that the query asks for.
func (s *Store) subscriptionsOf(ctx context.Context, conn *pgx.Conn, q *store.Query) ([][]byte, error) {
	rows, err := conn.Query(ctx, s.sql(`SELECT sub FROM eventflow.subscriptions WHERE namespace = $1 AND ($2 = '' OR name = $2)`), q.Tenant, q.Subscription)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[[]byte])
}

// listStatement selects the newest deliveries of each table, and the newest of these. keys are the events of the finished
// deliveries that the query's key had.
func (s *Store) listStatement(all live, query *store.Query, subs, keys [][]byte) (string, []any) {
	var q statement
	schema := s.options.Schema
	since, below := nanos(query.Since), below(query)
	tenant, limit := q.argument(tenantOf(query.Tenant)), q.argument(query.Limit)
	from, to, toSub := q.argument(keyBytes(since)), q.argument(below.Event[:]), q.argument(below.Subscription[:])
	where := fmt.Sprintf("event >= %s AND (event, sub) < (%s, %s)", from, to, toSub)
	newest := fmt.Sprintf("ORDER BY event DESC, sub DESC LIMIT %s", limit)
	if query.State == 0 || query.State == delivery.Pending {
		s.listPending(&q, query, subs, fmt.Sprintf("tenant = %s AND %s", tenant, where), limit)
	}
	where = fmt.Sprintf("tenant = %s AND %s", tenant, where)
	finished := !query.Scheduled && query.State != delivery.Pending && (query.Key.IsZero() || len(keys) > 0)
	if finished && query.Subscription != "" {
		where += fmt.Sprintf(" AND sub = ANY(%s)", q.argument(subs))
	}
	if finished && !query.Key.IsZero() {
		where += fmt.Sprintf(" AND event = ANY(%s)", q.argument(keys))
	}
	if finished && (query.State == 0 || query.State == delivery.Delivered) {
		for _, bucket := range all.from(kindDelivered, kindDelivered.bucket(since)) {
			q.union("(SELECT %s FROM %s.%s WHERE %s %s)", fmt.Sprintf(deliveredEntry, logOf(query), bucket), schema, kindDelivered.table(bucket), where, newest)
		}
	}
	if finished && (query.State == 0 || query.State == delivery.Failed || query.State == delivery.Cancelled) {
		if query.State != 0 {
			where += fmt.Sprintf(" AND state = %d", query.State)
		}
		for _, bucket := range all.from(kindFailed, kindFailed.bucket(since)) {
			q.union("(SELECT %s FROM %s.%s WHERE %s %s)", fmt.Sprintf(failedEntry, logOf(query), bucket), schema, kindFailed.table(bucket), where, newest)
		}
	}
	if q.branches == 0 {
		return "", nil
	}
	text := fmt.Sprintf("SELECT d.*, s.name FROM (SELECT * FROM (%s) AS a %s) AS d JOIN %s.subscriptions AS s ON s.sub = d.sub AND s.namespace = %s ORDER BY d.event DESC, d.sub DESC",
		q.text.String(), newest, schema, q.argument(query.Tenant))
	return text, q.arguments
}

// logOf is the expression that stands for a delivery's attempts in a list.
func logOf(q *store.Query) string {
	if q.LastAttempt {
		return "log"
	}
	return "NULL::bytea"
}

// aheadOfClock is by how much an acceptance may be after the present, as List takes it.
const aheadOfClock = int64(time.Minute)

// listPending adds the branches that select pending deliveries: those that were put elsewhere, those that are due when
// their event was accepted, and those that are planned. Each has an index in the order that is asked for.
func (s *Store) listPending(q *statement, query *store.Query, subs [][]byte, where, limit string) {
	entry, keys := fmt.Sprintf(pendingEntry, logOf(query)), q.argument(subs)
	branch := func(condition, order string) {
		q.union(`(SELECT l.* FROM unnest(%s::bytea[]) AS u (one), LATERAL (SELECT %s FROM %s.pending WHERE sub = u.one AND %s AND %s ORDER BY %s LIMIT %s) AS l)`,
			keys, entry, s.options.Schema, condition, where, order, limit)
	}
	if !query.Key.IsZero() {
		condition := "plan_key = " + q.argument(query.Key[:])
		if query.Scheduled {
			condition += " AND NOT history AND planned > " + q.argument(s.now())
		}
		branch(condition, "event DESC")
		return
	}
	if query.Scheduled {
		branch("planned IS NOT NULL AND NOT history AND planned > "+q.argument(s.now()), "event DESC")
		return
	}
	branch("history", "event DESC")
	latest := min(accepted(below(query).Event), s.latest()+aheadOfClock)
	branch("NOT history AND planned IS NULL AND due <= "+q.argument(latest), "due DESC, event DESC")
	branch("planned IS NOT NULL AND NOT history", "event DESC")
}

// below is the smallest id that is too new.
func below(q *store.Query) event.DeliveryID {
	below := event.DeliveryID{Event: keyAt(math.MaxInt64)}
	if !q.Until.IsZero() {
		below.Event = keyAt(nanos(q.Until))
	}
	if before := q.Before; before != (event.DeliveryID{}) && compareIDs(before, below) < 0 {
		below = before
	}
	return below
}

func compareIDs(a, b event.DeliveryID) int {
	if c := bytes.Compare(a.Event[:], b.Event[:]); c != 0 {
		return c
	}
	return bytes.Compare(a.Subscription[:], b.Subscription[:])
}

func keyBytes(ns int64) []byte {
	key := keyAt(ns)
	return key[:]
}
