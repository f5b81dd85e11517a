package query

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// The bounds of a replay of many deliveries. Each is made durable; those that are made at once share the store's commits.
const (
	replayPageSize = 500
	replaysAtOnce  = 32
	maxReplays     = 10_000          // per call
	maxReplayTime  = 5 * time.Second // after it, no further page
)

// Replay delivers a finished delivery again, and returns what is on its way then: the same delivery, or a new one if it was
// Delivered. store.ErrNotFound, ErrStillPending and others of Store.Replay.
func (d *Deliveries) Replay(ctx context.Context, tenant, id string) (store.Record, error) {
	parsed, err := parseID(id)
	if err != nil {
		return store.Record{}, err
	}
	ctx = context.WithoutCancel(ctx) // what the store has begun, the engine has to hear of
	pending, err := d.options.Store.Replay(ctx, tenant, parsed)
	if err != nil {
		return store.Record{}, err
	}
	d.resume(tenant, []delivery.PendingDelivery{pending})
	return d.options.Store.Get(ctx, tenant, pending.ID)
}

// resume hands deliveries that were replayed to the engine. Quotas count them, and do not refuse them.
func (d *Deliveries) resume(tenant string, pending []delivery.PendingDelivery) {
	if d.options.Quota != nil {
		bytes := int64(0)
		for i := range pending {
			bytes += int64(pending[i].Size)
		}
		d.options.Quota.Add(tenant, int64(len(pending)), bytes)
	}
	d.options.Resume(pending)
}

// Replayed says what became of a replay of many deliveries.
type Replayed struct {
	// Count is how many deliveries the call made pending again.
	Count int
	// Continue goes on where the call stopped; empty if nothing is left.
	Continue string
}

// ReplayMany delivers again what s selects, newest first, until all is done or the call has done its share: 10,000
// deliveries, or 5 s. It only ever goes on to older deliveries, and so does not meet the new ones that replays of delivered
// ones are. No state selects what is Failed. An error means that nothing was seen; after that, Continue repeats what failed.
func (d *Deliveries) ReplayMany(ctx context.Context, s Selection) (answer Replayed, err error) {
	q, err := s.replayQuery()
	if err != nil {
		return answer, err
	}
	started := time.Now()
	q.Limit = replayPageSize
	for seen := 0; ; {
		page, err := d.replayPage(ctx, &q)
		answer.Count += page.replayed
		if err != nil && seen == 0 {
			return answer, err
		}
		if err == nil && page.last {
			return answer, nil
		}
		seen += page.seen
		if err != nil || seen >= maxReplays || time.Since(started) >= maxReplayTime {
			answer.Continue = continueToken("replay", &q, q.Before)
			return answer, nil
		}
	}
}

// replayQuery is what the store is asked for, for a replay.
func (s Selection) replayQuery() (store.Query, error) {
	if s.State == "" {
		s.State = delivery.Failed.String()
	}
	state, _, err := parseState(s.State)
	if err == nil && state == delivery.Pending { // or scheduled
		return store.Query{}, invalid("state must be Failed, Delivered or Cancelled: a pending delivery is on its way already")
	}
	return s.query("replay")
}

// pageResult is what became of one page of a replay.
type pageResult struct {
	seen, replayed int
	last           bool
}

// replayPage replays the next deliveries that query selects, and moves the query behind them.
func (d *Deliveries) replayPage(ctx context.Context, query *store.Query) (page pageResult, err error) {
	records, err := d.options.Store.List(ctx, *query)
	if err != nil {
		return page, err
	}
	page = pageResult{seen: len(records), last: len(records) < query.Limit}
	page.replayed, err = d.replayAll(ctx, query.Tenant, records)
	if err == nil && !page.last {
		query.Before = records[len(records)-1].ID
	}
	return page, err
}

// replayAll replays the given deliveries and hands them to the engine. Those that became pending meanwhile, or are not
// kept any more, are passed over.
func (d *Deliveries) replayAll(ctx context.Context, tenant string, records []store.Record) (replayed int, err error) {
	pending := make([]delivery.PendingDelivery, len(records))
	done := make([]bool, len(records))
	var group errgroup.Group
	group.SetLimit(replaysAtOnce)
	for i := range records {
		if ctx.Err() != nil {
			break // the client left: finish what was begun
		}
		group.Go(func() (err error) {
			pending[i], err = d.options.Store.Replay(context.WithoutCancel(ctx), tenant, records[i].ID)
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
		d.resume(tenant, pending[:replayed])
	}
	if err == nil {
		err = ctx.Err()
	}
	return replayed, err
}
