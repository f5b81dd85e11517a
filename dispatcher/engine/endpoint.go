package engine

import (
	"context"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

// Endpoint is where and how a subscription's deliveries go, as of now: each attempt asks for it anew. It is immutable
// once made.
type Endpoint struct {
	// Tenant of the subscription: the only one whose events it is ever sent.
	Tenant string
	// Namespace is the tenant's name. Events that were stored before tenants had uids carry it in place of one; they are due
	// to subscriptions of that time alone, whose keys no later namespace of the name has.
	Namespace string
	// Target is nil while the subscription is not accepted and its deliveries wait.
	Target *egress.Target
	// Recipe says what is sent, and what an answer means; nil for events as they are stored, and answers of 2xx.
	Recipe *payload.Recipe
	Retry  RetryPolicy
	// MaxInFlight bounds the attempts under way at once; at least 1.
	MaxInFlight int
	// Ordered deliveries about one resource go one at a time, in the order in which their events were accepted.
	Ordered bool
	// Pull says that the consumer asks for its deliveries: they wait, age, and are never attempted here. Target then signs
	// them, and leads nowhere.
	Pull bool
	// Suspended deliveries wait, and age.
	Suspended bool
	// RequestsPerSecond bounds the rate of attempts; 0 for no bound.
	RequestsPerSecond int
	// Generation of the spec: a change of it resumes an endpoint that answered 410.
	Generation int64
	// TenantInFlight bounds the attempts under way to all endpoints of the tenant; 0 for no bound but the engine's, and
	// DefaultInFlight for the engine's own default.
	TenantInFlight int
}

// DefaultInFlight stands for Options.TenantInFlight.
const DefaultInFlight = -1

// Endpoints finds the endpoint of a subscription, and false if the subscription does not exist. A routing table is one.
type Endpoints interface {
	Endpoint(key event.SubscriptionKey) (*Endpoint, bool)
}

// RetryPolicy is when a failed delivery is attempted again: after Initial, then after Factor times the delay before, at
// most Max, until MaxAge after the event was accepted.
type RetryPolicy struct {
	Initial, Max, MaxAge time.Duration
	Factor               int
	MaxAttempts          int // 0: only MaxAge bounds
}

// Sender makes one attempt. payload.Sender is the one that dispatchers use.
type Sender interface {
	Send(ctx context.Context, request payload.Request) egress.Result
}
