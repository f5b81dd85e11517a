package sealed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/envelope"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/seeds"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Keys finds the keys of tenants; *seeds.Cache is one.
type Keys interface {
	ForWriting(ctx context.Context, tenant string) (*seeds.Keys, error)
	ForReading(ctx context.Context, tenant string) (*seeds.Keys, error)
}

// Store seals what it hands to the store below, and opens what comes back.
type Store struct {
	store.Store
	keys Keys
}

// New returns a store over below. Without keys it seals nothing, and refuses sealed events.
func New(below store.Store, keys Keys) *Store { return &Store{Store: below, keys: keys} }

// Below is the store that the ciphertexts are in.
func (s *Store) Below() store.Store { return s.Store }

// Erased is shown for the id of an event whose tenant's seed was deleted.
const Erased = "erased"

// traceLength is that of a traceparent (W3C Trace Context, version 00): what ingest stores is as long, or empty.
const traceLength = 55

// frame is what the sealed part begins with before the body: the length of the traceparent, and its room. It is there also
// for none, so that Event.Size is known without opening.
const frame = 1 + traceLength

// The engine's account of sizes is right only if this holds.
const _ = uint(delivery.SealedExtra-envelope.Overhead-frame) + uint(envelope.Overhead+frame-delivery.SealedExtra)

// errNoKeys is why a sealed event cannot be opened without keys.
var errNoKeys = fmt.Errorf("%w: the store has encrypted events, and the dispatcher was started without --encryption-keys", store.ErrKeys)

// Unlock waits for the keys of a tenant, so that an Append right after it does not. It fails as Append does.
func (s *Store) Unlock(ctx context.Context, tenant string) error {
	if s.keys == nil {
		return nil
	}
	if _, err := s.keys.ForWriting(ctx, tenant); err != nil {
		return unavailable(ctx, err)
	}
	return nil
}

// Append seals the events, and appends them.
func (s *Store) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	if s.keys == nil || len(events) == 0 {
		return s.Store.Append(ctx, events)
	}
	inner, sealed := make([]store.NewEvent, len(events)), make([]delivery.Event, len(events))
	for i := range events {
		keys, err := s.keys.ForWriting(ctx, events[i].Event.Tenant)
		if err != nil {
			return nil, nil, unavailable(ctx, err)
		}
		inner[i] = events[i]
		inner[i].Event = &sealed[i]
		if sealed[i], err = seal(keys, &events[i]); err != nil {
			return nil, nil, err
		}
		if keys.Blind {
			blind(keys, &inner[i])
		}
	}
	answers, fanouts, err := s.Store.Append(ctx, inner)
	if conflict, ok := errors.AsType[*store.ConflictError](err); ok {
		err = &store.ConflictError{Index: conflict.Index, ID: events[conflict.Index].Event.ID}
	}
	for i := range answers {
		answers[i].ID = events[i].Event.ID
		events[i].Event.Key = sealed[i].Key
	}
	next := 0
	for f := range fanouts { // in the order of events
		for fanouts[f].Event != &sealed[next] {
			next++
		}
		fanouts[f].Event = events[next].Event
	}
	return answers, fanouts, err
}

// unavailable says that a tenant's keys cannot be had now, unless ctx ended.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", store.ErrKeys, err)
}

// seal returns the event as it is stored. The body of one that no delivery needs is not stored, and so not sealed.
func seal(keys *seeds.Keys, e *store.NewEvent) (delivery.Event, error) {
	plain := e.Event
	sealed := delivery.Event{Tenant: plain.Tenant, ID: plain.ID, Type: plain.Type}
	if keys.Blind {
		sealed.ID = keys.SealID(plain.ID)
	}
	if len(e.Subscriptions)+len(e.Plans) == 0 {
		return sealed, nil
	}
	if len(plain.Traceparent) > traceLength {
		return sealed, fmt.Errorf("seal an event: its traceparent has %d bytes", len(plain.Traceparent))
	}
	// The plain bytes lie where their ciphertext will.
	b := make([]byte, envelope.Prefix+frame, envelope.Overhead+frame+len(plain.Body))
	b[envelope.Prefix] = byte(len(plain.Traceparent))
	copy(b[envelope.Prefix+1:], plain.Traceparent)
	b = append(b, plain.Body...)
	var err error
	sealed.Body, err = keys.Seal(b[:0], plain.ID, string(plain.Type), b[envelope.Prefix:])
	sealed.Sealed = true
	return sealed, err
}

// blind replaces what is looked up.
func blind(keys *seeds.Keys, e *store.NewEvent) {
	e.Digest = keys.Sealer.Blind(envelope.UseDigest, e.Digest[:])
	if e.Order != 0 {
		var order [8]byte
		binary.BigEndian.PutUint64(order[:], e.Order)
		sum := keys.Sealer.Blind(envelope.UseOrder, order[:])
		e.Order = binary.BigEndian.Uint64(sum[:]) | 1 // never 0
	}
	if len(e.Plans) > 0 {
		e.Plans = append([]store.Plan(nil), e.Plans...)
		for i := range e.Plans {
			e.Plans[i].Key = blindKey(keys, e.Plans[i].Key)
		}
	}
	if len(e.Cancels) > 0 {
		e.Cancels = append([]store.Cancel(nil), e.Cancels...)
		for i := range e.Cancels {
			e.Cancels[i].Key = blindKey(keys, e.Cancels[i].Key)
		}
	}
}

func blindKey(keys *seeds.Keys, key plan.Key) plan.Key {
	if key.IsZero() {
		return key
	}
	return keys.Sealer.Blind(envelope.UseKey, key[:])
}

// open makes a stored event the one that was appended. Its Body is overwritten.
func (s *Store) open(ctx context.Context, e *delivery.Event) error {
	if !e.Sealed && !envelope.IsSealedID(e.ID) {
		return nil
	}
	keys, err := s.reading(ctx, e.Tenant)
	if err != nil {
		return err
	}
	if e.Sealed && keys.Foreign(e.Body) { // first: an id does not say which seed it is of
		return store.ErrErased
	}
	id := e.ID
	if envelope.IsSealedID(id) {
		if id, err = keys.OpenID(id); err != nil {
			return err
		}
	}
	if !e.Sealed {
		e.ID = id
		return nil
	}
	if len(e.Body) < delivery.SealedExtra {
		return envelope.ErrDamaged
	}
	plain, err := keys.Open(e.Body[envelope.Prefix:envelope.Prefix], id, string(e.Type), e.Body)
	if err != nil {
		return err
	}
	if plain[0] > traceLength {
		return envelope.ErrDamaged
	}
	e.ID, e.Sealed, e.Traceparent, e.Body = id, false, string(plain[1:1+plain[0]]), plain[frame:len(plain):len(plain)]
	return nil
}

// reading returns the keys of a tenant of which something sealed was found.
func (s *Store) reading(ctx context.Context, tenant string) (*seeds.Keys, error) {
	if s.keys == nil {
		return nil, errNoKeys
	}
	keys, err := s.keys.ForReading(ctx, tenant)
	switch {
	case errors.Is(err, seeds.ErrNone):
		return nil, store.ErrErased
	case err != nil:
		return nil, unavailable(ctx, err)
	}
	return keys, nil
}

func (s *Store) openID(ctx context.Context, tenant, id string) (string, error) {
	if !envelope.IsSealedID(id) {
		return id, nil
	}
	keys, err := s.reading(ctx, tenant)
	if err != nil {
		return "", err
	}
	return keys.OpenID(id)
}

// Event returns the event of a pending delivery.
func (s *Store) Event(ctx context.Context, key event.Key) (*delivery.Event, error) {
	e, err := s.Store.Event(ctx, key)
	if err == nil {
		err = s.open(ctx, e)
	}
	if err != nil {
		return nil, fmt.Errorf("read an event: %w", err)
	}
	return e, nil
}

// openAll opens the events that came along. One that does not open is left out: Event says why.
func (s *Store) openAll(ctx context.Context, deliveries []delivery.PendingDelivery) {
	for i := range deliveries {
		if e := deliveries[i].Event; e != nil && s.open(ctx, e) != nil {
			deliveries[i].Event = nil
		}
	}
}

// Due opens the events that come along.
func (s *Store) Due(ctx context.Context, sub event.SubscriptionKey, from delivery.Position, until time.Time, limit int, into []delivery.PendingDelivery) ([]delivery.PendingDelivery, delivery.Position, bool, error) {
	found, next, ok, err := s.Store.Due(ctx, sub, from, until, limit, into)
	s.openAll(ctx, found[len(into):])
	return found, next, ok, err
}

// Aged opens the events that come along.
func (s *Store) Aged(ctx context.Context, sub event.SubscriptionKey, since time.Time, limit int, into []delivery.PendingDelivery) ([]delivery.PendingDelivery, error) {
	found, err := s.Store.Aged(ctx, sub, since, limit, into)
	s.openAll(ctx, found[len(into):])
	return found, err
}

// First opens the event that comes along.
func (s *Store) First(ctx context.Context, sub event.SubscriptionKey, order uint64) (delivery.PendingDelivery, bool, error) {
	d, ok, err := s.Store.First(ctx, sub, order)
	return s.opened(ctx, d), ok, err
}

// Replay opens the event that comes along.
func (s *Store) Replay(ctx context.Context, tenant string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	d, err := s.Store.Replay(ctx, tenant, id)
	return s.opened(ctx, d), err
}

// SendNow opens the event that comes along.
func (s *Store) SendNow(ctx context.Context, tenant string, id event.DeliveryID) (delivery.PendingDelivery, error) {
	d, err := s.Store.SendNow(ctx, tenant, id)
	return s.opened(ctx, d), err
}

func (s *Store) opened(ctx context.Context, d delivery.PendingDelivery) delivery.PendingDelivery {
	one := [1]delivery.PendingDelivery{d}
	s.openAll(ctx, one[:])
	return one[0]
}

// Get opens the event's id.
func (s *Store) Get(ctx context.Context, tenant string, id event.DeliveryID) (store.Record, error) {
	r, err := s.Store.Get(ctx, tenant, id)
	if err == nil {
		err = s.show(ctx, &r)
	}
	return r, err
}

// show makes the record's id that of the producer.
func (s *Store) show(ctx context.Context, r *store.Record) error {
	id, err := s.openID(ctx, r.Tenant, r.EventID)
	if errors.Is(err, store.ErrErased) || errors.Is(err, envelope.ErrDamaged) {
		id, err = Erased, nil // also of a tenant that has another seed since
	}
	r.EventID = id
	return err
}

// List finds what has the key, and opens the events' ids.
func (s *Store) List(ctx context.Context, q store.Query) ([]store.Record, error) {
	if s.keys != nil && !q.Key.IsZero() {
		switch keys, err := s.keys.ForReading(ctx, q.Tenant); {
		case errors.Is(err, seeds.ErrNone):
		case err != nil:
			return nil, unavailable(ctx, err)
		case keys.Blind:
			q.Key = blindKey(keys, q.Key)
		}
	}
	records, err := s.Store.List(ctx, q)
	for i := range records {
		if err == nil {
			err = s.show(ctx, &records[i])
		}
	}
	if err != nil {
		return nil, err
	}
	return records, nil
}

// Known reports whether the store below has a delivery of the tenant: seeds.Options.Known.
func Known(below store.Store) func(ctx context.Context, tenant string) (bool, error) {
	return func(ctx context.Context, tenant string) (bool, error) {
		records, err := below.List(ctx, store.Query{Tenant: tenant, Limit: 1})
		return len(records) > 0, err
	}
}

// Retain changes how long the store below keeps what has ended, if it can.
func (s *Store) Retain(delivered, failed time.Duration) {
	if below, ok := s.Store.(interface {
		Retain(delivered, failed time.Duration)
	}); ok {
		below.Retain(delivered, failed)
	}
}
