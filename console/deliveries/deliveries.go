package deliveries

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The states of a delivery. Scheduled is a pending one that waits for its planned time.
const (
	Pending   = "Pending"
	Scheduled = "Scheduled"
	Delivered = "Delivered"
	Failed    = "Failed"
	Cancelled = "Cancelled"
)

// States are all states, as filters offer them.
var States = []string{Failed, Pending, Scheduled, Delivered, Cancelled}

// Delivery is one event for one subscription. Times that are not known are zero.
type Delivery struct {
	ID           string
	Namespace    string
	Subscription string
	EventID      string
	EventType    string
	State        string
	// Reason is one word, of a delivery that ended without an attempt.
	Reason   string
	ReplayOf string
	// AttemptCount counts all attempts; Attempts holds the newest, newest last, and only of a single delivery.
	AttemptCount int
	Attempts     []Attempt
	Created      time.Time
	Next         time.Time
	Planned      time.Time
}

// Attempt is one request for a delivery.
type Attempt struct {
	Number   int
	Started  time.Time
	Duration time.Duration
	// StatusCode is 0 if there was no answer.
	StatusCode int
	// Error is one word of docs/operations.md, empty if the attempt succeeded.
	Error string
}

// Query selects deliveries of a namespace; what is empty does not narrow it. Since and Until bound acceptance.
type Query struct {
	Subscription string
	State        string
	Key          string
	Since, Until time.Time
	// Limit is at most 1,000; 0 means 100.
	Limit    int
	Continue string
}

// List is one page, newest first. Continue goes on behind it, and is empty at the end.
type List struct {
	Items    []Delivery
	Continue string
}

// Progress is what one step of a replay of many did. Continue goes into the next step; empty, all is done.
type Progress struct {
	Replayed int
	Continue string
}

// Source is deliveries with one user's rights. Errors are ErrUnavailable, *Forbidden, ErrNotFound, *Refused, or others that
// say that the dispatcher could not be asked.
type Source interface {
	List(ctx context.Context, namespace string, query Query) (List, error)
	Get(ctx context.Context, namespace, id string) (Delivery, error)
	Replay(ctx context.Context, namespace, id string) (Delivery, error)
	// ReplayMany replays a bounded share of what the query selects, and reports how to go on.
	ReplayMany(ctx context.Context, namespace string, query Query) (Progress, error)
	Cancel(ctx context.Context, namespace, id string) (Delivery, error)
	SendNow(ctx context.Context, namespace, id string) (Delivery, error)
	// Payload returns the data of an event. It is health information: no caller keeps or logs it.
	Payload(ctx context.Context, namespace, eventID string) ([]byte, error)
	// Publish publishes one event, and returns its id and how many deliveries it caused.
	Publish(ctx context.Context, namespace, eventType string, data []byte) (id string, caused int, err error)
}

var (
	// ErrUnavailable says that the console has no way to deliveries.
	ErrUnavailable = errors.New("deliveries are not reachable from this console")
	// ErrNotFound says that there is no such delivery, or that it is not kept any more.
	ErrNotFound = errors.New("there is no such delivery, or it is not kept any more")
	// ErrNoPayload says that this way to deliveries serves no payloads.
	ErrNoPayload = errors.New("this way to deliveries serves no payloads")
)

// Forbidden says which right is missing.
type Forbidden struct {
	Verb, Group, Resource, Namespace string
}

// Error names the verb and the resource.
func (f *Forbidden) Error() string {
	return fmt.Sprintf("you may not %s %s.%s in namespace %s", f.Verb, f.Resource, f.Group, f.Namespace)
}

// Refused is an answer that says why something cannot be done. Message is the server's, and shows no data.
type Refused struct {
	Status  int
	Message string
}

// Error is the message.
func (r *Refused) Error() string { return r.Message }

// None is a Source without a way to any dispatcher.
type None struct{}

var _ Source = None{}

// List returns ErrUnavailable.
func (None) List(context.Context, string, Query) (List, error) { return List{}, ErrUnavailable }

// Get returns ErrUnavailable.
func (None) Get(context.Context, string, string) (Delivery, error) {
	return Delivery{}, ErrUnavailable
}

// Replay returns ErrUnavailable.
func (None) Replay(context.Context, string, string) (Delivery, error) {
	return Delivery{}, ErrUnavailable
}

// ReplayMany returns ErrUnavailable.
func (None) ReplayMany(context.Context, string, Query) (Progress, error) {
	return Progress{}, ErrUnavailable
}

// Cancel returns ErrUnavailable.
func (None) Cancel(context.Context, string, string) (Delivery, error) {
	return Delivery{}, ErrUnavailable
}

// SendNow returns ErrUnavailable.
func (None) SendNow(context.Context, string, string) (Delivery, error) {
	return Delivery{}, ErrUnavailable
}

// Payload returns ErrUnavailable.
func (None) Payload(context.Context, string, string) ([]byte, error) { return nil, ErrUnavailable }

// Publish returns ErrUnavailable.
func (None) Publish(context.Context, string, string, []byte) (id string, caused int, err error) {
	return "", 0, ErrUnavailable
}
