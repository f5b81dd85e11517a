package pebble

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// The greatest lengths of records in a batch: two bytes of kind and lengths, the key, the value.
const (
	acceptanceLength = 3 + idempotencyKeyLength + headerLength + 16 + 8 + 5
	// eventFrame is what a batch holds of an event beside its value.
	eventFrame   = 1 + 5 + 1 + eventKeyLength
	freshLength  = 3 + pendingKeyLength + headerLength + 1 + 5
	orderedExtra = 3 + orderKeyLength + 8
	// lateExtra is the history of a delivery that is due before its event was accepted.
	lateExtra = 3 + historyKeyLength + headerLength + 1 + 8 + 1 + 8 + 1 + 1 + 8 + 5 + 1
	// nameFrame is what a batch holds of a subscription beside its namespace and its name.
	nameFrame = 3 + 9 + headerLength + 2
)

// write stores the fresh events and their deliveries, in one batch that is made as large as it has to be.
func (s *Store) write(a *appending, events []store.NewEvent, answers []store.Accepted) ([]store.Accepted, []delivery.Fanout, error) {
	first, now := s.acceptances(len(a.fresh))
	unknown := s.unknown(a, events)
	late := first+uint64(len(a.fresh)) > now+uint64(maxSkew)
	b := s.db.NewBatchWithSize(a.batchLength(events, unknown, late)) // growing by doubling would hold three times as much
	for sub := range unknown {
		a.key = append(appendSubscriptionKey(a.key[:0], spaceSubscription, sub.Key), sub.Tenant...)
		_ = b.Set(a.key, encodeName(sub.Name), nil) // writing to a batch never fails
	}
	schedules := a.schedules(events)
	var fanouts []delivery.Fanout
	var err error
	if schedules {
		if fanouts, err = s.writePlans(a, b, events, first, now); err == nil {
			err = s.sync()
		}
	} else {
		fanouts = s.setAll(a, b, events, first, now)
		err = s.commit(b, pebble.Sync)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("append events: %w", err)
	}
	// Only now: whoever finds them known relies on their being durable.
	for sub := range unknown {
		s.subscriptions.add(sub.Key, sub.Tenant, sub.Name)
	}
	if schedules {
		s.notify(a.notices)
	} else {
		_ = b.Close() // hands the batch back for use
	}
	return answers, fanouts, nil
}

// setAll adds the fresh events to the batch, none of which plans anything.
func (s *Store) setAll(a *appending, b *pebble.Batch, events []store.NewEvent, first, now uint64) []delivery.Fanout {
	fanouts := make([]delivery.Fanout, 0, len(a.fresh))
	for n, i := range a.fresh {
		at := first + uint64(n)
		events[i].Event.Key = a.ids[i].eventKey(at)
		if fanout, ok := s.setAccepted(a, b, &events[i], i, at, now, false); ok {
			fanouts = append(fanouts, fanout)
		}
	}
	return fanouts
}

// setAccepted adds an event to the batch, with its fan-out if it has one. kept says that a delivery needs it beside those.
func (s *Store) setAccepted(a *appending, b *pebble.Batch, e *store.NewEvent, i int, at, now uint64, kept bool) (fanout delivery.Fanout, ok bool) {
	s.ids.add(bucketOf(at, day))
	s.idFilter.add(bucketOf(at, day), a.ids[i])
	a.key = appendIdempotencyKey(a.key[:0], bucketOf(at, day), a.ids[i])
	a.value = (&acceptance{digest: e.Digest, accepted: at, count: len(e.Subscriptions) + len(e.Plans)}).append(a.value[:0])
	_ = b.Set(a.key, a.value, nil)
	if len(e.Subscriptions) == 0 && !kept {
		return fanout, false
	}
	s.setEvent(b, spaceEvent, &s.events, bucketOf(at, hour), e.Event)
	if len(e.Subscriptions) == 0 {
		return fanout, false
	}
	return a.setFresh(b, &e.Fanout, at, now), true
}

// unknown are the subscriptions of fresh events that are to be recorded; nil if there are none.
func (s *Store) unknown(a *appending, events []store.NewEvent) map[*delivery.Subscription]struct{} {
	var unknown map[*delivery.Subscription]struct{}
	var before []*delivery.Subscription
	add := func(sub *delivery.Subscription) {
		if s.subscriptions.has(sub) {
			return
		}
		if unknown == nil {
			unknown = make(map[*delivery.Subscription]struct{})
		}
		unknown[sub] = struct{}{}
	}
	for _, i := range a.fresh {
		for p := range events[i].Plans {
			add(events[i].Plans[p].Subscription)
		}
		subs := events[i].Subscriptions
		if store.SameSubscriptions(subs, before) {
			continue
		}
		before = subs
		for _, sub := range subs {
			add(sub)
		}
	}
	return unknown
}

// batchLength is how long a batch can become that holds the fresh events.
func (a *appending) batchLength(events []store.NewEvent, unknown map[*delivery.Subscription]struct{}, late bool) int {
	const header, tail = 12, 11 // tail is what the last record takes before its lengths are known
	length := header + tail
	for sub := range unknown {
		length += nameFrame + len(sub.Tenant) + len(sub.Name)
	}
	for _, i := range a.fresh {
		e := &events[i]
		length += acceptanceLength + scheduledLength(e)
		if len(e.Subscriptions)+len(e.Plans) == 0 {
			continue
		}
		each := freshLength
		if e.Order != 0 {
			each += orderedExtra
		}
		if late {
			each += lateExtra
		}
		length += eventFrame + eventLength(e.Event) + each*len(e.Subscriptions)
	}
	return length
}

// setFresh stores the deliveries of an event accepted at the given time, due at once.
func (a *appending) setFresh(b *pebble.Batch, f *delivery.Fanout, at, now uint64) delivery.Fanout {
	h := history{pending: pending{since: at, size: f.Event.Size()}, due: at}
	if at > now+uint64(maxSkew) {
		// The clock was set back. It would come to the time of acceptance late, and the delivery with it.
		h.history, h.due = true, now
	}
	key := f.Event.Key
	for _, sub := range f.Subscriptions {
		h.order = 0
		if sub.Ordered && f.Order != 0 {
			h.order = f.Order
			a.key = appendOrderKey(a.key[:0], sub.Key, h.order, key)
			_ = b.Set(a.key, nil, nil)
		}
		if h.history {
			a.key = appendHistoryKey(a.key[:0], sub.Key, key)
			a.value = h.append(a.value[:0])
			_ = b.Set(a.key, a.value, nil)
		}
		a.key = appendPendingKey(a.key[:0], sub.Key, h.due, key)
		a.value = h.pending.append(a.value[:0])
		_ = b.Set(a.key, a.value, nil)
	}
	fresh := *f
	fresh.Due = moment(h.due)
	return fresh
}

// setEvent stores an event in a bucket of spaceEvent or spaceFailedEvent.
func (s *Store) setEvent(b *pebble.Batch, space byte, live *buckets, bucket uint32, e *delivery.Event) {
	live.add(bucket)
	op := b.SetDeferred(1+4+len(e.Key), eventLength(e))
	appendEventKey(op.Key[:0], space, bucket, e.Key)
	appendEvent(op.Value[:0], e)
	_ = op.Finish()
}
