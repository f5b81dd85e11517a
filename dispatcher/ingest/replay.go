package ingest

import (
	"net/http"

	"github.com/clinikapi/eventflow/dispatcher/query"
)

// maxReplayBodySize bounds the body of a replay of many deliveries.
const maxReplayBodySize = 64 << 10

// replayAnswer says what became of a replay of many deliveries.
type replayAnswer struct {
	// Replayed is how many deliveries this request made pending again.
	Replayed int `json:"replayed"`
	// Continue goes on where the request stopped: sent along in the body of the next one. Empty if nothing is left.
	Continue string `json:"continue"`
}

// replayMany delivers again what a body selects, newest first, until all is done or the request has done its share.
func (h *Handler) replayMany(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	selection, err := h.parseReplay(w, r, c.tenant)
	if err != nil {
		return 0, err
	}
	replayed, err := h.options.Deliveries.ReplayMany(r.Context(), selection)
	if err != nil {
		return 0, h.storeProblem(err, false)
	}
	answer := replayAnswer{Replayed: replayed.Count, Continue: replayed.Continue}
	return http.StatusAccepted, h.answer(w, http.StatusAccepted, answer)
}

// parseReplay reads what to replay. No body selects what an empty object does: every failed delivery of the namespace.
func (h *Handler) parseReplay(w http.ResponseWriter, r *http.Request, tenant string) (selection query.Selection, err error) {
	body := bodyBuffer{account: account{memory: h.memory, tenant: tenant}}
	defer body.close()
	if err := h.receive(w, r, tenant, &body, maxReplayBodySize); err != nil {
		return selection, err
	}
	var since, until string
	selection.Tenant = tenant
	fields := map[string]*string{
		"subscription": &selection.Subscription, "state": &selection.State, "since": &since, "until": &until, "continue": &selection.Continue,
	}
	if len(body.bytes) > 0 {
		if err := readStrings(body.bytes, fields); err != nil {
			return selection, err
		}
	}
	err = setSpan(&selection, since, until)
	return selection, err
}

// readStrings reads an object whose members are strings, each at most once.
func readStrings(text []byte, fields map[string]*string) error {
	var d document
	if err := d.start(text); err != nil {
		return err
	}
	seen := make(map[string]bool, len(fields))
	err := d.members("the body", func(key []byte) error {
		name := string(key)
		field, ok := fields[name]
		if !ok {
			return newProblem(malformed, "there is no key %s; there are subscription, state, since, until, continue", quoted(name))
		}
		if seen[name] {
			return newProblem(malformed, "key %s stands twice", name)
		}
		seen[name] = true
		value, _, err := d.string(name)
		*field = string(value)
		return err
	})
	if err != nil {
		return err
	}
	return d.end()
}
