package ingest

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// scratch is what one publish needs and the next can use again. Nothing of it is kept by the store or the engine.
type scratch struct {
	body     bodyBuffer
	place    place
	parser   parser
	incoming []incoming
	events   []store.NewEvent
	matches  []match
	kept     []*delivery.Subscription // whose deliveries of an event are due at once
	keys     []plan.Key               // of what an event cancels for one subscription
	answer   []byte
	except   event.SubscriptionKey // that no event is for; zero for none
	trace    string                // context of the request's events; "" for none

	parsing int64 // what is charged for the parsing
	total   totals
}

// match is what one type matched: all events of the type share it.
type match struct {
	eventType     event.Type
	subscriptions []*delivery.Subscription
	rules         []*routing.Rules // of the subscriptions, each in its place; nil if none has any
	cancels       []*routing.Route // whose schedules name the type in cancelOn
	ordered       int              // of the subscriptions
}

// totals are what a request's events come to.
type totals struct {
	bodies, deliveries, ordered int
	plans                       int   // and cancellations
	planned                     int64 // of the plans, those that are pending
	pendingBytes                int64 // of the bodies of all deliveries, planned ones too
}

func newScratch(options *Options, memory *holdings) *scratch {
	return &scratch{
		body:   bodyBuffer{account: account{memory: memory}},
		parser: parser{catalog: options.Catalog, maxEvent: options.MaxEventBytes},
	}
}

// The bounds of what a scratch keeps for its next use.
const (
	maxKeptEvents = 256
	maxKeptAnswer = 16 << 10
)

// reset releases what the scratch refers to, and gives back what was charged for it.
func (s *scratch) reset() {
	s.trace = ""
	s.forgetIncoming()
	clear(s.events)
	clear(s.matches)
	clear(s.kept[:cap(s.kept)])
	s.events, s.matches, s.answer = s.events[:0], s.matches[:0], s.answer[:0]
	if cap(s.events) > maxKeptEvents {
		s.events = nil
	}
	if cap(s.kept) > maxKeptEvents {
		s.kept = nil
	}
	if cap(s.answer) > maxKeptAnswer {
		s.answer = nil
	}
	s.total = totals{}
	s.body.close()
	s.body.account.tenant, s.except = "", event.SubscriptionKey{}
}

// forgetIncoming releases the request's text and what was read of it.
func (s *scratch) forgetIncoming() {
	s.parser.document.reset(nil)
	clear(s.incoming)
	s.incoming = s.incoming[:0]
	if cap(s.incoming) > maxKeptEvents {
		s.incoming = nil
	}
	s.body.release()
	s.body.account.drop(s.parsing)
	s.parsing = 0
}

// parse reads the events of a body of the given media type. batch reports whether it holds an array.
func (s *scratch) parse(header http.Header, mediaType string) (batch bool, err error) {
	p, body := &s.parser, s.body.bytes
	isArray := bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("["))
	isBinary := mediaType != cloudEventType && mediaType != cloudEventBatchType && isBinaryCloudEvent(header)
	n := parseBytes(body, isArray && !isBinary, mediaType != jsonType || isBinary)
	if err := s.body.account.hold(n); err != nil {
		return false, err
	}
	s.parsing = n
	switch {
	case mediaType == cloudEventType:
		s.incoming, err = p.structured(body, s.incoming)
	case mediaType == cloudEventBatchType:
		batch = true
		s.incoming, err = p.cloudEventBatch(body, s.incoming)
	case isBinary:
		s.incoming = append(s.incoming, incoming{})
		err = p.binary(header, body, &s.incoming[0])
	default:
		s.incoming, batch, err = p.plain(body, s.incoming)
	}
	return batch, err
}

// prepare makes of what was parsed what the store takes, and lets go of what was parsed.
func (s *scratch) prepare(ctx context.Context, table *routing.Table, filters *filters) error {
	now := filters.options.Now()
	account := &s.body.account
	for i := range s.incoming {
		in := &s.incoming[i]
		fresh := in.id == ""
		if fresh {
			in.id = event.NewID(now)
		}
		if in.timestampText == nil {
			in.timestamp = now
		}
		if s.trace != "" {
			in.traceparent = s.trace
		}
		m, err := s.match(table, in.eventType)
		if err != nil {
			return err
		}
		size := bodyOverhead + len(in.id) + 2*len(in.eventType) + len(in.data)
		if err := account.hold(int64(size) + eventBytes); err != nil {
			return err
		}
		causes := caused{subscriptions: m.subscriptions}
		if m.rules != nil || m.cancels != nil {
			if causes, err = filters.decide(ctx, s, m, in, now); err != nil {
				return err
			}
		}
		if err := s.add(m, causes, in, size); err != nil {
			return err
		}
		s.events[i].Fresh = fresh
	}
	s.forgetIncoming()
	return account.hold(storeBytes(len(s.events), &s.total))
}

// match returns what the type matches. It is looked for once in a request.
func (s *scratch) match(table *routing.Table, typ event.Type) (*match, error) {
	for i := range s.matches {
		if s.matches[i].eventType == typ {
			return &s.matches[i], nil
		}
	}
	tenant := s.body.account.tenant
	count := table.Count(tenant, typ)
	if err := s.body.account.hold(int64(count) * 2 * matchBytes); err != nil {
		return nil, err
	}
	m := match{
		eventType: typ, subscriptions: table.Match(tenant, typ, nil), rules: table.Rules(tenant, typ), cancels: table.Cancels(tenant, typ),
	}
	if err := s.body.account.hold(int64(len(m.cancels)) * matchBytes); err != nil {
		return nil, err
	}
	if s.except != (event.SubscriptionKey{}) {
		m = m.without(s.except)
	}
	for _, sub := range m.subscriptions {
		if sub.Ordered {
			m.ordered++
		}
	}
	s.matches = append(s.matches, m)
	return &s.matches[len(s.matches)-1], nil
}

// add adds an event of a match and what it causes, with a body of the given size.
func (s *scratch) add(m *match, causes caused, in *incoming, size int) error {
	tenant, order := s.body.account.tenant, uint64(0)
	if m.ordered > 0 {
		order = s.parser.order(tenant, in)
	}
	if order != 0 {
		s.total.ordered += m.ordered
	}
	s.total.add(&causes, size)
	if s.total.deliveries+s.total.plans > maxRequestDeliveries {
		return newProblem(tooLarge, "the request's events match more than %d subscriptions in all; send fewer events in one request", maxRequestDeliveries)
	}
	s.events = append(s.events, store.NewEvent{
		Fanout: delivery.Fanout{
			Event: &delivery.Event{
				Tenant:      tenant,
				ID:          in.id,
				Type:        in.eventType,
				Body:        event.AppendBody(make([]byte, 0, size), in.id, in.eventType, in.timestamp, in.data),
				Traceparent: in.traceparent,
			},
			Order:         order,
			Subscriptions: causes.subscriptions,
		},
		Plans: causes.plans, Cancels: causes.cancels,
		Digest: s.parser.digest(in),
	})
	return nil
}

// add counts what an event with a body of the given size causes.
func (t *totals) add(causes *caused, size int) {
	planned := planned(causes.plans)
	t.deliveries += len(causes.subscriptions)
	t.plans += len(causes.plans) + len(causes.cancels)
	t.planned += planned
	t.pendingBytes += (int64(len(causes.subscriptions)) + planned) * int64(size)
	if len(causes.subscriptions)+len(causes.plans) > 0 {
		t.bodies += size
	}
}

// bodyOverhead is how many bytes a body has beside its id, its type, twice, and its data.
var bodyOverhead = len(event.AppendBody(nil, "", "", time.Time{}, nil))
