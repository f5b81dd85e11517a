package event

import (
	"slices"
	"strings"
)

// Operational is the resource of Event Flow's own events: what it has to say about a tenant's subscriptions. Nobody
// publishes them, and All does not match them.
const Operational = "eventflow"

// The operational types. Each is about one subscription, and is never delivered to that subscription.
const (
	// EndpointFailing: ten attempts in a row failed; deliveries go one at a time until one succeeds.
	EndpointFailing Type = Operational + ".endpoint.failing"
	// EndpointRecovered: an endpoint that was failing or gone took a delivery.
	EndpointRecovered Type = Operational + ".endpoint.recovered"
	// EndpointGone: the endpoint answered 410; deliveries wait until the subscription changes.
	EndpointGone Type = Operational + ".endpoint.gone"
	// DeliveryFailed: a delivery was given up.
	DeliveryFailed Type = Operational + ".delivery.failed"
	// KeyRotated: another list of keys signs the deliveries.
	KeyRotated Type = Operational + ".key.rotated"
)

// OperationalTypes lists them.
var OperationalTypes = []Type{EndpointFailing, EndpointRecovered, EndpointGone, DeliveryFailed, KeyRotated}

// IsOperational reports whether t is an event of Event Flow's own: of the family "eventflow", also one of a later version.
func (t Type) IsOperational() bool { return strings.HasPrefix(string(t), Operational+".") }

// isOperationalPattern reports whether s is "eventflow.*" or an operational type.
func isOperationalPattern(s string) bool {
	return s == Operational+".*" || slices.Contains(OperationalTypes, Type(s))
}
