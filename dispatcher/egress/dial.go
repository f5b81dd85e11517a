package egress

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// dialer makes the connections, guarded, and reports each failure with its reason.
type dialer struct {
	net net.Dialer
	tls *tls.Config
}

// dial connects for an http URL.
func (d *dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := d.net.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, &failure{reason: dialReason(err), err: err}
	}
	return conn, nil
}

// dialTLS connects for an https URL and completes the handshake.
func (d *dialer) dialTLS(ctx context.Context, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &failure{reason: ReasonRequestInvalid, err: err}
	}
	conn, err := d.dial(ctx, address)
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
