package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/signature"
)

// The headers of a delivery beside those of its signatures.
const (
	headerContentType = "Content-Type"
	headerUserAgent   = "User-Agent"
	headerTimestamp   = "X-Clinik-Timestamp"
	headerEvent       = "X-Clinik-Event"
	headerDelivery    = "X-Clinik-Delivery-Id"
	headerAttempt     = "X-Clinik-Attempt"

	// headerIdempotent makes net/http repeat a POST on another connection, if the one that it took from the pool turns
	// out to be closed before a byte of an answer came. With no value it is not sent.
	headerIdempotent = "Idempotency-Key"
)

// ownHeaders is how many headers a delivery has without a Target's.
const ownHeaders = 12

// What is taken of an answer. Nothing of it is ever used but its status and Retry-After; the rest is read only to keep
// the connection, which is worth neither more bytes nor more time than this.
const (
	maxResponseHeader = 64 << 10
	drainBytes        = 64 << 10
	drainTime         = 250 * time.Millisecond
)

// Options are what may differ between dispatchers. The zero value is the strictest.
type Options struct {
	// Version of the product, for the User-Agent; "dev" if empty.
	Version string
	// AllowHTTP lets deliveries go unencrypted, to http URLs.
	AllowHTTP bool
	// AllowedCIDRs may be reached although they are private or special; DeniedCIDRs may not be, whatever else holds.
	AllowedCIDRs, DeniedCIDRs []netip.Prefix
	// MaxIdleConns bounds the connections that are kept open between deliveries, to all hosts; 1024 if 0.
	MaxIdleConns int
	// MaxIdleConnsPerHost bounds them for one host; 256 if 0. Connections in use are bounded by nobody: a bound per
	// host would couple subscriptions that share one.
	MaxIdleConnsPerHost int
	// IdleConnTimeout is how long they are kept; 50 s if 0: less than the 60 s of common load balancers.
	IdleConnTimeout time.Duration
	// RootCAs are the certificate authorities to trust; the system's if nil.
	RootCAs *x509.CertPool
	// Resolver looks names up; the system's if nil.
	Resolver *net.Resolver
}

// Client sends deliveries. It is safe for concurrent use.
type Client struct {
	transport *http.Transport
	userAgent []string
	allowHTTP bool
}

// New returns a Client, or an error that names the option at fault. It also keeps what endpoints send unasked out of
// the standard logger of package log, to which net/http would print it.
func New(o Options) (*Client, error) {
	if o.Version == "" {
		o.Version = "dev"
	}
	if !httpguts.ValidHeaderFieldName(o.Version) { // both are tokens (RFC 9110, section 5.6.2)
		return nil, errors.New("the version is not a token")
	}
	if o.MaxIdleConns < 0 || o.MaxIdleConnsPerHost < 0 || o.IdleConnTimeout < 0 {
		return nil, errors.New("a bound of idle connections is negative")
	}
	g, err := newGuard(o.AllowedCIDRs, o.DeniedCIDRs)
	if err != nil {
		return nil, err
	}
	quieten()
	d := &dialer{
		net: net.Dialer{Control: g.control, Resolver: o.Resolver, KeepAliveConfig: keepAlive},
		tls: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            o.RootCAs,
			NextProtos:         []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(orDefault(o.MaxIdleConns, 1024)),
		},
	}
	return &Client{
		transport: newTransport(o, d),
		userAgent: []string{"EventFlow/" + o.Version},
		allowHTTP: o.AllowHTTP,
	}, nil
}

// newTransport returns the one transport of a Client. It speaks HTTP/1.1 only: HTTP/2 would put the deliveries of all
// subscriptions of a host on one connection, where an endpoint that stops reading, or a limit of streams, stalls the
// others; and webhooks, a kilobyte each, gain nothing from it.
func newTransport(o Options, d *dialer) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  nil, // a proxy would dial in our place, past the guard
		Protocols:              &protocols,
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		DisableCompression:     true,
		MaxIdleConns:           orDefault(o.MaxIdleConns, 1024),
		MaxIdleConnsPerHost:    orDefault(o.MaxIdleConnsPerHost, 256),
		IdleConnTimeout:        orDefault(o.IdleConnTimeout, 50*time.Second),
		MaxResponseHeaderBytes: maxResponseHeader,
		WriteBufferSize:        8 << 10, // most deliveries are one write
		ReadBufferSize:         2 << 10, // most answers are a few lines
	}
}

func orDefault[T int | time.Duration](value, byDefault T) T {
	if value == 0 {
		return byDefault
	}
	return value
}

// Close closes idle connections. Attempts under way are ended by their context.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// exchange is an attempt while it is under way.
type exchange struct {
	deadline time.Time
	answered atomic.Bool // a byte of an answer has come
	trace    httptrace.ClientTrace
}

// Send makes one attempt and tells what came of it. It returns when the answer's headers were read and its body was
// drained or cut off, at most 250 ms later; when Target's timeout is over; or when ctx ends, with ReasonInterrupted.
//
// A 2xx whose headers came in time is a success whatever becomes of its body.
//
// The endpoint may see an attempt twice: if a pooled connection breaks before a byte of an answer came, the endpoint
// most likely closed it while idle, and the request is repeated on another, with the same headers. That the endpoint
// took the first and broke down before answering looks the same; deliveries are at least once, and their ids say so.
// On a new connection nothing is repeated.
func (c *Client) Send(ctx context.Context, r Request) Result {
	result := Result{Started: time.Now()}
	target, err := r.Target.prepare()
	if err == nil && r.Target.Thin {
		r.Body, err = event.ThinBody(r.Body)
	}
	switch {
	case err != nil:
		result.Reason = ReasonRequestInvalid
	case target.plaintext && !c.allowHTTP:
		result.Reason = ReasonHTTPNotAllowed
	default:
		c.exchange(ctx, r, target, &result)
	}
	return result
}

// exchange sends r and reads the answer.
func (c *Client) exchange(ctx context.Context, r Request, target *preparedTarget, result *Result) {
	// One timer bounds the exchange first and the draining then; its cause tells a timeout from a stop.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(target.timeout, func() { cancel(errTimeout) })
	defer timer.Stop()

	e := &exchange{deadline: result.Started.Add(target.timeout)}
	e.trace.GotFirstResponseByte = func() { e.answered.Store(true) }
	traced := httptrace.WithClientTrace(context.WithValue(ctx, attemptKey{}, e), &e.trace)
	response, err := c.transport.RoundTrip(c.request(traced, r, target, result.Started))
	result.Duration = time.Since(result.Started)
	if err != nil {
		result.Reason = exchangeReason(ctx, err, e.answered.Load())
		return
	}
	result.StatusCode = response.StatusCode
	if response.StatusCode < 200 || response.StatusCode > 299 {
		result.Reason = ReasonStatusCode
	}
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable {
		result.RetryAfter = retryAfter(response.Header.Get("Retry-After"), time.Now())
	}
	drain(response, timer)
}

// drain reads the body if that is cheap, so that the connection can be used again, else it closes the connection. An
// endless body, or one that comes byte by byte, holds the attempt no longer than drainTime.
func drain(response *http.Response, timer *time.Timer) {
	if response.ContentLength <= drainBytes && response.StatusCode != http.StatusSwitchingProtocols && response.Body != http.NoBody {
		timer.Reset(drainTime)
		_, _ = io.CopyN(io.Discard, response.Body, drainBytes) // the answer is known; an error only costs the connection
	}
	_ = response.Body.Close()
}

// request builds what goes on the wire. Header names are spelled as documented: they are written as they stand in the
// map, canonical or not.
func (c *Client) request(ctx context.Context, r Request, target *preparedTarget, started time.Time) *http.Request {
	h := make(http.Header, ownHeaders+len(target.header))
	h[headerIdempotent] = nil
	maps.Copy(h, target.header)
	r.Target.Keys.Header(h, r.Delivery.String(), started, r.Body)
	values := []string{string(r.Type), strconv.Itoa(r.Number)}
	h[headerContentType] = contentType
	h[headerUserAgent] = c.userAgent
	h[headerTimestamp] = h[signature.HeaderTimestamp]
	h[headerDelivery] = h[signature.HeaderID]
	h[headerEvent] = values[0:1:1]
	h[headerAttempt] = values[1:2:2]

	body := r.Body
	template := http.Request{
		Method:        http.MethodPost,
		URL:           target.url,
		Header:        h,
		Host:          target.url.Host,
		ContentLength: int64(len(body)),
		Body:          readBody(body),
		GetBody:       func() (io.ReadCloser, error) { return readBody(body), nil },
	}
	return template.WithContext(ctx)
}

var contentType = []string{"application/json"}

// readBody returns a body in the form that net/http knows to be in memory, so that it writes headers and body at once.
func readBody(body []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(body)) }
