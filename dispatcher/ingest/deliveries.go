package ingest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// How many deliveries a list holds.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// maxNameLength is how long a subscription's name can be (RFC 1123 subdomain).
const maxNameLength = 253

// deliveryList is the answer to a list.
type deliveryList struct {
	Items []deliveryView `json:"items"`
	// Continue goes on where the list ends; empty at its end.
	Continue string `json:"continue"`
}

// deliveryView is a delivery as the API shows it. Times are RFC 3339, UTC, to the millisecond.
type deliveryView struct {
	ID    string `json:"id"`
	Event struct {
		ID   string     `json:"id"`
		Type event.Type `json:"type"`
	} `json:"event"`
	Subscription    string `json:"subscription"`
	State           string `json:"state"`
	AttemptCount    int    `json:"attemptCount"`
	CreatedTime     string `json:"createdTime"`
	NextAttemptTime string `json:"nextAttemptTime,omitempty"`
	// PlannedTime is when a schedule planned it for; left out without one.
	PlannedTime string `json:"plannedTime,omitempty"`
	// Reason is one CamelCase word, of a delivery that ended without an attempt.
	Reason   string        `json:"reason,omitempty"`
	ReplayOf string        `json:"replayOf,omitempty"`
	Attempts []attemptView `json:"attempts,omitzero"` // left out of lists, [] before the first
}

// attemptView is an attempt as the API shows it.
type attemptView struct {
	Number         int    `json:"number"`
	StartedTime    string `json:"startedTime"`
	DurationMillis int64  `json:"durationMillis"`
	// StatusCode is left out if there was no answer.
	StatusCode int `json:"statusCode,omitempty"`
	// Error is one CamelCase word, left out if the attempt succeeded.
	Error string `json:"error,omitempty"`
}

// stateScheduled is a view of Pending: the delivery waits for its planned time.
const stateScheduled = "Scheduled"

func viewOf(r *store.Record, now time.Time) deliveryView {
	v := deliveryView{
		ID:           r.ID.String(),
		Subscription: r.Subscription,
		State:        r.State.String(),
		AttemptCount: r.AttemptCount,
		CreatedTime:  wireTime(r.Created),
	}
	v.Event.ID, v.Event.Type = r.EventID, r.Type
	if r.State == delivery.Pending && !r.Due.IsZero() {
		v.NextAttemptTime = wireTime(r.Due)
	}
	if !r.Planned.IsZero() {
		v.PlannedTime = wireTime(r.Planned)
		if r.State == delivery.Pending && r.AttemptCount == 0 && r.Due.Equal(r.Planned) && r.Planned.After(now) {
			v.State = stateScheduled
		}
	}
	v.Reason = string(r.Reason)
	if r.ReplayOf != (event.DeliveryID{}) {
		v.ReplayOf = r.ReplayOf.String()
	}
	return v
}

// fullViewOf is viewOf with the attempts.
func fullViewOf(r *store.Record, now time.Time) deliveryView {
	v := viewOf(r, now)
	v.Attempts = make([]attemptView, 0, len(r.Attempts))
	for _, a := range r.Attempts {
		v.Attempts = append(v.Attempts, attemptView{
			Number:         a.Number,
			StartedTime:    wireTime(a.Started),
			DurationMillis: a.Duration.Milliseconds(),
			StatusCode:     a.StatusCode,
			Error:          string(a.Reason),
		})
	}
	return v
}

func wireTime(t time.Time) string { return t.UTC().Format(event.TimeFormat) }

// list answers with the deliveries that the query selects, newest first.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	query, limit, err := parseQuery(r.URL.RawQuery, c.tenant)
	if err != nil {
		return 0, err
	}
	query.Limit = limit + 1 // one more reports whether there are more
	records, err := h.options.Store.List(r.Context(), query)
	if err != nil {
		return 0, h.storeProblem(err, false)
	}
	answer := deliveryList{Items: make([]deliveryView, 0, min(len(records), limit))}
	for i := range records {
		if i == limit {
			answer.Continue = continueToken("list", &query, records[i-1].ID)
			break
		}
		answer.Items = append(answer.Items, viewOf(&records[i], h.options.Now()))
	}
	return http.StatusOK, h.answer(w, http.StatusOK, answer)
}

// get answers with one delivery.
func (h *Handler) get(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	id, err := event.ParseDeliveryID(c.delivery)
	if err != nil {
		return 0, deliveryNotFound()
	}
	record, err := h.options.Store.Get(r.Context(), c.tenant, id)
	if err != nil {
		return 0, h.storeProblem(err, false)
	}
	return http.StatusOK, h.answer(w, http.StatusOK, fullViewOf(&record, h.options.Now()))
}

func deliveryNotFound() *problem {
	return newProblem(notFound, "the namespace has no such delivery, or it is not kept any more")
}

// answer writes a value as JSON.
func (h *Handler) answer(w http.ResponseWriter, status int, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	writeJSON(w, status, append(body, '\n'))
	return nil
}

// queryParameters are what a list can be selected by.
var queryParameters = []string{"subscription", "state", "key", "since", "until", "limit", "continue"}

// parseQuery reads a list's parameters.
func parseQuery(raw, tenant string) (store.Query, int, error) {
	query := store.Query{Tenant: tenant}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return query, 0, newProblem(malformed, "the query is not percent-encoded as a URL has it")
	}
	for name, given := range values {
		if !slices.Contains(queryParameters, name) {
			return query, 0, newProblem(malformed, "there is no parameter %s; there are %s", quoted(name), strings.Join(queryParameters, ", "))
		}
		if len(given) > 1 {
			return query, 0, newProblem(malformed, "parameter %s stands more than once", name)
		}
	}
	if err := setQuery(&query, values.Get("subscription"), values.Get("state"), values.Get("since"), values.Get("until")); err != nil {
		return query, 0, err
	}
	if err := setKey(&query, values.Get("key")); err != nil {
		return query, 0, err
	}
	limit := defaultLimit
	if text := values.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxLimit {
			return query, 0, newProblem(malformed, "limit must be between 1 and %d", maxLimit)
		}
	}
	if token := values.Get("continue"); token != "" {
		if query.Before, err = parseContinueToken("list", &query, token); err != nil {
			return query, 0, err
		}
	}
	return query, limit, nil
}

// setQuery sets what deliveries are selected by, each where it is not empty.
func setQuery(query *store.Query, subscription, state, since, until string) (err error) {
	if len(subscription) > maxNameLength {
		return newProblem(malformed, "subscription must be a subscription's name")
	}
	query.Subscription = subscription
	if strings.EqualFold(state, stateScheduled) {
		query.Scheduled, state = true, delivery.Pending.String()
	}
	if state != "" {
		if query.State, err = parseState(state); err != nil {
			return err
		}
	}
	if query.Since, err = parseTime("since", since); err != nil {
		return err
	}
	query.Until, err = parseTime("until", until)
	return err
}

// setKey sets the key of a schedule by which deliveries are selected, if there is one. Errors do not show it.
func setKey(query *store.Query, text string) (err error) {
	if text == "" {
		return nil
	}
	if query.Subscription == "" {
		return newProblem(malformed, "key is the key of one subscription's schedule: name the subscription, too")
	}
	if query.Key, err = plan.NewKey(text); err != nil {
		return newProblem(malformed, "%v", err)
	}
	return nil
}

func parseState(text string) (delivery.State, error) {
	for _, state := range []delivery.State{delivery.Pending, delivery.Delivered, delivery.Failed, delivery.Cancelled} {
		if strings.EqualFold(text, state.String()) {
			return state, nil
		}
	}
	return 0, newProblem(malformed, "state must be Pending, Scheduled, Delivered, Failed or Cancelled")
}

func parseTime(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	var in incoming
	if err := in.setTimestamp([]byte(text), name); err != nil {
		return time.Time{}, err
	}
	return in.timestamp, nil
}
