package engine

import (
	"net/http"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// BreakerThreshold is how many attempts in a row must fail for an endpoint to count as failing: from then on its
// deliveries go one at a time, until one succeeds.
const BreakerThreshold = 10

// maxJitter is the part of a delay that is added at random at most, so that deliveries that failed together do not
// return together. Nothing is ever shortened.
const maxJitter = 0.1

// Delay is the wait after the given number of failed attempts (1, 2, 3, …), before jitter.
func (p RetryPolicy) Delay(failures int) time.Duration {
	delay := p.Initial
	for range failures - 1 {
		if delay >= p.Max {
			break
		}
		delay *= time.Duration(p.Factor)
		if p.Factor <= 1 {
			break
		}
	}
	return min(delay, p.Max)
}

// Expires is when a delivery is given up.
func (p RetryPolicy) Expires(d delivery.PendingDelivery) time.Time { return d.Since.Add(p.MaxAge) }

// After decides what follows an attempt of d that ended now: its next state and, if that is Pending, its due time.
// jitter is a random number in [0, 1).
func (p RetryPolicy) After(d delivery.PendingDelivery, r egress.Result, now time.Time, jitter float64) (delivery.State, time.Time) {
	if r.Delivered() {
		return delivery.Delivered, time.Time{}
	}
	if r.GiveUp {
		return delivery.Failed, time.Time{}
	}
	failures := d.Attempts - d.AttemptsBefore + 1
	limit := p.Expires(d)
	if !now.Before(limit) || (p.MaxAttempts > 0 && failures >= p.MaxAttempts) {
		return delivery.Failed, time.Time{}
	}
	delay := p.Delay(failures)
	delay += time.Duration(float64(delay) * maxJitter * jitter)
	if r.StatusCode == http.StatusTooManyRequests || r.StatusCode == http.StatusServiceUnavailable {
		delay = max(delay, r.RetryAfter)
	}
	due := now.Add(delay)
	if due.After(limit) {
		due = limit
	}
	return delivery.Pending, due
}
