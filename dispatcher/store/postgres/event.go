package postgres

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// place is where an event is looked for first: among those of the day in which a delivery of it failed, of the hour to which
// it was moved, or of the day for which a delivery is planned; nil and zero for none of these.
type place struct {
	failed, hour *int64
	planned      time.Time
}

// wantedEvents are keys of events, with their places.
type wantedEvents map[event.Key]place

func (w wantedEvents) add(key event.Key, at place) {
	if before, ok := w[key]; !ok || before == (place{}) {
		w[key] = at
	}
}

// period is that of the table in which the event is looked for first.
func (p place) period(key event.Key, all live) period {
	if p.failed != nil {
		return period{kindFailedEvents, *p.failed}
	}
	if p.hour != nil {
		return period{kindEvents, *p.hour}
	}
	if !p.planned.IsZero() {
		if at := plannedPeriod(p.planned); all.has(at) {
			return at
		}
	}
	return period{kindEvents, kindEvents.bucket(accepted(key))}
}

// foundEvents are the events that were found.
type foundEvents map[event.Key]*delivery.Event

// findEvents looks for each event where it was filed first, then in the tables that it may have been moved to.
func (s *Store) findEvents(ctx context.Context, conn *pgx.Conn, all live, wanted wantedEvents, bodies bool) (foundEvents, error) {
	found := foundEvents{}
	byTable := map[string][][]byte{}
	oldest := int64(-1)
	for key, where := range wanted {
		if ns := accepted(key); oldest < 0 || ns < oldest {
			oldest = ns
		}
		if at := where.period(key, all); all.has(at) {
			byTable[at.table()] = append(byTable[at.table()], key[:])
		}
	}
	if err := s.readEventTables(ctx, conn, byTable, bodies, found); err != nil || len(found) == len(wanted) {
		return found, err
	}
	var missing [][]byte
	for key := range wanted {
		if found[key] == nil {
			missing = append(missing, key[:])
		}
	}
	clear(byTable)
	for _, k := range []*kind{kindEvents, kindPlannedEvents} {
		for _, bucket := range all.from(k, k.bucket(oldest)) {
			byTable[k.table(bucket)] = missing
		}
	}
	return found, s.readEventTables(ctx, conn, byTable, bodies, found)
}

// querier is a connection or a pool of them.
type querier interface {
	Query(ctx context.Context, sql string, arguments ...any) (pgx.Rows, error)
}

// readEventTables reads the given keys of each table.
func (s *Store) readEventTables(ctx context.Context, conn querier, byTable map[string][][]byte, bodies bool, into foundEvents) error {
	if len(byTable) == 0 {
		return nil
	}
	columns := "key, namespace, id, type, traceparent, body"
	if !bodies {
		columns = "key, namespace, id, type, traceparent, NULL::bytea"
	}
	var text strings.Builder
	var arguments []any
	for table, keys := range byTable {
		if len(arguments) > 0 {
			text.WriteString(" UNION ALL ")
		}
		arguments = append(arguments, keys)
		fmt.Fprintf(&text, "SELECT %s FROM %s.%s WHERE key = ANY($%d)", columns, s.options.Schema, table, len(arguments))
	}
	rows, err := conn.Query(ctx, text.String(), arguments...)
	if err != nil {
		return err
	}
	var key, body []byte
	var namespace, id, kind, trace string
	_, err = pgx.ForEachRow(rows, []any{&key, &namespace, &id, &kind, &trace, &body}, func() error {
		e := &delivery.Event{Tenant: namespace, ID: id, Type: event.Type(kind), Traceparent: trace}
		var err error
		if e.Key, err = decodeKey(key); err == nil && bodies {
			err = decodeBody(e, body)
		}
		into[e.Key] = e
		return err
	})
	return err
}

const (
	// eventReaders is how many queries for single events are under way at once.
	eventReaders = 2
	// maxEventsRead is how many events are asked for at once.
	maxEventsRead = 64
)

// eventRead is a call of Event that waits.
type eventRead struct {
	ctx   context.Context
	key   event.Key
	done  chan struct{}
	event *delivery.Event
	err   error
}

// Event returns the event of a pending delivery. It is read together with others that are asked for at the same time.
func (s *Store) Event(ctx context.Context, key event.Key) (*delivery.Event, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	r := &eventRead{ctx: ctx, key: key, done: make(chan struct{})}
	select {
	case s.events <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-r.done:
		return r.event, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readEvents answers calls of Event, as many at once as are waiting, until the store is closed.
func (s *Store) readEvents() {
	for {
		var batch []*eventRead
		select {
		case r := <-s.events:
			batch = append(batch, r)
		case <-s.closing.Done():
			return
		}
		for more := true; more && len(batch) < maxEventsRead; {
			select {
			case r := <-s.events:
				batch = append(batch, r)
			default:
				more = false
			}
		}
		s.answerEvents(batch)
	}
}

func (s *Store) answerEvents(batch []*eventRead) {
	wanted := wantedEvents{}
	for _, r := range batch {
		wanted.add(r.key, place{})
	}
	found, err := s.quickEvents(s.closing, wanted)
	if err == nil && len(found) < len(wanted) {
		err = s.quickPlanned(s.closing, wanted, found)
	}
	if err != nil || len(found) < len(wanted) {
		err = s.view(s.closing, func(ctx context.Context, conn *pgx.Conn, all live) (err error) {
			found, err = s.findEvents(ctx, conn, all, wanted, true)
			return err
		})
	}
	given := make(map[event.Key]bool, len(found))
	for _, r := range batch {
		r.event, r.err = found[r.key], err
		if r.event == nil && err == nil {
			r.err = fmt.Errorf("find event %x: %w", r.key, store.ErrNotFound)
		} else if r.event != nil {
			own := *r.event // the engine keeps account in it
			if given[r.key] {
				own.Body = bytes.Clone(own.Body) // a sealed one is opened in place
			}
			given[r.key], r.event = true, &own
		}
		close(r.done)
	}
}

// quickEvents reads events from the tables of the hours in which they were accepted.
func (s *Store) quickEvents(ctx context.Context, wanted wantedEvents) (foundEvents, error) {
	byTable := map[string][][]byte{}
	all := s.periods.list()
	for key, where := range wanted {
		if at := where.period(key, all); all.has(at) {
			byTable[at.table()] = append(byTable[at.table()], key[:])
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	found := foundEvents{}
	return found, s.readEventTables(ctx, s.pool, byTable, true, found)
}

// quickPlanned looks for what was not found among the events that are planned for today and were for yesterday: what is
// attempted now is one of them, as a rule.
func (s *Store) quickPlanned(ctx context.Context, wanted wantedEvents, found foundEvents) error {
	var missing [][]byte
	for key := range wanted {
		if found[key] == nil {
			missing = append(missing, key[:])
		}
	}
	all, today := s.periods.list(), kindPlannedEvents.bucket(s.now())
	byTable := map[string][][]byte{}
	for _, at := range []period{{kindPlannedEvents, today}, {kindPlannedEvents, today - 1}} {
		if all.has(at) {
			byTable[at.table()] = missing
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	return s.readEventTables(ctx, s.pool, byTable, true, found)
}

// maxBrought bounds the bodies that Due reads along, in bytes.
const maxBrought = 2 << 20

// bringEvents reads the events of the first of the deliveries along, while they are cheap to find: the engine would ask
// for each of them next.
func (s *Store) bringEvents(ctx context.Context, deliveries []delivery.PendingDelivery) {
	wanted, size := wantedEvents{}, 0
	for i := range deliveries {
		if size += deliveries[i].Size; size > maxBrought {
			break
		}
		wanted.add(deliveries[i].ID.Event, place{planned: deliveries[i].Planned})
	}
	if len(wanted) == 0 {
		return
	}
	found, err := s.quickEvents(ctx, wanted)
	if err != nil {
		return
	}
	for i := range deliveries {
		deliveries[i].Event = found[deliveries[i].ID.Event]
	}
}
