package query

import (
	"context"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// The bounds of a search by what the store has no order of.
const (
	scanPageSize = 500
	maxScanned   = 10_000 // deliveries per call
	// maxMatches is how many deliveries of one event are told.
	maxMatches = 1000
	// An event with an id that a dispatcher made was accepted about then: clocks of replicas differ a little.
	idEarly, idLate = time.Minute, time.Hour
)

// byEvent reports whether deliveries are selected by what the store does not select by.
func (s *Selection) byEvent() bool { return s.EventID != "" || s.EventType != "" }

func (s *Selection) selects(r *store.Record) bool {
	return (s.EventID == "" || s.EventID == r.EventID) && (s.EventType == "" || s.EventType == string(r.Type))
}

// purpose keeps the tokens of different questions apart.
func (s *Selection) purpose(of string) string {
	if s.byEvent() {
		return of + "\x00" + s.EventID + "\x00" + s.EventType
	}
	return of
}

// narrow bounds the time of acceptance by an id that says when it was made.
func (s *Selection) narrow(q *store.Query) {
	made, ok := event.TimeOf(s.EventID)
	if ok && q.Since.IsZero() && q.Until.IsZero() {
		q.Since, q.Until = made.Add(-idEarly), made.Add(idLate)
	}
}

// Event is an event that caused deliveries, with those of them that are kept. A replay of a delivered delivery is not among
// them.
type Event struct {
	Key      event.Key
	ID       string
	Type     event.Type
	Accepted time.Time
	Matches  []store.Record
}

// EventPage is an answer to Events, newest first.
type EventPage struct {
	Events []Event
	// Continue goes on behind the last event; empty if there is nothing more.
	Continue string
}

// Events returns the first events that s selects, at most limit, which is from 1 to MaxLimit. It looks through at most
// 10,000 deliveries: a page may have few events, or none, and go on.
func (d *Deliveries) Events(ctx context.Context, s Selection, limit int) (page EventPage, err error) {
	if limit < 1 || limit > MaxLimit {
		return page, invalid("limit must be between 1 and %d", MaxLimit)
	}
	purpose := s.purpose("events")
	q, err := s.query(purpose)
	if err != nil {
		return page, err
	}
	q.Limit = scanPageSize
	for scanned := 0; ; {
		records, err := d.options.Store.List(ctx, q)
		if err != nil {
			return EventPage{}, err
		}
		for i := range records {
			r := &records[i]
			if r.ReplayOf == (event.DeliveryID{}) && s.selects(r) && !page.add(r, limit) {
				page.Continue = continueToken(purpose, &q, q.Before)
				return page, nil
			}
			q.Before = r.ID
		}
		if len(records) < q.Limit {
			return page, nil
		}
		if scanned += len(records); scanned >= maxScanned {
			page.Continue = continueToken(purpose, &q, q.Before)
			return page, nil
		}
	}
}

// add adds a delivery to its event. It reports whether there was room.
func (p *EventPage) add(r *store.Record, limit int) bool {
	last := len(p.Events) - 1
	if last < 0 || p.Events[last].Key != r.ID.Event {
		if len(p.Events) == limit {
			return false
		}
		p.Events = append(p.Events, Event{Key: r.ID.Event, ID: r.EventID, Type: r.Type, Accepted: r.Created})
		last++
	}
	if e := &p.Events[last]; len(e.Matches) < maxMatches {
		e.Matches = append(e.Matches, *r)
	}
	return true
}

// Event returns the newest event with the given id. store.ErrNotFound. An id that a producer chose is looked for in the
// newest 10,000 deliveries alone.
func (d *Deliveries) Event(ctx context.Context, tenant, id string) (Event, error) {
	if event.CheckID(id) != nil {
		return Event{}, store.ErrNotFound
	}
	page, err := d.Events(ctx, Selection{Tenant: tenant, EventID: id}, 1)
	if err != nil {
		return Event{}, err
	}
	if len(page.Events) == 0 {
		return Event{}, store.ErrNotFound
	}
	return page.Events[0], nil
}

// Payload returns the newest event with the given id, and its body as endpoints get it. store.ErrNotFound.
func (d *Deliveries) Payload(ctx context.Context, tenant, id string) (Event, *delivery.Event, error) {
	found, err := d.Event(ctx, tenant, id)
	if err != nil {
		return found, nil, err
	}
	e, err := d.options.Store.Event(ctx, found.Key)
	if err == nil && e.Tenant != tenant {
		err = store.ErrNotFound
	}
	return found, e, err
}
