package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// State is how far a delivery is.
type State string

// The states of a delivery. Scheduled is a pending one that waits for its planned time.
const (
	Pending   State = "Pending"
	Scheduled State = "Scheduled"
	Delivered State = "Delivered"
	Failed    State = "Failed"
	Cancelled State = "Cancelled"
)

// MaxLimit is the longest page, in deliveries.
const MaxLimit = 1000

// Delivery is one event for one subscription. Times that are not known are zero.
type Delivery struct {
	// ID is such as "dlv_…".
	ID string `json:"id"`
	// Event is what is delivered.
	Event struct {
		ID   string     `json:"id"`
		Type event.Type `json:"type"`
	} `json:"event"`
	// Subscription is the name of the WebhookSubscription.
	Subscription string `json:"subscription"`
	State        State  `json:"state"`
	// AttemptCount counts all attempts.
	AttemptCount int       `json:"attemptCount"`
	CreatedTime  time.Time `json:"createdTime"`
	// NextAttemptTime is when a pending delivery is due.
	NextAttemptTime time.Time `json:"nextAttemptTime"`
	// PlannedTime is when a schedule planned it for.
	PlannedTime time.Time `json:"plannedTime"`
	// Reason is one word of docs/automations.md, of a delivery that ended without an attempt.
	Reason string `json:"reason"`
	// ReplayOf is the delivery that this one repeats.
	ReplayOf string `json:"replayOf"`
	// Attempts are the newest 50. Deliveries and All leave them out.
	Attempts []Attempt `json:"attempts"`
}

// Attempt is one request for a delivery.
type Attempt struct {
	Number      int
	StartedTime time.Time
	Duration    time.Duration // to the millisecond
	// StatusCode is 0 if there was no answer.
	StatusCode int
	// Error is one word of docs/operations.md; empty if the attempt succeeded.
	Error string
	// Pulled is set if the consumer asked for the delivery, and acknowledged it: Duration is the time between.
	Pulled bool
}

// UnmarshalJSON implements json.Unmarshaler: a duration is a number of milliseconds.
func (a *Attempt) UnmarshalJSON(text []byte) error {
	var on struct {
		Number         int
		StartedTime    time.Time
		DurationMillis int64
		StatusCode     int
		Error          string
		Pulled         bool
	}
	if err := json.Unmarshal(text, &on); err != nil {
		return err
	}
	*a = Attempt{on.Number, on.StartedTime, time.Duration(on.DurationMillis) * time.Millisecond, on.StatusCode, on.Error, on.Pulled}
	return nil
}

// Query selects deliveries of a namespace; what is empty does not narrow it.
type Query struct {
	Subscription string
	State        State
	// Key finds what the Subscription's schedule planned for it, such as the id of an appointment. ReplayMany knows none.
	Key string
	// Since and Until bound the acceptance of the event.
	Since, Until time.Time
	// Limit is the length of a page, of at most MaxLimit; 0 for the dispatcher's default of 100. ReplayMany knows none.
	Limit int
	// Continue is that of the page before.
	Continue string
}

// Page is a part of a list, newest first. Continue goes on behind it, and is empty at the end.
type Page struct {
	Items    []Delivery `json:"items"`
	Continue string     `json:"continue"`
}

// Deliveries returns one page of a namespace's deliveries.
func (c *Client) Deliveries(ctx context.Context, namespace string, q Query) (Page, error) {
	values := url.Values{}
	for name, value := range q.texts() {
		values.Set(name, value)
	}
	if q.Key != "" {
		values.Set("key", q.Key)
	}
	if q.Limit != 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	var page Page
	_, err := c.do(ctx, &request{method: http.MethodGet, namespace: namespace, path: []string{"deliveries"}, query: values}, &page)
	return page, err
}

// texts are the parameters that a list and a replay share, without those that are empty.
func (q *Query) texts() map[string]string {
	texts := map[string]string{}
	set := func(name, value string) {
		if value != "" {
			texts[name] = value
		}
	}
	set("subscription", q.Subscription)
	set("state", string(q.State))
	set("continue", q.Continue)
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			texts[name] = t.UTC().Format(time.RFC3339Nano)
		}
	}
	return texts
}

// All iterates over all deliveries that a query selects, and asks for the next page when it gets there. An error ends it. Pages
// have MaxLimit unless the query says otherwise.
func (c *Client) All(ctx context.Context, namespace string, q Query) iter.Seq2[Delivery, error] {
	if q.Limit == 0 {
		q.Limit = MaxLimit
	}
	return func(yield func(Delivery, error) bool) {
		for next := q; ; {
			page, err := c.Deliveries(ctx, namespace, next)
			if err != nil {
				yield(Delivery{}, err)
				return
			}
			for i := range page.Items {
				if !yield(page.Items[i], nil) {
					return
				}
			}
			if page.Continue == "" {
				return
			}
			next.Continue = page.Continue
		}
	}
}

// Delivery returns one delivery with its attempts. A *Problem of kind NotFound says that it is not kept.
func (c *Client) Delivery(ctx context.Context, namespace, id string) (Delivery, error) {
	return c.one(ctx, http.MethodGet, namespace, id)
}

// Replay delivers one again. A failed or cancelled one keeps its id; of a delivered one it returns a new delivery.
func (c *Client) Replay(ctx context.Context, namespace, id string) (Delivery, error) {
	return c.one(ctx, http.MethodPost, namespace, id, "replay")
}

// Cancel ends a pending one. No attempt begins afterwards.
func (c *Client) Cancel(ctx context.Context, namespace, id string) (Delivery, error) {
	return c.one(ctx, http.MethodPost, namespace, id, "cancel")
}

// SendNow makes a planned one due.
func (c *Client) SendNow(ctx context.Context, namespace, id string) (Delivery, error) {
	return c.one(ctx, http.MethodPost, namespace, id, "sendnow")
}

func (c *Client) one(ctx context.Context, method, namespace, id string, action ...string) (d Delivery, err error) {
	_, err = c.do(ctx, &request{method: method, namespace: namespace, path: append([]string{"deliveries", id}, action...)}, &d)
	return d, err
}

// Replayed says what ReplayMany did.
type Replayed struct {
	// Count is how many deliveries it made pending again.
	Count int `json:"replayed"`
	// Continue goes into the query of the next call. It is empty if nothing is left.
	Continue string `json:"continue"`
}

// ReplayMany replays what a query selects, the newest first; failed deliveries if it names no state. One call does 10,000, or as
// many as 5 s allow.
func (c *Client) ReplayMany(ctx context.Context, namespace string, q Query) (Replayed, error) {
	if q.Key != "" || q.Limit != 0 { // it would replay more than was meant
		return Replayed{}, errors.New("a replay of many deliveries selects by no key, and has no limit")
	}
	body, err := json.Marshal(q.texts())
	if err != nil {
		return Replayed{}, fmt.Errorf("write the query: %w", err)
	}
	var answer Replayed
	_, err = c.do(ctx, &request{method: http.MethodPost, namespace: namespace, path: []string{"deliveries", "replay"}, body: body}, &answer)
	return answer, err
}
