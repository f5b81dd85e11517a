package query

import (
	"bytes"
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	// MaxChunk is how many deliveries one Apply takes at most.
	MaxChunk = 32
	// BodiesAtOnce is how many bodies of events an Apply holds at once, at most.
	BodiesAtOnce = 8
	// maxRepeats bounds the deliveries that Repeated looks through.
	maxRepeats = 50_000
)

// Batch is a set of deliveries of one subscription. Its caller goes through it at its own pace, newest first, and keeps the
// position itself: a page, Apply of its parts, the next page.
type Batch struct {
	// Tenant and Subscription, a name, are not empty.
	Tenant, Subscription string
	// Cancel is about deliveries that wait for their planned time, in place of finished ones to replay.
	Cancel bool
	// State is that of the deliveries to replay: Failed, Delivered or Cancelled; zero means Failed.
	State delivery.State
	// Since and Until bound the event's acceptance, where they are not zero: since ≤ t < until.
	Since, Until time.Time
}

// query is what the store is asked for, behind a delivery.
func (b *Batch) query(after event.DeliveryID, limit int) store.Query {
	q := store.Query{
		Tenant: b.Tenant, Subscription: b.Subscription, State: b.State, Since: b.Since, Until: b.Until, Before: after,
		Limit: max(1, min(limit, MaxLimit)),
	}
	switch {
	case b.Cancel:
		q.State, q.Scheduled = delivery.Pending, true
	case q.State == 0:
		q.State = delivery.Failed
	}
	return q
}

// Page returns the ids of the batch's next deliveries behind after, which may be zero: at most limit, which is cut to MaxLimit. Fewer
// mean that there are no more.
func (d *Deliveries) Page(ctx context.Context, b Batch, after event.DeliveryID, limit int) ([]event.DeliveryID, error) {
	q := b.query(after, limit)
	records, err := d.options.Store.List(ctx, q)
	if err != nil {
		return nil, err
	}
	ids := make([]event.DeliveryID, len(records))
	for i := range records {
		ids[i] = records[i].ID
	}
	return ids, nil
}

// Repeated returns which deliveries of the batch's subscription, all behind after, were repeated since a time, as replays of delivered
// ones are. It looks at the newest 50,000 deliveries of that time.
func (d *Deliveries) Repeated(ctx context.Context, b Batch, after event.DeliveryID, since time.Time) (map[event.DeliveryID]bool, error) {
	found := make(map[event.DeliveryID]bool)
	q := store.Query{Tenant: b.Tenant, Subscription: b.Subscription, Since: since, Limit: replayPageSize}
	for seen := 0; seen < maxRepeats; seen += q.Limit {
		records, err := d.options.Store.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range records {
			of := records[i].ReplayOf
			behind := after == (event.DeliveryID{}) || bytes.Compare(of.Event[:], after.Event[:]) < 0
			if of != (event.DeliveryID{}) && behind {
				found[of] = true
			}
			q.Before = records[i].ID
		}
		if len(records) < q.Limit {
			break
		}
	}
	return found, nil
}

// Apply replays or cancels deliveries of the batch, at most MaxChunk, and hands what is pending then to the engine. It counts those
// that were done. The others are in another state meanwhile, or not kept any more, or can be read no more. Once begun it ends,
// whatever becomes of ctx. An error says that some were not done, which may be tried again.
func (d *Deliveries) Apply(ctx context.Context, b Batch, ids []event.DeliveryID) (done int, err error) {
	ctx = context.WithoutCancel(ctx) // what the store has begun, the engine has to hear of
	ids = ids[:min(len(ids), MaxChunk)]
	pending, did := make([]delivery.PendingDelivery, len(ids)), make([]bool, len(ids))
	var group errgroup.Group
	group.SetLimit(BodiesAtOnce)
	for i := range ids {
		group.Go(func() error {
			var err error
			if b.Cancel {
				err = d.options.Store.Cancel(ctx, b.Tenant, ids[i])
			} else {
				pending[i], err = d.options.Store.Replay(ctx, b.Tenant, ids[i])
				pending[i].Event = nil // the engine reads it when it is its turn
			}
			if did[i] = err == nil; passable(err) {
				return nil
			}
			return err
		})
	}
	err = group.Wait()
	for i := range pending {
		if did[i] {
			pending[done] = pending[i]
			done++
		}
	}
	if done > 0 && !b.Cancel {
		d.resume(b.Tenant, pending[:done])
	}
	return done, err
}

// passable reports whether a delivery is passed over with err: a second try would end the same.
func passable(err error) bool {
	for _, known := range []error{store.ErrStillPending, store.ErrNotPending, store.ErrNotFound, store.ErrErased, store.ErrDamaged} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
