package ingest

import (
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// The bounds of a replay of many deliveries. Each is made durable; those that are made at once share the store's commits.
const (
	replayPageSize    = 500
	replaysAtOnce     = 32
	maxReplays        = 10_000          // per request
	maxReplayTime     = 5 * time.Second // after it, no further page
	maxReplayBodySize = 64 << 10
)

// replay delivers one delivery again, and answers with it.
func (h *Handler) replay(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	id, err := event.ParseDeliveryID(c.delivery)
	if err != nil {
		return 0, deliveryNotFound()
	}
	ctx := context.WithoutCancel(r.Context()) // as a publish: what the store has begun, the engine has to hear of
	pending, err := h.options.Store.Replay(ctx, c.tenant, id)
	if err != nil {
		return 0, h.storeProblem(err, false)
	}
	h.resume(c.tenant, []delivery.PendingDelivery{pending})
	record, err := h.options.Store.Get(ctx, c.tenant, pending.ID)
	if err != nil {
		return 0, h.storeProblem(err, false)
	}
	return http.StatusAccepted, h.answer(w, http.StatusAccepted, fullViewOf(&record, h.options.Now()))
}

// replayAnswer says what became of a replay of many deliveries.
type replayAnswer struct {
	// Replayed is how many deliveries this request made pending again.
	Replayed int `json:"replayed"`
	// Continue goes on where the request stopped: sent along in the body of the next one. Empty if nothing is left.
	Continue string `json:"continue"`
}

// replayMany delivers again what a query selects, newest first, until all is done or the request has done its share. It
// only ever goes on to older deliveries, and so does not meet the new ones that replays of delivered ones are.
func (h *Handler) replayMany(w http.ResponseWriter, r *http.Request, c call) (status int, err error) {
	query, err := h.parseReplay(w, r, c.tenant)
	if err != nil {
		return 0, err
	}
	started := time.Now()
	query.Limit = replayPageSize
	answer := replayAnswer{}
	for seen := 0; ; {
		page, err := h.replayPage(r.Context(), &query)
		answer.Replayed += page.replayed
		if err != nil && seen == 0 {
			return 0, h.storeProblem(err, false)
		}
		if err == nil && page.last {
			break
		}
		seen += page.seen
		if err != nil || seen >= maxReplays || time.Since(started) >= maxReplayTime {
			answer.Continue = continueToken("replay", &query, query.Before)
			break
		}
	}
	return http.StatusAccepted, h.answer(w, http.StatusAccepted, answer)
}

// pageResult is what became of one page of a replay.
type pageResult struct {
	seen, replayed int
	last           bool
}

// replayPage replays the next deliveries that query selects, and moves the query behind them.
func (h *Handler) replayPage(ctx context.Context, query *store.Query) (page pageResult, err error) {
	records, err := h.options.Store.List(ctx, *query)
	if err != nil {
		return page, err
	}
	page = pageResult{seen: len(records), last: len(records) < query.Limit}
	page.replayed, err = h.replayAll(ctx, query.Tenant, records)
	if err == nil && !page.last {
		query.Before = records[len(records)-1].ID
	}
	return page, err
}

// replayAll replays the given deliveries and hands them to the engine. Those that became pending meanwhile, or are not
// kept any more, are passed over.
func (h *Handler) replayAll(ctx context.Context, tenant string, records []store.Record) (replayed int, err error) {
	pending := make([]delivery.PendingDelivery, len(records))
	done := make([]bool, len(records))
	var group errgroup.Group
	group.SetLimit(replaysAtOnce)
	for i := range records {
		if ctx.Err() != nil {
			break // the client left: finish what was begun
		}
		group.Go(func() (err error) {
			pending[i], err = h.options.Store.Replay(context.WithoutCancel(ctx), tenant, records[i].ID)
			done[i] = err == nil
			if errors.Is(err, store.ErrStillPending) || errors.Is(err, store.ErrNotFound) {
				return nil
			}
			return err
		})
	}
	err = group.Wait()
	for i := range pending {
		if done[i] {
			pending[replayed] = pending[i]
			replayed++
		}
	}
	if replayed > 0 {
		h.resume(tenant, pending[:replayed])
	}
	if err == nil {
		err = ctx.Err()
	}
	return replayed, err
}

// parseReplay reads what to replay. No body selects what an empty object does: every failed delivery of the namespace.
func (h *Handler) parseReplay(w http.ResponseWriter, r *http.Request, tenant string) (store.Query, error) {
	query := store.Query{Tenant: tenant, State: delivery.Failed}
	body := bodyBuffer{account: account{memory: h.memory, tenant: tenant}}
	defer body.close()
	if err := h.receive(w, r, tenant, &body, maxReplayBodySize); err != nil {
		return query, err
	}
	fields := map[string]*string{"subscription": new(string), "state": new(string), "since": new(string), "until": new(string), "continue": new(string)}
	if len(body.bytes) > 0 {
		if err := readStrings(body.bytes, fields); err != nil {
			return query, err
		}
	}
	if *fields["state"] == "" {
		*fields["state"] = delivery.Failed.String()
	}
	err := setQuery(&query, *fields["subscription"], *fields["state"], *fields["since"], *fields["until"])
	if err != nil {
		return query, err
	}
	if query.State == delivery.Pending { // or scheduled
		return query, newProblem(malformed, "state must be Failed, Delivered or Cancelled: a pending delivery is on its way already")
	}
	if token := *fields["continue"]; token != "" {
		query.Before, err = parseContinueToken("replay", &query, token)
	}
	return query, err
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
