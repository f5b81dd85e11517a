package delivery

import "github.com/clinikapi/eventflow/api/event"

// Delivery is the fan-out's delivery to one of its subscriptions, as it is before its first attempt.
func (f *Fanout) Delivery(sub *Subscription) PendingDelivery {
	d := PendingDelivery{
		ID:    event.DeliveryID{Event: f.Event.Key, Subscription: sub.Key},
		Due:   f.Due,
		Since: f.Event.Key.Accepted(),
		Size:  f.Event.Size(),
		Event: f.Event,
	}
	if sub.Ordered {
		d.Order = f.Order
	}
	return d
}
