package egress

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/clinikapi/eventflow/api/event"
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
	// IdleConnTimeout is how long they are kept; 50 s if 0: less than the 60 s of common load balancers.
	IdleConnTimeout time.Duration
	// RootCAs are the certificate authorities to trust; the system's if nil.
	RootCAs *x509.CertPool
	// Resolver looks names up; the system's if nil.
	Resolver *net.Resolver
}

// Client sends deliveries. It is safe for concurrent use.
//
// It speaks HTTP/1.1 only: HTTP/2 would put the deliveries of all subscriptions of a host on one connection, where an
// endpoint that stops reading, or a limit of streams, stalls the others; and webhooks, a kilobyte each, gain nothing
// from it. It uses no proxy, which would dial in its place, past the guard.
type Client struct {
	dialer    *dialer
	pool      *pool
	requests  sync.Pool // of *[]byte
	userAgent string
	allowHTTP bool
}

// New returns a Client, or an error that names the option at fault.
func New(o Options) (*Client, error) {
	if o.Version == "" {
		o.Version = "dev"
	}
	if !httpguts.ValidHeaderFieldName(o.Version) { // both are tokens (RFC 9110, section 5.6.2)
		return nil, errors.New("the version is not a token")
	}
	if o.MaxIdleConns < 0 || o.IdleConnTimeout < 0 {
		return nil, errors.New("a bound of idle connections is negative")
	}
	g, err := newGuard(o.AllowedCIDRs, o.DeniedCIDRs)
	if err != nil {
		return nil, err
	}
	maxIdle := orDefault(o.MaxIdleConns, 1024)
	return &Client{
		dialer: &dialer{
			net: net.Dialer{Control: g.control, Resolver: o.Resolver, KeepAliveConfig: keepAlive},
			tls: &tls.Config{
				MinVersion:         tls.VersionTLS12,
				RootCAs:            o.RootCAs,
				NextProtos:         []string{"http/1.1"},
				ClientSessionCache: tls.NewLRUClientSessionCache(maxIdle),
			},
		},
		pool:      newPool(maxIdle, orDefault(o.IdleConnTimeout, 50*time.Second)),
		requests:  sync.Pool{New: func() any { return new([]byte) }},
		userAgent: "EventFlow/" + o.Version,
		allowHTTP: o.AllowHTTP,
	}, nil
}

func orDefault[T int | time.Duration](value, byDefault T) T {
	if value == 0 {
		return byDefault
	}
	return value
}

// Close closes idle connections. Attempts under way are ended by their context.
func (c *Client) Close() { c.pool.close() }

// Send makes one attempt and tells what came of it. It returns when the answer's headers were read and its body was
// drained or cut off, at most 250 ms later; when Target's timeout is over; or when ctx ends, with ReasonInterrupted.
//
// A 2xx whose headers came in time is a success whatever becomes of its body.
//
// The endpoint may see an attempt twice: if a pooled connection breaks before a byte of an answer came, the endpoint
// most likely closed it while idle, and the request is repeated on a new one, with the same headers. That the endpoint
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

// maxKeptRequest bounds the memory that is kept to write the next request into.
const maxKeptRequest = 64 << 10

// exchange sends r and reads the answer.
func (c *Client) exchange(ctx context.Context, r Request, target *preparedTarget, result *Result) {
	buffer := c.requests.Get().(*[]byte)
	request := c.appendRequest((*buffer)[:0], r, target, result.Started)
	if cap(request) <= maxKeptRequest {
		*buffer = request
	}
	defer c.requests.Put(buffer)

	deadline := result.Started.Add(target.timeout)
	used, response, err := c.roundTrip(ctx, target, deadline, request) //nolint:bodyclose // drain closes it
	result.Duration = time.Since(result.Started)
	if err != nil {
		result.Reason = exchangeReason(ctx, err, used != nil && used.answered)
		return
	}
	result.StatusCode = response.StatusCode
	if response.StatusCode < 200 || response.StatusCode > 299 {
		result.Reason = ReasonStatusCode
	}
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable {
		result.RetryAfter = retryAfter(response.Header.Get("Retry-After"), time.Now())
	}
	again := used.drain(response)
	if used.release() && again {
		c.pool.put(used)
	} else {
		_ = used.Close()
	}
}

// roundTrip sends the request on a connection that is idle, or else on a new one. ctx ends what waits for the connection
// it returns until that is released. If it fails, the connection is closed.
func (c *Client) roundTrip(ctx context.Context, target *preparedTarget, deadline time.Time, request []byte) (*conn, *http.Response, error) {
	for fresh := false; ; fresh = true {
		used, err := c.connection(ctx, target, deadline, fresh)
		if err != nil {
			return nil, nil, err
		}
		used.release = context.AfterFunc(ctx, used.cut)
		response, err := used.roundTrip(request)
		if err == nil && ctx.Err() == nil {
			return used, response, nil
		}
		used.release()
		_ = used.Close()
		if ctx.Err() != nil || !used.reused || used.answered || isTimeout(err) {
			return used, nil, cmp.Or(ctx.Err(), err)
		}
	}
}

// connection returns a connection on which everything ends at the deadline.
func (c *Client) connection(ctx context.Context, target *preparedTarget, deadline time.Time, fresh bool) (*conn, error) {
	if !fresh {
		if idle := c.pool.get(target.key); idle != nil {
			return idle, idle.SetDeadline(deadline)
		}
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	dial := c.dialer.dialTLS
	if target.plaintext {
		dial = c.dialer.dial
	}
	connected, err := dial(ctx, target.address)
	if err != nil {
		return nil, err
	}
	return newConn(connected, target.key), connected.SetDeadline(deadline)
}
