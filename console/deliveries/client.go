package deliveries

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/clinikapi/eventflow/api/client"
	"github.com/clinikapi/eventflow/api/event"
)

const group = "webhooks.clinikapi.com"

// Client is a Source over a dispatcher's HTTP API.
type Client struct{ client *client.Client }

var _ Source = (*Client)(nil)

// NewClient returns a client of the dispatcher at base. transport adds the user's credentials.
func NewClient(base *url.URL, transport http.RoundTripper) (*Client, error) {
	c, err := client.New(client.Config{URL: base.String(), Transport: transport, Timeout: 20 * time.Second, UserAgent: "eventflow-console", RetryFor: -1})
	if err != nil {
		return nil, err
	}
	return &Client{client: c}, nil
}

// deliveryOfClient is a delivery as the pages show it.
func deliveryOfClient(w *client.Delivery, namespace string) Delivery {
	d := Delivery{
		ID: w.ID, Namespace: namespace, Subscription: w.Subscription, EventID: w.Event.ID, EventType: string(w.Event.Type),
		State: string(w.State), Reason: w.Reason, ReplayOf: w.ReplayOf, AttemptCount: w.AttemptCount,
		Created: w.CreatedTime, Next: w.NextAttemptTime, Planned: w.PlannedTime,
	}
	for _, a := range w.Attempts {
		d.Attempts = append(d.Attempts, Attempt{Number: a.Number, Started: a.StartedTime, Duration: a.Duration, StatusCode: a.StatusCode, Error: a.Error})
	}
	return d
}

func queryOfClient(q *Query) client.Query {
	return client.Query{
		Subscription: q.Subscription, State: client.State(q.State), Key: q.Key, Since: q.Since, Until: q.Until, Limit: q.Limit, Continue: q.Continue,
	}
}

// List asks for one page.
func (c *Client) List(ctx context.Context, namespace string, query Query) (List, error) {
	page, err := c.client.Deliveries(ctx, namespace, queryOfClient(&query))
	if err != nil {
		return List{}, explained(err, "list", namespace)
	}
	list := List{Continue: page.Continue, Items: make([]Delivery, 0, len(page.Items))}
	for i := range page.Items {
		list.Items = append(list.Items, deliveryOfClient(&page.Items[i], namespace))
	}
	return list, nil
}

// Get asks for one delivery with its attempts.
func (c *Client) Get(ctx context.Context, namespace, id string) (Delivery, error) {
	d, err := c.client.Delivery(ctx, namespace, id)
	return deliveryOfClient(&d, namespace), explained(err, "get", namespace)
}

// Replay delivers one again.
func (c *Client) Replay(ctx context.Context, namespace, id string) (Delivery, error) {
	d, err := c.client.Replay(ctx, namespace, id)
	return deliveryOfClient(&d, namespace), explained(err, "update", namespace)
}

// Cancel ends a pending one.
func (c *Client) Cancel(ctx context.Context, namespace, id string) (Delivery, error) {
	d, err := c.client.Cancel(ctx, namespace, id)
	return deliveryOfClient(&d, namespace), explained(err, "update", namespace)
}

// SendNow makes a planned one due.
func (c *Client) SendNow(ctx context.Context, namespace, id string) (Delivery, error) {
	d, err := c.client.SendNow(ctx, namespace, id)
	return deliveryOfClient(&d, namespace), explained(err, "update", namespace)
}

// ReplayMany replays as many as the dispatcher does in one request: 10,000, or what 5 s allow.
func (c *Client) ReplayMany(ctx context.Context, namespace string, query Query) (Progress, error) {
	q := queryOfClient(&query)
	q.Limit = 0 // that of the page that the user sees
	done, err := c.client.ReplayMany(ctx, namespace, q)
	return Progress{Replayed: done.Count, Continue: done.Continue}, explained(err, "update", namespace)
}

// Payload returns ErrNoPayload: the HTTP API serves none.
func (c *Client) Payload(context.Context, string, string) ([]byte, error) { return nil, ErrNoPayload }

// Publish publishes one event.
func (c *Client) Publish(ctx context.Context, namespace, eventType string, data []byte) (id string, caused int, err error) {
	if !json.Valid(data) {
		return "", 0, &Refused{Status: http.StatusBadRequest, Message: "the data is not JSON"}
	}
	accepted, err := c.client.Publish(ctx, namespace, client.Event{Type: event.Type(eventType), Data: data})
	return accepted.ID, accepted.Deliveries, explained(err, "create", namespace)
}

// explained makes an error that pages understand. verb is the right that the request needs.
func explained(err error, verb, namespace string) error {
	resource := "webhookdeliveries"
	if verb == "create" {
		resource = "webhookevents"
	}
	if errors.Is(err, client.ErrInvalidName) {
		return ErrNotFound
	}
	p, ok := errors.AsType[*client.Problem](err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return fmt.Errorf("ask the dispatcher: %w", err)
	case p.Status == http.StatusForbidden:
		return &Forbidden{Verb: verb, Group: group, Resource: resource, Namespace: namespace}
	case p.Status == http.StatusNotFound && resource == "webhookdeliveries" && verb != "list":
		return ErrNotFound
	case p.Detail != "":
		return &Refused{Status: p.Status, Message: p.Detail}
	case p.Title != "":
		return &Refused{Status: p.Status, Message: p.Title}
	}
	return &Refused{Status: p.Status, Message: fmt.Sprintf("the dispatcher answered %d", p.Status)}
}

// withoutURL leaves the URL out of an error: its query may hold a schedule's key.
func withoutURL(err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err
	}
	return err
}
