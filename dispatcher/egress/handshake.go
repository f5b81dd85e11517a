package egress

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// Handshake asks an endpoint whether it takes deliveries, as CloudEvents' HTTP 1.1 Web Hooks 1.0.2, section 4, says: with
// OPTIONS before the first delivery, and once a day after. Deliveries carry the origin as well.
type Handshake struct {
	// Origin is a DNS name that stands for the sender.
	Origin string
	// Rate is how many requests a minute are asked for; 0 asks for no rate.
	Rate int
}

// The headers of a handshake.
const (
	headerRequestOrigin = "WebHook-Request-Origin"
	headerRequestRate   = "WebHook-Request-Rate"
	headerAllowedOrigin = "WebHook-Allowed-Origin"
	headerAllowedRate   = "WebHook-Allowed-Rate"
)

const (
	// consentAge is how long an endpoint's consent holds.
	consentAge = 24 * time.Hour
	// maxAllowedRate bounds what is taken over of an answer: more is no limit.
	maxAllowedRate = 1_000_000_000
)

// consent is what an endpoint said in the handshake. It belongs to a Target, so that another URL is asked anew.
type consent struct {
	Handshake

	mu      sync.Mutex
	until   time.Time     // the endpoint agreed until then
	allowed int           // requests a minute; 0 for no limit
	asking  chan struct{} // closed when the question under way has its answer; nil without one
	last    Result        // of the question before; its Reason is empty if the endpoint agreed
}

func newConsent(h *Handshake) (*consent, error) {
	if h.Origin == "" || !httpguts.ValidHeaderFieldValue(h.Origin) || h.Rate < 0 {
		return nil, errors.New("the origin of the handshake is no DNS name, or its rate is negative")
	}
	return &consent{Handshake: *h}, nil
}

// agreed reports whether the endpoint takes deliveries, and asks it if that is not known. Attempts that come together
// share one question. If the answer is no, the result says why.
func (c *Client) agreed(ctx context.Context, r *Request, target *preparedTarget, deadline time.Time, result *Result) bool {
	k := target.consent
	k.mu.Lock()
	if time.Now().Before(k.until) {
		result.AllowedPerMinute = k.allowed
		k.mu.Unlock()
		return true
	}
	asking := k.asking
	if asking == nil {
		k.asking = make(chan struct{})
	}
	k.mu.Unlock()
	if asking == nil {
		k.answered(c.question(ctx, r, target, deadline))
	} else if reason := waitFor(ctx, asking, deadline); reason != "" {
		result.Reason = reason
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	result.StatusCode, result.Reason, result.RetryAfter = 0, k.last.Reason, k.last.RetryAfter
	if result.Reason != "" {
		result.StatusCode = k.last.StatusCode
		return false
	}
	result.AllowedPerMinute = k.allowed
	return true
}

// waitFor waits for the answer to a question that another attempt asked. It returns why there is none.
func waitFor(ctx context.Context, asking <-chan struct{}, deadline time.Time) delivery.Reason {
	within, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	select {
	case <-asking:
		return ""
	case <-within.Done():
	}
	if ctx.Err() != nil {
		return delivery.ReasonInterrupted
	}
	return delivery.ReasonTimeout
}

// answered notes what came of a question.
func (k *consent) answered(result Result) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last, k.until = result, time.Time{}
	if result.Reason == "" {
		k.until, k.allowed = time.Now().Add(consentAge), result.AllowedPerMinute
	}
	close(k.asking)
	k.asking = nil
}

// question makes the request, and reads the answer: an endpoint agrees by a header, whatever the status.
func (c *Client) question(ctx context.Context, r *Request, target *preparedTarget, deadline time.Time) (result Result) {
	used, err := c.connection(ctx, r, target, deadline)
	if err != nil {
		result.Reason = exchangeReason(ctx, err, false)
		return result
	}
	used.release = context.AfterFunc(ctx, used.cut)
	underWay, failed := used.write(c.composeOptions(r, target))
	again := used.reply(ctx, underWay, failed, &result, func(response *http.Response) error {
		if target.consent.reads(response.Header, &result) {
			result.Reason, result.RetryAfter = "", 0
		} else if result.RetryAfter == 0 {
			result.Reason = delivery.ReasonHandshakeRefused
		}
		return nil
	})
	used.letGo()
	if result.StatusCode == http.StatusUnauthorized && result.Reason != "" && target.tokens != nil && c.tokens.refuse(r.Tenant, target, r.token) {
		result.Reason = delivery.ReasonTokenRefused
	}
	if used.release() && again {
		c.pool.put(used)
	} else {
		_ = used.Close()
	}
	return result
}

// reads reports whether an answer grants permission, and takes over at which rate (sections 4.2.1 and 4.2.2). An endpoint
// that names no rate allows any.
func (k *consent) reads(header http.Header, result *Result) bool {
	origins, rates := header.Values(headerAllowedOrigin), header.Values(headerAllowedRate)
	if len(origins) != 1 || len(rates) > 1 {
		return false
	}
	if origin := strings.TrimSpace(origins[0]); origin != "*" && !strings.EqualFold(origin, k.Origin) {
		return false
	}
	if len(rates) == 0 || strings.TrimSpace(rates[0]) == "*" {
		return true
	}
	allowed, err := strconv.ParseUint(strings.TrimSpace(rates[0]), 10, 63)
	if err != nil || allowed == 0 {
		return false
	}
	if allowed < maxAllowedRate {
		result.AllowedPerMinute = int(allowed)
	}
	return true
}

// composeOptions makes the request, with the headers that every delivery carries.
func (c *Client) composeOptions(r *Request, target *preparedTarget) outgoing {
	buffer := c.requests.Get().(*[]byte)
	b := (*buffer)[:0]
	b = append(b, "OPTIONS "+target.requestTarget()+" HTTP/1.1"+crlf...)
	b = append(b, target.head[target.parts.line:target.parts.contentType]...)
	b = append(b, target.head[target.parts.rest:]...)
	if r.token != "" {
		b = appendHeader(b, headerAuthorization, "Bearer "+r.token)
	}
	if !target.named {
		b = appendHeader(b, headerUserAgent, c.userAgent)
	}
	if target.consent.Rate > 0 {
		b = appendNumber(b, headerRequestRate, int64(target.consent.Rate))
	}
	b = append(b, crlf...)
	*buffer = b
	return outgoing{buffer: buffer, home: &c.requests}
}
