package egress

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// MaxDocument is how long a document may be that Fetch reads, in bytes. The caller has charged as many for it.
const MaxDocument = 1 << 20

// Document is what Fetch reads.
type Document struct {
	// URL is absolute, http or https. It is never logged.
	URL string
	// Target is the subscription's: its timeout, its rules and what it trusts hold here as well.
	Target *Target
	Tenant string
	// Authorized sends the target's Authorization.
	Authorized bool
	// Begun is when the attempt began: the timeout counts from then.
	Begun time.Time
}

// Fetch reads a document with GET, guarded as a delivery is. It follows no redirect. Reason is empty if the answer was
// 2xx and came as a whole; ReasonResponseInvalid stands also for one that is longer than MaxDocument. The document's
// bytes are the endpoint's, whatever they are.
func (c *Client) Fetch(ctx context.Context, d Document) ([]byte, Result) {
	result := Result{Started: time.Now()}
	target, err := d.Target.prepare()
	var at *preparedTarget
	var u *url.URL
	if err == nil {
		u, err = parseURL(d.URL)
	}
	if err == nil {
		at, err = c.preparedFor(u, target)
	}
	if err != nil {
		result.Reason = invalidReason(err)
		return nil, result
	}
	r := Request{Target: d.Target, Tenant: d.Tenant, Begun: d.Begun}
	var body []byte
	for repeats := 0; ; repeats++ {
		result.StatusCode, result.Reason = 0, ""
		body = c.fetch(ctx, &r, d, at, u, &result)
		refused := result.StatusCode == http.StatusUnauthorized && r.token != "" && c.tokens.refuse(r.Tenant, target, r.token)
		if repeats == 2 || !refused && result.Reason != delivery.ReasonStale {
			break
		}
		r.Fresh = true
	}
	if result.Reason == delivery.ReasonStale {
		result.Reason = delivery.ReasonConnectionReset
	}
	result.Duration = time.Since(d.Begun)
	return body, result
}

// fetch makes one request for a document.
func (c *Client) fetch(ctx context.Context, r *Request, d Document, at *preparedTarget, u *url.URL, result *Result) (body []byte) {
	deadline := d.Begun.Add(at.timeout)
	header := make(http.Header)
	if d.Authorized {
		if err := d.Target.Authorization.addTo(header); err != nil {
			result.Reason = delivery.ReasonRequestInvalid
			return nil
		}
		if target, err := d.Target.prepare(); err == nil && target.tokens != nil {
			if r.token, result.Reason = c.tokenFor(ctx, r, target, deadline); result.Reason != "" {
				return nil
			}
			header.Set(headerAuthorization, "Bearer "+r.token)
		}
	}
	used, err := c.connection(ctx, r, at, deadline)
	if err != nil {
		result.Reason = exchangeReason(ctx, err, false)
		return nil
	}
	used.release = context.AfterFunc(ctx, used.cut)
	underWay, failed := used.write(c.composeGet(u, header))
	again := used.reply(ctx, underWay, failed, result, func(response *http.Response) (err error) {
		if result.Delivered() {
			body, err = used.whole(response)
		}
		return err
	})
	used.letGo()
	if result.Reason != "" {
		body = nil
	}
	if used.release() && again {
		c.pool.put(used)
	} else {
		_ = used.Close()
	}
	return body
}

// reply reads the answer to a request without a body, by read, and reports whether the connection can be used again.
func (c *conn) reply(ctx context.Context, underWay *writing, failed error, result *Result, read func(*http.Response) error) (again bool) {
	err := c.begin()
	var response *http.Response
	if err == nil {
		response, err = c.response() //nolint:bodyclose // drain closes it
	}
	if err == nil {
		result.take(response)
		err = read(response)
	}
	if ended := underWay.end(c); failed == nil {
		failed = ended
	}
	if err != nil {
		if failed != nil && !isTimeout(err) {
			err = failed
		}
		result.Reason = lostReason(ctx, c, err)
		return false
	}
	return failed == nil && c.drain(response)
}

// whole reads the body of an answer.
func (c *conn) whole(response *http.Response) ([]byte, error) {
	if response.ContentLength > MaxDocument {
		return nil, &failure{reason: delivery.ReasonResponseInvalid, err: errTooLong}
	}
	c.budget = 2*MaxDocument + maxResponseHeader // chunks and trailers count, too
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxDocument+1))
	c.budget = 0
	if err == nil && len(body) > MaxDocument {
		err = &failure{reason: delivery.ReasonResponseInvalid, err: errTooLong}
	}
	return body, err
}

// composeGet makes the request for a document. Nothing in it can end a line: package url and addTo have seen to that.
func (c *Client) composeGet(u *url.URL, header http.Header) outgoing {
	buffer := c.requests.Get().(*[]byte)
	*buffer = appendGet((*buffer)[:0], u, header, c.userAgent)
	return outgoing{buffer: buffer, home: &c.requests}
}

func appendGet(b []byte, u *url.URL, header http.Header, userAgent string) []byte {
	b = append(b, "GET "+requestTarget(u)+" HTTP/1.1"+crlf...)
	b = appendHeader(b, "Host", hostOf(u))
	b = appendHeader(b, headerUserAgent, userAgent)
	b = appendHeader(b, "Accept", contentTypeJSON)
	for name, values := range header {
		for _, value := range values {
			b = appendHeader(b, name, value)
		}
	}
	return append(b, crlf...)
}
