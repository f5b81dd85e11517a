package postgres

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// change is what is added to a subscription's counts. It adds up with what others add.
type change struct {
	delivered, retrying, failed, cancelled int64
	lastDelivered, failedAt                int64
	lastFailure                            []byte
	// failures in a row since the last success, which was among these if succeeded is set.
	failures  int32
	succeeded bool
	// gone is the newest generation that answered 410; it counts if it was set since the last success, or that was among
	// these.
	gone    int64
	setGone bool
}

// changes are those of a transaction, by subscription.
type changes map[event.SubscriptionKey]*change

func (c *changes) of(sub event.SubscriptionKey) *change {
	if *c == nil {
		*c = changes{}
	}
	one := (*c)[sub]
	if one == nil {
		one = &change{}
		(*c)[sub] = one
	}
	return one
}

// record adds an outcome of a delivery that had so many attempts before, and has so many after.
func (c *changes) record(o *delivery.Outcome, before, after int, now int64) {
	one := c.of(o.Delivery.ID.Subscription)
	if before > 0 {
		one.retrying--
	}
	switch o.State {
	case delivery.Pending:
		if after > 0 {
			one.retrying++
		}
	case delivery.Delivered:
		one.delivered++
		one.failures, one.succeeded, one.gone, one.setGone = 0, true, 0, true
		at := now
		if o.Attempt != nil {
			at = o.Attempt.Started.Add(o.Attempt.Duration).UnixNano()
		}
		one.lastDelivered = max(one.lastDelivered, at)
	case delivery.Failed:
		one.failed++
	case delivery.Cancelled:
		one.cancelled++
	}
	if o.Attempt != nil && o.State != delivery.Delivered {
		one.failures++
		if started := o.Attempt.Started.UnixNano(); started >= one.failedAt {
			one.failedAt, one.lastFailure = started, encodeAttempts([]delivery.Attempt{*o.Attempt})
		}
	}
	if o.Gone != 0 {
		one.gone, one.setGone = o.Gone, true
	}
}

const addCounts = `INSERT INTO eventflow.counts AS c
(sub, delivered, retrying, failed, cancelled, last_delivered, failed_at, last_failure, failures_in_row, gone)
SELECT sub, delivered, retrying, failed, cancelled, last_delivered, failed_at, last_failure, failures, gone
FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[], $9::integer[], $10::bigint[])
AS u (sub, delivered, retrying, failed, cancelled, last_delivered, failed_at, last_failure, failures, gone)
ON CONFLICT (sub) DO UPDATE SET
delivered = c.delivered + excluded.delivered,
retrying = c.retrying + excluded.retrying,
failed = greatest(c.failed + excluded.failed, 0),
cancelled = greatest(c.cancelled + excluded.cancelled, 0),
last_delivered = greatest(c.last_delivered, excluded.last_delivered),
failed_at = greatest(c.failed_at, excluded.failed_at),
last_failure = CASE WHEN excluded.last_failure IS NOT NULL AND excluded.failed_at >= c.failed_at THEN excluded.last_failure ELSE c.last_failure END,
failures_in_row = CASE WHEN c.sub = ANY($11::bytea[]) THEN excluded.failures_in_row ELSE c.failures_in_row + excluded.failures_in_row END,
gone = CASE WHEN c.sub = ANY($12::bytea[]) THEN excluded.gone ELSE c.gone END`

// queue adds the changes to what is stored, in an order that all transactions share.
func (c changes) queue(s *Store, b *pgx.Batch) {
	if len(c) == 0 {
		return
	}
	keys := make([]event.SubscriptionKey, 0, len(c))
	for sub := range c {
		keys = append(keys, sub)
	}
	slices.SortFunc(keys, func(x, y event.SubscriptionKey) int { return bytes.Compare(x[:], y[:]) })
	var delivered, retrying, failed, cancelled, lastDelivered, failedAt, gone []int64
	var subs, lastFailures [][]byte
	succeeded, setGone := [][]byte{}, [][]byte{}
	var failures []int32
	for i := range keys {
		one := c[keys[i]]
		subs, lastFailures, failures = append(subs, keys[i][:]), append(lastFailures, one.lastFailure), append(failures, one.failures)
		delivered, retrying = append(delivered, one.delivered), append(retrying, one.retrying)
		failed, cancelled = append(failed, one.failed), append(cancelled, one.cancelled)
		lastDelivered, failedAt, gone = append(lastDelivered, one.lastDelivered), append(failedAt, one.failedAt), append(gone, one.gone)
		if one.succeeded {
			succeeded = append(succeeded, keys[i][:])
		}
		if one.setGone {
			setGone = append(setGone, keys[i][:])
		}
	}
	b.Queue(s.sql(addCounts), subs, delivered, retrying, failed, cancelled, lastDelivered, failedAt, lastFailures, failures, gone, succeeded, setGone)
}

const selectCounts = `SELECT delivered, retrying, failed, cancelled, last_delivered, last_failure, failures_in_row, gone FROM eventflow.counts WHERE sub = $1`

// Counts returns the subscription's counts.
func (s *Store) Counts(ctx context.Context, sub event.SubscriptionKey) (delivery.Counts, error) {
	if err := s.enter(ctx); err != nil {
		return delivery.Counts{}, err
	}
	defer s.leave()
	var c delivery.Counts
	err := s.read(ctx, s.sql(selectCounts), []any{sub[:]}, func(rows pgx.Rows) error {
		c = delivery.Counts{}
		var lastDelivered int64
		var lastFailure []byte
		_, err := pgx.ForEachRow(rows, []any{
			&c.Delivered, &c.Retrying, &c.Failed, &c.Cancelled, &lastDelivered, &lastFailure, &c.FailuresInARow, &c.Gone,
		}, func() error {
			if lastDelivered != 0 {
				c.LastDelivered = time.Unix(0, lastDelivered)
			}
			list, err := decodeAttempts(lastFailure)
			if len(list) == 1 {
				c.LastFailure = list[0]
			}
			return err
		})
		return err
	})
	return c, err
}
