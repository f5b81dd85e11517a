package egress

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// attemptKey finds an attempt's *exchange in its context.
type attemptKey struct{}

// dialer makes the connections, guarded, and reports each failure with its reason.
type dialer struct {
	net net.Dialer
	tls *tls.Config
}

// bounded returns a context for a dial on behalf of ctx's attempt. http.Transport detaches dials from the attempt they
// are for, so that a later one may use the connection; without a deadline of its own, a dial to an address that
// swallows packets would go on for minutes after its attempt has failed, and each retry would add another.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if e, ok := ctx.Value(attemptKey{}).(*exchange); ok {
		return context.WithDeadline(ctx, e.deadline)
	}
	return context.WithTimeout(ctx, DefaultTimeout)
}

// dial connects for an http URL.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	conn, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, &failure{reason: dialReason(err), err: err}
	}
	return conn, nil
}

// dialTLS connects for an https URL and completes the handshake.
func (d *dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &failure{reason: ReasonRequestInvalid, err: err}
	}
	conn, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config := d.tls.Clone()
	config.ServerName = host
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error tells more
		return nil, &failure{reason: handshakeReason(err), err: err}
	}
	return secured, nil
}

// keepAlive finds out within two minutes that an idle connection's peer is gone.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 6}
