package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// The pauses of Publish where the dispatcher names none.
const (
	firstPause = 250 * time.Millisecond
	maxPause   = 10 * time.Second
)

// Event is an event to publish.
type Event struct {
	// ID is 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':' and '-'. Publish makes one if it is empty. A producer that keeps its events
	// gives them ids of its own, so that an event is the same one after a restart.
	ID string `json:"id"`
	// Type is such as "appointment.created".
	Type event.Type `json:"type"`
	// Timestamp is when it happened; the time of acceptance if zero.
	Timestamp time.Time `json:"timestamp"`
	// Data is a JSON object. It is delivered byte for byte.
	Data json.RawMessage `json:"data"`
	// Previous is how the resource was before, for filters; it is never delivered.
	Previous json.RawMessage `json:"previous"`
}

// appendTo appends the event as JSON, with Data as it stands: json.Marshal would change its bytes.
func (e *Event) appendTo(b []byte) ([]byte, error) {
	if err := event.CheckID(e.ID); err != nil {
		return nil, fmt.Errorf("the event's id is not valid: %w", err)
	}
	kind, err := json.Marshal(e.Type)
	if err != nil {
		return nil, fmt.Errorf("write the event's type: %w", err)
	}
	b = append(append(b, `{"id":"`...), e.ID...)
	b = append(append(b, `","type":`...), kind...)
	if !e.Timestamp.IsZero() {
		b = append(b, `,"timestamp":"`...)
		b = append(e.Timestamp.UTC().AppendFormat(b, time.RFC3339Nano), '"')
	}
	for _, part := range []struct {
		key   string
		value json.RawMessage
	}{{"data", e.Data}, {"previous", e.Previous}} {
		if len(part.value) == 0 {
			continue
		}
		if !json.Valid(part.value) { // without the error, which shows a byte of it
			return nil, fmt.Errorf("the event's %s is not JSON", part.key)
		}
		b = append(append(append(b, `,"`...), part.key...), `":`...)
		b = append(b, part.value...)
	}
	return append(b, '}'), nil
}

// Accepted says that an event and its deliveries are on disk.
type Accepted struct {
	// ID is the event's.
	ID string `json:"id"`
	// Deliveries is how many subscriptions the event matched, which can be 0.
	Deliveries int `json:"deliveries"`
	// Repeated is set if the dispatcher knew the events of the request already: an earlier attempt had stored them.
	Repeated bool `json:"-"`
}

// Publish publishes one event in a namespace, and again until the dispatcher has answered for it. See the package's comment.
func (c *Client) Publish(ctx context.Context, namespace string, e Event) (Accepted, error) {
	if e.ID == "" {
		e.ID = event.NewID(time.Now())
	}
	var answer Accepted
	body, err := e.appendTo(nil)
	if err != nil {
		return answer, err
	}
	status, err := c.publish(ctx, namespace, body, &answer)
	answer.Repeated = status == http.StatusOK
	return answer, err
}

// PublishAll publishes up to 1,000 events and 8 MiB, all of them or none, and returns the answers in the order of the events. It
// tries again like Publish.
func (c *Client) PublishAll(ctx context.Context, namespace string, events []Event) ([]Accepted, error) {
	body := []byte{'['}
	for i, e := range events {
		if e.ID == "" {
			e.ID = event.NewID(time.Now())
		}
		if i > 0 {
			body = append(body, ',')
		}
		var err error
		if body, err = e.appendTo(body); err != nil {
			return nil, fmt.Errorf("event at index %d: %w", i, err)
		}
	}
	var answers []Accepted
	status, err := c.publish(ctx, namespace, append(body, ']'), &answers)
	if err != nil {
		return nil, err
	}
	if len(answers) != len(events) {
		return nil, fmt.Errorf("the answer is about %d events, and not about %d", len(answers), len(events))
	}
	for i := range answers {
		answers[i].Repeated = status == http.StatusOK
	}
	return answers, nil
}

// publish posts a body until it is accepted or refused, or the time for it has passed. It gives up early if the next attempt may
// not begin in time.
func (c *Client) publish(ctx context.Context, namespace string, body []byte, answer any) (status int, err error) {
	asked := &request{method: http.MethodPost, namespace: namespace, path: []string{"events"}, body: body}
	end := time.Now().Add(c.retryFor)
	for attempt := 0; ; attempt++ {
		status, err = c.do(ctx, asked, answer)
		after, temporary := c.pause(attempt, err)
		if !temporary || !time.Now().Add(after).Before(end) {
			return status, err
		}
		if late := wait(ctx, after); late != nil {
			return 0, fmt.Errorf("%w; the last attempt: %w", late, err)
		}
	}
}

// pause returns how long to wait before the next attempt, and whether there is to be one.
func (c *Client) pause(attempt int, err error) (after time.Duration, temporary bool) {
	backoff := min(firstPause<<min(attempt, 16), maxPause)
	if _, ok := errors.AsType[*UnreachableError](err); ok {
		return backoff/2 + c.random(backoff/2), true
	}
	p, ok := errors.AsType[*Problem](err)
	switch {
	case !ok || !p.Temporary():
		return 0, false
	case p.RetryAfter > 0: // not before; a bit later, so that not all clients come at once
		return p.RetryAfter + c.random(p.RetryAfter/4), true
	}
	return backoff/2 + c.random(backoff/2), true
}

// wait returns nil after a time, or the context's error.
func wait(ctx context.Context, after time.Duration) error {
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
