package engine

import (
	"time"

	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// probePause is how often an endpoint that asked to wait is tried all the same.
const probePause = time.Minute

// hold keeps a subscription back that answered 429 or 503 with Retry-After (RFC 9110, section 10.2.3): until then one
// probe goes a minute, and after it one attempt goes first. An answer without Retry-After ends that.
type hold struct {
	active bool
	until  time.Time // when the endpoint wants requests again
	next   time.Time // when the next attempt may start
}

// saw returns the hold after an attempt that ended now. longest bounds what an endpoint may ask for.
func (h hold) saw(r egress.Result, now time.Time, longest time.Duration) hold {
	switch {
	case r.RetryAfter > 0:
		wait := min(r.RetryAfter, longest)
		return hold{active: true, until: now.Add(wait), next: now.Add(min(wait, probePause))}
	case h.active && !r.Delivered() && now.Before(h.until): // it failed otherwise: what it asked for still holds
		h.next = now.Add(min(h.until.Sub(now), probePause))
		return h
	default:
		return hold{}
	}
}
