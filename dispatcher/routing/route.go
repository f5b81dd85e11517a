package routing

import (
	"cmp"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/engine"
)

// Route is a subscription as a dispatcher sees it. It is immutable once made.
type Route struct {
	// Identity is the subscription's metadata.uid, or namespace/name where a manifest has none.
	Identity  string
	Namespace string
	Name      string
	// Generation of the spec that the route was compiled from, or that was found wanting: metadata.generation, or a
	// hash of the spec where a manifest has none.
	Generation int64
	// Patterns that the route matches by; none is covered by another.
	Patterns []event.Pattern
	// Rules decide which events of the patterns are delivered, and when; nil for all and at once.
	Rules *Rules
	// Endpoint is where and how its deliveries go.
	Endpoint *engine.Endpoint
	// Quota is what the tenant may use of the dispatcher; nil for the dispatcher's default.
	Quota *Quota
	// Key follows from Identity.
	Key event.SubscriptionKey
	// Subscription is what events that match carry of the route. NewTable makes it where it is nil.
	Subscription *delivery.Subscription
}

// Tenant is the namespace's uid, or its name where that is not known.
func (r *Route) Tenant() string { return cmp.Or(r.Endpoint.Tenant, r.Namespace) }

// subscription returns what events that match the route carry of it.
func (r *Route) subscription() *delivery.Subscription {
	return &delivery.Subscription{Key: r.Key, Tenant: r.Tenant(), Name: r.Name, Ordered: r.Endpoint.Ordered}
}
