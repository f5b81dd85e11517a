package egress

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// Send makes one attempt and reports what came of it. It returns when the answer's headers were read and its body was
// drained or cut off, at most 250 ms later; when Target's timeout is over; or when ctx ends, with ReasonInterrupted.
//
// A 2xx whose headers came in time is a success whatever becomes of its body. The answer is read while the request is
// written. An answer that overtakes its request counts: a 2xx lets the endpoint take the rest for as long as it does
// so, at least 16 KiB in 250 ms; after any other status the rest is not sent.
//
// If a kept connection breaks before a byte of an answer came, the endpoint most likely closed it while it was idle.
// Send then returns ReasonStale, and the caller repeats the request with Fresh, and the same number. The endpoint may
// thus see an attempt twice, with the same id: that it took the first and broke down before answering looks the same.
// An answer of 401 to an access token that the endpoint took before is ReasonTokenRefused, and repeated likewise.
func (c *Client) Send(ctx context.Context, r Request) Result {
	result := Result{Started: time.Now()}
	if r.Begun.IsZero() {
		r.Begun = result.Started
	}
	target, err := r.Target.prepare()
	if err == nil {
		err = r.Shape.Check(r.Target)
	}
	switch {
	case err != nil:
		result.Reason = invalidReason(err)
	case target.plaintext && !c.dialer.guard.Load().plaintext:
		result.Reason = delivery.ReasonHTTPNotAllowed
	default:
		c.attempt(ctx, &r, target, &result)
	}
	return result
}

// attempt connects, and makes the exchange.
func (c *Client) attempt(ctx context.Context, r *Request, target *preparedTarget, result *Result) {
	deadline := r.Begun.Add(target.timeout)
	if target.tokens != nil {
		if r.token, result.Reason = c.tokenFor(ctx, r, target, deadline); result.Reason != "" {
			result.Duration = time.Since(r.Begun)
			return
		}
		result.Started = time.Now()
	}
	if target.consent != nil {
		if !c.agreed(ctx, r, target, deadline, result) {
			result.Duration = time.Since(r.Begun)
			return
		}
		result.Started = time.Now()
	}
	used, err := c.connection(ctx, r, target, deadline)
	if err != nil {
		result.Duration = time.Since(r.Begun)
		result.Reason = exchangeReason(ctx, err, false)
		return
	}
	used.release = context.AfterFunc(ctx, used.cut)
	underWay, failed := used.write(c.compose(r, target, result.Started))
	r.Body = nil // what waits for the answer holds no body
	again := c.exchange(ctx, used, underWay, failed, r, result)
	used.letGo()
	if result.StatusCode == http.StatusUnauthorized && target.tokens != nil && c.tokens.refuse(r.Tenant, target, r.token) {
		result.Reason = delivery.ReasonTokenRefused
	}
	if used.release() && again {
		c.pool.put(used)
	} else {
		_ = used.Close()
	}
}

// exchange reads the answer, and reports whether the connection can be used again. When it returns, nothing of the
// request is read any more.
func (c *Client) exchange(ctx context.Context, used *conn, underWay *writing, failed error, r *Request, result *Result) bool {
	err := used.begin()
	overtaken := underWay.under()
	var response *http.Response
	if err == nil {
		response, err = used.response() //nolint:bodyclose // drain closes it
	}
	result.Duration = time.Since(r.Begun)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		if ended := underWay.end(used); failed == nil && !overtaken {
			failed = ended // what ended a writing under way was end itself
		}
		if failed != nil && !isTimeout(err) {
			err = failed // the read's error follows from it
		}
		result.Reason = lostReason(ctx, used, err)
		return false
	}
	result.take(response)
	if r.Answer != nil {
		if err := used.capture(response, r.Answer); err != nil { // an outcome cannot do without
			result.Reason = exchangeReason(ctx, err, true)
		}
	}
	if overtaken && result.Delivered() {
		underWay.finish()
	}
	if underWay.end(used) != nil || failed != nil || overtaken {
		return false
	}
	return used.drain(response)
}

// take takes over what counts of an answer.
func (r *Result) take(response *http.Response) {
	r.StatusCode = response.StatusCode
	if response.StatusCode < 200 || response.StatusCode > 299 {
		r.Reason = delivery.ReasonStatusCode
	}
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable {
		r.RetryAfter = retryAfter(response.Header.Get("Retry-After"), time.Now())
	}
}

// lostReason is the reason of an exchange on used that failed with err.
func lostReason(ctx context.Context, used *conn, err error) delivery.Reason {
	if ctx.Err() == nil && used.reused && !used.answered && !isTimeout(err) {
		return delivery.ReasonStale
	}
	return exchangeReason(ctx, err, used.answered)
}

// compose makes the request. A small one is one piece; the body of a large one is not copied.
func (c *Client) compose(r *Request, target *preparedTarget, started time.Time) outgoing {
	buffer := c.requests.Get().(*[]byte)
	b := c.appendHead((*buffer)[:0], r, target, started)
	n := len(r.Body)
	if len(b)+n > inlineWrite {
		n = min(n, max(inlineWrite-len(b), 0))
	}
	b = append(b, r.Body[:n]...)
	*buffer = b
	return outgoing{buffer: buffer, rest: r.Body[n:], home: &c.requests, written: r.Written}
}

// connection returns a connection on which everything ends at the deadline.
func (c *Client) connection(ctx context.Context, r *Request, target *preparedTarget, deadline time.Time) (*conn, error) {
	key := poolKey{tenant: r.Tenant, endpoint: target.key}
	if !r.Fresh {
		if idle := c.pool.get(key); idle != nil {
			if idle.SetDeadline(deadline) == nil {
				return idle, nil
			}
			_ = idle.Close()
		}
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	made, err := c.dialer.connect(ctx, target, key)
	if err != nil {
		return nil, err
	}
	if err := made.SetDeadline(deadline); err != nil {
		_ = made.Close()
		return nil, fmt.Errorf("set the deadline: %w", err)
	}
	return made, nil
}
