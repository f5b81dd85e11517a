package egress

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Options are what may differ between dispatchers. The zero value is the strictest.
type Options struct {
	// Version of the product, for the User-Agent; "dev" if empty.
	Version string
	// AllowHTTP lets deliveries go unencrypted, to http URLs.
	AllowHTTP bool
	// MinTLS is the least version of TLS, such as tls.VersionTLS13; TLS 1.2 if 0.
	MinTLS uint16
	// AllowedCIDRs may be reached although they are private or special; DeniedCIDRs may not be, whatever else holds.
	AllowedCIDRs, DeniedCIDRs []netip.Prefix
	// AllowedPorts below 1024 may be dialled beside 80 and 443, at every address that may be reached.
	AllowedPorts []uint16
	// OwnAddresses returns the dispatcher's own addresses, which are never dialled, but for loopback on ports that are not
	// its own; nil for those of the interfaces. It is called for each address that is dialled.
	OwnAddresses func() []netip.Addr
	// OwnPorts returns the ports that the dispatcher listens on, which are never dialled on loopback; nil for none.
	OwnPorts func() []uint16
	// Denied returns what is never dialled beside that, such as the API server; port 0 stands for all ports. Nil denies
	// nothing more. It is called for each address that is dialled, and must not block.
	Denied func() []netip.AddrPort
	// MaxIdleConns bounds the connections that are kept open between deliveries, to all hosts; 1024 if 0.
	MaxIdleConns int
	// IdleConnTimeout is how long they are kept; 50 s if 0: less than the 60 s of common load balancers.
	IdleConnTimeout time.Duration
	// MaxConnAge is how old a connection may be that is used again, so that traffic follows its name; 1 min if 0.
	MaxConnAge time.Duration
	// RootCAs are the certificate authorities to trust; the system's if nil.
	RootCAs *x509.CertPool
	// Dial connects to an address that the guard allows; TCP of this machine if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Proxy is what connections go through; nil for none.
	Proxy *Proxy
	// Resolver looks names up; the system's if nil.
	Resolver *net.Resolver
}

// What an attempt holds while it waits for its answer, after Request.Written, in bytes: of this process, with its
// goroutine's stack, and of the kernel for its socket. Without TLS 8 KiB are the stack. TestWaitingCost and
// BenchmarkWaiting measure them; garbage that is not yet collected comes on top.
const (
	WaitingCostPlain  = 12 << 10
	WaitingCost       = 20 << 10 // with TLS
	WaitingCostKernel = 5 << 10
)

// Client sends deliveries. It is safe for concurrent use.
//
// It speaks HTTP/1.1 only: HTTP/2 would put the deliveries of all subscriptions of a host on one connection, where an
// endpoint that stops reading, or a limit of streams, stalls the others; and webhooks, a kilobyte each, gain nothing
// from it. A proxy is asked for addresses that the guard has judged.
type Client struct {
	dialer    *dialer
	pool      *pool
	requests  sync.Pool // of *[]byte
	tokens    *tokens
	userAgent string
	options   Options
}

// New returns a Client, or an error that names the option at fault.
func New(o Options) (*Client, error) {
	if o.Version == "" {
		o.Version = "dev"
	}
	if !httpguts.ValidHeaderFieldName(o.Version) { // both are tokens (RFC 9110, section 5.6.2)
		return nil, errors.New("the version is not a token")
	}
	if o.MaxIdleConns < 0 || o.IdleConnTimeout < 0 || o.MaxConnAge < 0 {
		return nil, errors.New("a bound of idle connections is negative")
	}
	if o.Proxy != nil {
		if err := o.Proxy.check(); err != nil {
			return nil, err
		}
	}
	g, err := newGuard(o)
	if err != nil {
		return nil, err
	}
	maxIdle := orDefault(o.MaxIdleConns, 1024)
	c := &Client{
		dialer:    newDialer(o, g, maxIdle),
		pool:      newPool(maxIdle, orDefault(o.IdleConnTimeout, 50*time.Second), orDefault(o.MaxConnAge, time.Minute)),
		requests:  sync.Pool{New: func() any { return new([]byte) }},
		tokens:    newTokens(),
		userAgent: userAgentOf(o.Version),
		options:   o,
	}
	c.pool.allowed = c.dialer.allows
	return c, nil
}

func orDefault[T int | time.Duration](value, byDefault T) T {
	if value == 0 {
		return byDefault
	}
	return value
}

// Close closes idle connections. Attempts under way are ended by their context.
func (c *Client) Close() {
	c.tokens.close()
	c.pool.close()
}
