package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// Announcement is an operational event to be published.
type Announcement struct {
	Tenant string
	// About is the subscription that gets none of it.
	About event.SubscriptionKey
	// ID is that of the event. A second announcement with it is a repetition, whatever else it says.
	ID        string
	Type      event.Type
	Timestamp time.Time
	// Data is a JSON object.
	Data []byte
}

// errNoTable: subscriptions are not known yet.
var errNoTable = errors.New("the dispatcher has not loaded its subscriptions yet")

// Announce publishes an operational event as a request publishes others: filters and schedules decide, the tenant's memory
// and quotas are charged, and it is durable on return. An answer without an id says that nobody wants the event.
func (h *Handler) Announce(ctx context.Context, a Announcement) (store.Accepted, error) {
	table := h.options.Routes()
	if table == nil {
		return store.Accepted{}, errNoTable
	}
	s := h.scratch.Get().(*scratch)
	s.body.account.tenant, s.except = a.Tenant, a.About
	defer func() {
		s.reset()
		h.scratch.Put(s)
	}()
	s.incoming = append(s.incoming, incoming{
		id: a.ID, eventType: a.Type, data: a.Data, timestamp: a.Timestamp, timestampText: []byte(a.Timestamp.Format(time.RFC3339Nano)),
	})
	if err := s.prepare(ctx, table, h.filters); err != nil {
		return store.Accepted{}, announceError(err)
	}
	digest := sha256.Sum256([]byte(a.ID))
	copy(s.events[0].Digest[:], digest[:])
	if s.total.deliveries+s.total.plans == 0 {
		return store.Accepted{}, nil // its filters want none of it: there is nothing to keep
	}
	if err := h.admit(s); err != nil {
		return store.Accepted{}, announceError(err)
	}
	accepted, err := h.appendEvents(ctx, s, false)
	if err != nil {
		return store.Accepted{}, announceError(err)
	}
	return accepted[0], nil
}

func announceError(err error) error { return fmt.Errorf("publish an operational event: %w", err) }

// without returns what the match has beside the subscription with the given key.
func (m *match) without(key event.SubscriptionKey) match {
	rest := match{eventType: m.eventType}
	for i, sub := range m.subscriptions {
		if sub.Key == key {
			continue
		}
		rest.subscriptions = append(rest.subscriptions, sub)
		if m.rules != nil {
			rest.rules = append(rest.rules, m.rules[i])
		}
	}
	for _, route := range m.cancels {
		if route.Key != key {
			rest.cancels = append(rest.cancels, route)
		}
	}
	return rest
}
