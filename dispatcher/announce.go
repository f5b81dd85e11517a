package dispatcher

import (
	"context"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/operational"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// givenUp passes on that a delivery was stored as failed.
func (d *dispatcher) givenUp(id event.DeliveryID) {
	d.announcer.Note(engine.Happening{Type: event.DeliveryFailed, Subscription: id.Subscription, Delivery: id, At: d.store.Now()})
}

// openAnnouncer makes what tells tenants of their subscriptions, by events that go the way of all others.
func (d *dispatcher) openAnnouncer() (err error) {
	d.announcer, err = operational.New(operational.Options{
		Table: d.routes, Get: d.store.Get, Now: d.store.Now, Logger: d.Logger.WithName("operational"), Registerer: d.registry,
		Publish: func(ctx context.Context, p operational.Publication) (store.Accepted, error) {
			return d.api.Announce(ctx, ingest.Announcement(p))
		},
	})
	return err
}
