package operational

import (
	"bytes"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// Replaced notes the subscriptions that another list of keys signs for since before was replaced by now. Every process
// notes it; the store keeps one. A subscription that waits in one of the two, or is in one alone, is passed over.
func (a *Announcer) Replaced(before, now *routing.Table) {
	if before == nil || !now.Operational() {
		return
	}
	for route := range now.All() {
		old, ok := before.Get(route.Key)
		if !ok || old == route || old.Endpoint.Generation == route.Endpoint.Generation || old.Endpoint.Target == nil || route.Endpoint.Target == nil {
			continue
		}
		if keys := route.Endpoint.Target.Keys; !sameKeys(old.Endpoint.Target.Keys, keys) {
			a.note(&happening{
				Happening: engine.Happening{
					Type: event.KeyRotated, Subscription: route.Key, At: a.options.Now(), Generation: route.Endpoint.Generation,
				},
				activeKeys: len(keys),
			})
		}
	}
}

// sameKeys reports whether two lists of keys sign the same text alike, in their order.
func sameKeys(a, b signature.Keys) bool {
	if len(a) != len(b) || len(a) == 0 {
		return len(a) == len(b)
	}
	const text = "the same keys"
	return bytes.Equal(a.AppendHeader(nil, text, time.Time{}, nil), b.AppendHeader(nil, text, time.Time{}, nil))
}
