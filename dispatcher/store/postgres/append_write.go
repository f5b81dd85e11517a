package postgres

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	// remembered is how long an accepted event's namespace and id are.
	remembered = day
	// maxSkew is how far acceptances may run ahead of the clock, after it was set back, before deliveries are given a
	// due time of their own.
	maxSkew = int64(50 * time.Millisecond)
	// aroundMidnight is how long before and after it appends go one at a time: one that stores its ids in the table of
	// the old day must be seen by those that store theirs in that of the new.
	aroundMidnight = int64(time.Minute)
)

// writing is the work of storing some calls, none of which shares an id with another.
type writing struct {
	store    *Store
	acceptor string
	calls    []*call
	entries  []*entry
	// first and now are the time of the first event and the present of the last try.
	first, now int64
	// quiet are the shards that this process owned when it stored something for them, with their leases' epochs: their
	// owner has no notice of it.
	quiet map[int]int64
	// scheduled is set if schedules decide on some of the events; planning is what they changed in the last try.
	scheduled bool
	planning  *planning
	// looked is set once the tables were looked up that others made for planned events.
	looked bool
}

// entry is one of the events: the first with its id in its call.
type entry struct {
	call  *call
	index int
	id    identity
	// before is the acceptance of an event with the id that came first; nil if this is the first.
	before *acceptance
	at     int64
	stored bool // by a try whose outcome was not known
	tried  []int64
	key    event.Key
}

// acceptance is what is remembered of an accepted event.
type acceptance struct {
	digest     [16]byte
	at         int64
	deliveries int
}

func (e *entry) event() *store.NewEvent { return &e.call.events[e.index] }

// deliveries is how many the event causes, as its producer is told.
func (e *entry) deliveries() int { return len(e.event().Subscriptions) + len(e.event().Plans) }

func newWriting(s *Store, acceptor string, calls []*call) *writing {
	w := &writing{store: s, acceptor: acceptor, calls: calls}
	for _, c := range calls {
		seen := make(map[identity]struct{}, len(c.ids))
		for i, id := range c.ids {
			if _, again := seen[id]; !again {
				seen[id] = struct{}{}
				w.entries = append(w.entries, &entry{call: c, index: i, id: id})
			}
		}
	}
	w.scheduled = w.plans()
	return w
}

// try does the work once.
func (w *writing) try(ctx context.Context) error {
	s := w.store
	now := s.latest()
	today := kindIDs.bucket(now)
	wanted := []period{{kindIDs, today}, {kindIDs, today - 1}, {kindEvents, kindEvents.bucket(now)}}
	if w.scheduled {
		wanted = append(wanted, w.planPeriods(now)...)
	}
	if err := s.ensure(ctx, wanted...); err != nil {
		return err
	}
	conn, err := s.acquireUntil(ctx, s.pool)
	if err != nil {
		return err
	}
	defer conn.release()
	into := now % day
	locked := into < aroundMidnight || day-into < aroundMidnight
	if locked {
		if today, err = w.lockDay(conn); err != nil {
			return err
		}
	}
	ids, yesterday := period{kindIDs, today}, period{kindIDs, today - 1}
	if !s.periods.has(ids) || !s.periods.has(yesterday) { // the day is another than it seemed to be
		conn.release()
		return errors.Join(s.ensure(ctx, ids, yesterday), errHourTurned)
	}
	if err := w.claim(conn, locked, ids.table(), yesterday.table()); err != nil {
		return err
	}
	undo := w.judge()
	hours, some := w.setKeys()
	if !some {
		return nil // nothing is new: the transaction is rolled back
	}
	for _, hour := range hours {
		if !s.periods.has(period{kindEvents, hour}) { // the hour turned since
			conn.release()
			return errors.Join(s.ensure(ctx, period{kindEvents, hour}), errHourTurned)
		}
	}
	if w.scheduled {
		if err := w.plan(ctx, conn, now); err != nil {
			return err
		}
	}
	return w.save(conn, ids.table(), undo, hours)
}

// errHourTurned makes the work be tried again.
var errHourTurned = errors.New("the hour turned")

const (
	lockMidnight = `SELECT id FROM eventflow.midnight WHERE id = 1 FOR UPDATE`

	// askTime does not go back from one who holds the lock to the next.
	askTime = `SELECT greatest(coalesce($1, ` + databaseNow + `), (SELECT coalesce(max(last), 0) FROM eventflow.acceptors))`

	claimTime = `INSERT INTO eventflow.acceptors (id, last)
SELECT $1, greatest(coalesce($2, ` + databaseNow + `), (SELECT coalesce(max(last), 0) FROM eventflow.acceptors) + 1) + $3 - 1
ON CONFLICT (id) DO UPDATE SET last = excluded.last
RETURNING last, coalesce($2, ` + databaseNow + `)`

	claimIDs = `INSERT INTO @1 AS o (id, digest, at, deliveries)
SELECT u.id, u.digest, (SELECT last FROM eventflow.acceptors WHERE id = $1) - $2 + u.n, u.deliveries
FROM unnest($3::uuid[], $4::uuid[], $5::integer[], $6::bigint[]) AS u (id, digest, deliveries, n)
WHERE NOT EXISTS (SELECT FROM @2 AS y WHERE y.id = u.id AND y.at > (SELECT coalesce($7, ` + databaseNow + `) - $8))
ORDER BY u.id
ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, at = excluded.at, deliveries = excluded.deliveries
WHERE o.at <= (SELECT coalesce($7, ` + databaseNow + `) - $8)
RETURNING id, at`

	recallIDs = `SELECT id, digest, at, deliveries FROM @1 WHERE id = ANY($1)
UNION ALL SELECT id, digest, at, deliveries FROM @2 WHERE id = ANY($1)`
)

// lockDay begins the transaction, and returns the day whose table ids are stored in. Until the transaction ends, nobody
// else stores ids: those that do so afterwards find the same day or the next, whatever their own clocks say.
func (w *writing) lockDay(conn *connection) (day int64, err error) {
	s := w.store
	b := &pgx.Batch{}
	s.begin(b, settingsDurable)
	b.Queue(s.sql(lockMidnight))
	b.Queue(s.sql(askTime), s.fixedNow())
	var ns int64
	err = conn.send(b, afterBegin(nil, func(r pgx.BatchResults) error { return r.QueryRow().Scan(&ns) })...)
	return kindIDs.bucket(ns), err
}

// claim begins the transaction, unless it has begun, takes the time of acceptance and the ids that are free, and finds out who has the
// others.
func (w *writing) claim(conn *connection, begun bool, ids, yesterday string) error {
	s := w.store
	n := len(w.entries)
	keys, digests := make([][16]byte, n), make([][16]byte, n)
	counts, numbers := make([]int32, n), make([]int64, n)
	byID := make(map[identity]*entry, n)
	for i, e := range w.entries {
		byID[e.id] = e
		e.before, e.at, e.stored = nil, 0, false
		keys[i], digests[i] = e.id, e.event().Digest
		counts[i], numbers[i] = int32(e.deliveries()), int64(i+1)
	}
	b := &pgx.Batch{}
	var readers []func(pgx.BatchResults) error
	if !begun {
		s.begin(b, settingsDurable)
		readers = afterBegin()
	}
	var last int64
	b.Queue(s.sql(claimTime), w.acceptor, s.fixedNow(), int64(n))
	b.Queue(s.sql(claimIDs, ids, yesterday), w.acceptor, int64(n), keys, digests, counts, numbers, s.fixedNow(), remembered)
	readers = append(readers,
		func(r pgx.BatchResults) error { return r.QueryRow().Scan(&last, &w.now) },
		func(r pgx.BatchResults) error {
			rows, err := r.Query()
			if err != nil {
				return err
			}
			var id [16]byte
			var at int64
			_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error { byID[id].at = at; return nil })
			return err
		})
	if err := conn.send(b, readers...); err != nil {
		return err
	}
	w.first, w.now = last-int64(n)+1, s.present(w.now)
	return w.recall(conn, s.sql(recallIDs, ids, yesterday), byID)
}

// recall reads the acceptances of the ids that were not free.
func (w *writing) recall(conn *connection, statement string, byID map[identity]*entry) error {
	var taken [][16]byte
	for _, e := range w.entries {
		if e.at == 0 {
			taken = append(taken, e.id)
		}
	}
	if len(taken) == 0 {
		return nil
	}
	rows, err := conn.Query(conn.ctx, statement, taken)
	if err != nil {
		return err
	}
	var id [16]byte
	var a acceptance
	_, err = pgx.ForEachRow(rows, []any{&id, &a.digest, &a.at, &a.deliveries}, func() error {
		e := byID[id]
		if e.before != nil && e.before.at > a.at {
			return nil
		}
		e.before = &acceptance{a.digest, a.at, a.deliveries}
		if slices.Contains(e.tried, a.at) && a.digest == e.event().Digest {
			e.at, e.stored = a.at, true // by this very call
		}
		return nil
	})
	return err
}

// judge answers the calls, as if what follows succeeded, and returns the ids that are to be given back: those that were
// taken for a call that conflicts.
func (w *writing) judge() (undo [][16]byte) {
	entries := w.entries
	for _, c := range w.calls {
		c.answers, c.fanouts, c.err = make([]store.Accepted, len(c.events)), nil, nil
		byIndex := make(map[identity]*entry, len(c.ids))
		n := 0
		for n < len(entries) && entries[n].call == c {
			byIndex[entries[n].id] = entries[n]
			n++
		}
		for i := range c.events {
			e := byIndex[c.ids[i]]
			if c.err = c.judge(e, i); c.err != nil {
				break
			}
		}
		if c.err != nil {
			c.answers = nil
			for _, e := range entries[:n] {
				if e.at != 0 && !e.stored {
					undo = append(undo, e.id)
				}
				e.at = 0
			}
		}
		entries = entries[n:]
	}
	return undo
}

// judge answers the i-th event, whose id is the entry's.
func (c *call) judge(e *entry, i int) error {
	digest := c.events[i].Digest
	first := e.event()
	c.answers[i] = store.Accepted{ID: first.Event.ID, Deliveries: e.deliveries(), Repeated: e.index != i}
	switch {
	case e.at != 0:
		if digest != first.Digest {
			return &store.ConflictError{Index: i, ID: first.Event.ID}
		}
	case e.before == nil:
		// Another's transaction took the id, and it was not there a moment later: it is free again.
		return &retryError{}
	case e.before.digest != digest:
		return &store.ConflictError{Index: i, ID: first.Event.ID}
	default:
		c.answers[i].Repeated, c.answers[i].Deliveries = true, e.before.deliveries
	}
	return nil
}

// retryError fails one call: it is to be sent again.
type retryError struct{}

func (*retryError) Error() string {
	return "append events: another event with the same id was being stored; try again"
}
func (*retryError) Unwrap() error { return errUsage }

// setKeys gives the events that are to be stored their keys, and returns the hours that they fall into, and whether
// there are any.
func (w *writing) setKeys() (hours []int64, some bool) {
	for _, e := range w.entries {
		if e.at == 0 {
			continue
		}
		ev := e.event().Event
		e.key = event.NewKey(moment(e.at), ev.Tenant, ev.ID)
		if e.stored {
			continue
		}
		some = true
		if hour := kindEvents.bucket(e.at); !slices.Contains(hours, hour) {
			hours = append(hours, hour)
		}
	}
	return hours, some
}
