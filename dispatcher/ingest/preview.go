package ingest

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/go-logr/logr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Preview does what a publish does before the store: it reads events and decides what they cause. Nothing is kept, counted or
// charged to a tenant. It is for tools, and for one goroutine at a time.
type Preview struct {
	options Options
	filters *filters
	memory  *holdings
	now     time.Time
}

// PreviewOptions are what a Preview works with.
type PreviewOptions struct {
	// Catalog says which event types are known.
	Catalog *event.Catalog
	// FilterFailed and ScheduleFailed are those of Options.
	FilterFailed, ScheduleFailed func(sub event.SubscriptionKey, err *expression.Error)
}

// PreviewEvent is an event as its producer sent it.
type PreviewEvent struct {
	ID   string // "" if the dispatcher is to make one
	Type event.Type
	// Timestamp is zero if the producer sent none.
	Timestamp time.Time
	// Data is a JSON object, Previous one or nil.
	Data, Previous []byte
}

// NewPreview returns a Preview. It fails if the Catalog is missing.
func NewPreview(o PreviewOptions) (*Preview, error) {
	p := &Preview{memory: newHoldings(nil, 0)}
	p.options = Options{
		Catalog: o.Catalog, FilterFailed: o.FilterFailed, ScheduleFailed: o.ScheduleFailed, MaxEventBytes: defaultMaxEventBytes,
		Now: func() time.Time { return p.now }, Logger: logr.Discard(),
	}
	if o.Catalog == nil {
		return nil, newProblem(malformed, "a preview needs a Catalog")
	}
	var err error
	p.filters, err = newFilters(&p.options)
	return p, err
}

// Read reads the events of a body, as a publish with the Content-Type does: application/json, or one of CloudEvents. The
// error is the detail of the problem that a publisher would get.
func (p *Preview) Read(contentType string, body []byte) ([]PreviewEvent, error) {
	header := http.Header{"Content-Type": {contentType}}
	mediaType, err := mediaTypeOf(header, true)
	if err != nil {
		return nil, err
	}
	if len(body) > maxRequestBytes {
		return nil, bodyTooLarge(maxRequestBytes)
	}
	s := newScratch(&p.options, p.memory)
	defer s.reset()
	s.body.bytes = body
	s.parser.operational = true
	if _, err := s.parse(header, mediaType); err != nil {
		return nil, err
	}
	events := make([]PreviewEvent, 0, len(s.incoming))
	for i := range s.incoming {
		in := &s.incoming[i]
		events = append(events, PreviewEvent{ID: in.id, Type: in.eventType, Timestamp: in.timestamp, Data: in.data, Previous: in.previous})
	}
	return events, nil
}

// Decide returns what an event causes that is accepted now, as the store would get it.
func (p *Preview) Decide(ctx context.Context, table *routing.Table, tenant string, e PreviewEvent, now time.Time) (store.NewEvent, error) {
	p.now = now
	s := newScratch(&p.options, p.memory)
	defer s.reset()
	s.body.account.tenant = tenant
	if e.Type.IsOperational() {
		s.except = about(table, tenant, e.Data)
	}
	s.incoming = append(s.incoming, e.incoming())
	if err := s.prepare(ctx, table, p.filters); err != nil {
		return store.NewEvent{}, err
	}
	return s.events[0], nil
}

// about is the subscription that an operational event names; the zero key if it names none of the table's.
func about(table *routing.Table, tenant string, data []byte) event.SubscriptionKey {
	var names struct{ Subscription string }
	if json.Unmarshal(data, &names) != nil {
		return event.SubscriptionKey{}
	}
	for route := range table.All() {
		if route.Tenant() == tenant && route.Name == names.Subscription {
			return route.Key
		}
	}
	return event.SubscriptionKey{}
}

// Published is the event as a schedule sees it that is accepted now.
func (p *Preview) Published(e PreviewEvent, now time.Time) routing.Published {
	in := e.incoming()
	if e.Timestamp.IsZero() {
		in.timestamp = now
	}
	s := newScratch(&p.options, p.memory)
	return routing.Published{
		Variables: &expression.Variables{Event: expression.NewEvent(in.id, string(in.eventType), in.timestamp, in.data, in.previous)},
		Type:      e.Type, Now: now, Resource: s.parser.resourceOf(&in),
	}
}

func (e *PreviewEvent) incoming() incoming {
	in := incoming{id: e.ID, eventType: e.Type, data: e.Data, previous: e.Previous}
	if !e.Timestamp.IsZero() {
		in.timestamp, in.timestampText = e.Timestamp, []byte(e.Timestamp.Format(time.RFC3339Nano))
	}
	return in
}
