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
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// defaultLimit is how many deliveries a list holds.
const defaultLimit = 100

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
	// Pulled is set if the consumer asked for the delivery, and acknowledged it.
	Pulled bool `json:"pulled,omitempty"`
}

func viewOf(r *store.Record, now time.Time) deliveryView {
	v := deliveryView{
		ID:           r.ID.String(),
		Subscription: r.Subscription,
		State:        query.StateOf(r, now),
		AttemptCount: r.AttemptCount,
		CreatedTime:  wireTime(r.Created),
	}
	v.Event.ID, v.Event.Type = r.EventID, r.Type
	if r.State == delivery.Pending && !r.Due.IsZero() {
		v.NextAttemptTime = wireTime(r.Due)
	}
	if !r.Planned.IsZero() {
		v.PlannedTime = wireTime(r.Planned)
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
			Pulled:         a.Pulled(),
		})
	}
	return v
}

func wireTime(t time.Time) string { return t.UTC().Format(event.TimeFormat) }

// list answers with the deliveries that the query selects, newest first.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	selection, limit, err := parseQuery(r.URL.RawQuery, c.tenant)
	if err != nil {
		return 0, err
	}
	page, err := h.options.Deliveries.List(r.Context(), selection, limit)
	if err != nil {
		return 0, h.storeProblem(err, false)
	}
	answer := deliveryList{Items: make([]deliveryView, 0, len(page.Records)), Continue: page.Continue}
	for i := range page.Records {
		answer.Items = append(answer.Items, viewOf(&page.Records[i], h.options.Now()))
	}
	return http.StatusOK, h.answer(w, http.StatusOK, answer)
}

// get answers with one delivery.
func (h *Handler) get(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	record, err := h.options.Deliveries.Get(r.Context(), c.tenant, c.delivery)
	return h.answerDelivery(w, http.StatusOK, &record, err)
}

// cancel ends one pending delivery, and answers with it.
func (h *Handler) cancel(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	record, err := h.options.Deliveries.Cancel(r.Context(), c.tenant, c.delivery)
	return h.answerDelivery(w, http.StatusOK, &record, err)
}

// sendNow makes one planned delivery due, and answers with it.
func (h *Handler) sendNow(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	record, err := h.options.Deliveries.SendNow(r.Context(), c.tenant, c.delivery)
	return h.answerDelivery(w, http.StatusAccepted, &record, err)
}

// replay delivers one delivery again, and answers with it.
func (h *Handler) replay(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	record, err := h.options.Deliveries.Replay(r.Context(), c.tenant, c.delivery)
	return h.answerDelivery(w, http.StatusAccepted, &record, err)
}

// answerDelivery answers with a delivery and its attempts, unless there is an error.
func (h *Handler) answerDelivery(w http.ResponseWriter, status int, record *store.Record, err error) (int, error) {
	if err != nil {
		return 0, h.storeProblem(err, false)
	}
	return status, h.answer(w, status, fullViewOf(record, h.options.Now()))
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
func parseQuery(raw, tenant string) (selection query.Selection, limit int, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return selection, 0, newProblem(malformed, "the query is not percent-encoded as a URL has it")
	}
	for name, given := range values {
		if !slices.Contains(queryParameters, name) {
			return selection, 0, newProblem(malformed, "there is no parameter %s; there are %s", quoted(name), strings.Join(queryParameters, ", "))
		}
		if len(given) > 1 {
			return selection, 0, newProblem(malformed, "parameter %s stands more than once", name)
		}
	}
	selection = query.Selection{
		Tenant: tenant, Subscription: values.Get("subscription"), State: values.Get("state"), Key: values.Get("key"),
		Continue: values.Get("continue"),
	}
	if err := setSpan(&selection, values.Get("since"), values.Get("until")); err != nil {
		return selection, 0, err
	}
	limit = defaultLimit
	if text := values.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil { // List checks the bounds
			return selection, 0, newProblem(malformed, "limit must be between 1 and %d", query.MaxLimit)
		}
	}
	return selection, limit, nil
}

// setSpan sets between which times deliveries are selected.
func setSpan(selection *query.Selection, since, until string) (err error) {
	if selection.Since, err = parseTime("since", since); err != nil {
		return err
	}
	selection.Until, err = parseTime("until", until)
	return err
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
