package deliveries

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// maxAnswer bounds an answer in bytes: 1,000 deliveries need less than 1 MiB.
	maxAnswer = 8 << 20
	group     = "webhooks.clinikapi.com"
)

// Client is a Source over a dispatcher's HTTP API.
type Client struct {
	base *url.URL
	http *http.Client
}

var _ Source = (*Client)(nil)

// NewClient returns a client of the dispatcher at base. transport adds the user's credentials; redirects are refused, so that
// these reach no other host.
func NewClient(base *url.URL, transport http.RoundTripper) *Client {
	return &Client{base: base, http: &http.Client{
		Transport:     transport,
		Timeout:       20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// wireDelivery is a delivery of docs/publishing.md.
type wireDelivery struct {
	ID    string `json:"id"`
	Event struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	} `json:"event"`
	Subscription    string    `json:"subscription"`
	State           string    `json:"state"`
	AttemptCount    int       `json:"attemptCount"`
	CreatedTime     time.Time `json:"createdTime"`
	NextAttemptTime time.Time `json:"nextAttemptTime"`
	PlannedTime     time.Time `json:"plannedTime"`
	Reason          string    `json:"reason"`
	ReplayOf        string    `json:"replayOf"`
	Attempts        []struct {
		Number         int       `json:"number"`
		StartedTime    time.Time `json:"startedTime"`
		DurationMillis int64     `json:"durationMillis"`
		StatusCode     int       `json:"statusCode"`
		Error          string    `json:"error"`
	} `json:"attempts"`
}

func (w *wireDelivery) delivery(namespace string) Delivery {
	d := Delivery{
		ID: w.ID, Namespace: namespace, Subscription: w.Subscription, EventID: w.Event.ID, EventType: w.Event.Type,
		State: w.State, Reason: w.Reason, ReplayOf: w.ReplayOf, AttemptCount: w.AttemptCount,
		Created: w.CreatedTime, Next: w.NextAttemptTime, Planned: w.PlannedTime,
	}
	for _, a := range w.Attempts {
		d.Attempts = append(d.Attempts, Attempt{
			Number: a.Number, Started: a.StartedTime, Duration: time.Duration(a.DurationMillis) * time.Millisecond,
			StatusCode: a.StatusCode, Error: a.Error,
		})
	}
	return d
}

// List asks for one page.
func (c *Client) List(ctx context.Context, namespace string, query Query) (List, error) {
	values := url.Values{}
	set := func(name, value string) {
		if value != "" {
			values.Set(name, value)
		}
	}
	set("subscription", query.Subscription)
	set("state", query.State)
	set("key", query.Key)
	set("since", wireTime(query.Since))
	set("until", wireTime(query.Until))
	set("continue", query.Continue)
	if query.Limit > 0 {
		values.Set("limit", strconv.Itoa(query.Limit))
	}
	answer := struct {
		Items    []wireDelivery `json:"items"`
		Continue string         `json:"continue"`
	}{}
	if err := c.do(ctx, http.MethodGet, namespace, "deliveries?"+values.Encode(), "list", nil, &answer); err != nil {
		return List{}, err
	}
	list := List{Continue: answer.Continue, Items: make([]Delivery, 0, len(answer.Items))}
	for i := range answer.Items {
		list.Items = append(list.Items, answer.Items[i].delivery(namespace))
	}
	return list, nil
}

func wireTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// Get asks for one delivery with its attempts.
func (c *Client) Get(ctx context.Context, namespace, id string) (Delivery, error) {
	return c.one(ctx, http.MethodGet, namespace, id, "", "get")
}

// Replay delivers one again.
func (c *Client) Replay(ctx context.Context, namespace, id string) (Delivery, error) {
	return c.one(ctx, http.MethodPost, namespace, id, "/replay", "update")
}

// Cancel ends a pending one.
func (c *Client) Cancel(ctx context.Context, namespace, id string) (Delivery, error) {
	return c.one(ctx, http.MethodPost, namespace, id, "/cancel", "update")
}

// SendNow makes a planned one due.
func (c *Client) SendNow(ctx context.Context, namespace, id string) (Delivery, error) {
	return c.one(ctx, http.MethodPost, namespace, id, "/sendnow", "update")
}

func (c *Client) one(ctx context.Context, method, namespace, id, action, verb string) (Delivery, error) {
	answer := wireDelivery{}
	if err := c.do(ctx, method, namespace, "deliveries/"+url.PathEscape(id)+action, verb, nil, &answer); err != nil {
		return Delivery{}, err
	}
	return answer.delivery(namespace), nil
}

// ReplayMany replays as many as the dispatcher does in one request: 10,000, or what 5 s allow.
func (c *Client) ReplayMany(ctx context.Context, namespace string, query Query) (Progress, error) {
	body := map[string]string{}
	for name, value := range map[string]string{
		"subscription": query.Subscription, "state": query.State, "continue": query.Continue,
		"since": wireTime(query.Since), "until": wireTime(query.Until),
	} {
		if value != "" {
			body[name] = value
		}
	}
	var answer Progress
	err := c.do(ctx, http.MethodPost, namespace, "deliveries/replay", "update", body, &answer)
	return answer, err
}

// Payload returns ErrNoPayload: the HTTP API serves none.
func (c *Client) Payload(context.Context, string, string) ([]byte, error) { return nil, ErrNoPayload }

// Publish publishes one event.
func (c *Client) Publish(ctx context.Context, namespace, eventType string, data []byte) (id string, caused int, err error) {
	answer := struct {
		ID         string `json:"id"`
		Deliveries int    `json:"deliveries"`
	}{}
	body := map[string]any{"type": eventType, "data": json.RawMessage(data)}
	err = c.do(ctx, http.MethodPost, namespace, "events", "create", body, &answer)
	return answer.ID, answer.Deliveries, err
}

// do sends a request. verb is the right that it needs.
func (c *Client) do(ctx context.Context, method, namespace, path, verb string, body, answer any) error {
	target, err := c.base.Parse("/v1/namespaces/" + url.PathEscape(namespace) + "/" + path)
	if err != nil {
		return fmt.Errorf("name the dispatcher: %w", err)
	}
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return &Refused{Status: http.StatusBadRequest, Message: "the data is not JSON"}
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), content)
	if err != nil {
		return fmt.Errorf("ask the dispatcher: %w", err)
	}
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("ask the dispatcher: %w", withoutURL(err))
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the dispatcher's answer: %w", err)
	}
	if response.StatusCode/100 != 2 {
		return problem(response.StatusCode, text, verb, path, namespace)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("read the dispatcher's answer: %w", err)
	}
	return nil
}

// withoutURL leaves the URL out of an error: its query may hold a schedule's key.
func withoutURL(err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err
	}
	return err
}

// problem makes an error of a problem document (docs/problems.md).
func problem(status int, text []byte, verb, path, namespace string) error {
	resource := "webhookdeliveries"
	if path == "events" {
		resource = "webhookevents"
	}
	document := struct {
		Detail string `json:"detail"`
		Title  string `json:"title"`
	}{}
	_ = json.Unmarshal(text, &document) // what is no document has no detail
	switch {
	case status == http.StatusForbidden:
		return &Forbidden{Verb: verb, Group: group, Resource: resource, Namespace: namespace}
	case status == http.StatusNotFound && resource == "webhookdeliveries" && verb != "list":
		return ErrNotFound
	case document.Detail != "":
		return &Refused{Status: status, Message: document.Detail}
	case document.Title != "":
		return &Refused{Status: status, Message: document.Title}
	}
	return &Refused{Status: status, Message: fmt.Sprintf("the dispatcher answered %d", status)}
}
