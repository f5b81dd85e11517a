package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// Proxy is what connections to endpoints go through: a server that takes CONNECT (RFC 9110, section 9.3.6). The guard judges each
// address before the proxy is asked for it. Fixed addresses of a Target are dialled past the proxy.
type Proxy struct {
	// Address is the proxy's host and port. It is the operator's, and no guard judges it.
	Address string
	// TLS speaks TLS to the proxy.
	TLS bool
	// ByHost asks for the URL's host, which the proxy looks up anew, in place of the address that was judged. All addresses of
	// the host must be allowed then.
	ByHost bool
	// Secrets returns what goes with each connection to the proxy; nil for nothing. It must not block.
	Secrets func() ProxySecrets
}

// ProxySecrets are what is shown to a proxy, and what is trusted. They are never logged.
type ProxySecrets struct {
	// User and Password go with each CONNECT (RFC 7617); both are empty without them.
	User, Password string
	// Roots are trusted in place of the system's; nil means the system's.
	Roots *Roots
}

// maxProxyHeader bounds a proxy's answer, in bytes.
const maxProxyHeader = 16 << 10

// proxied is a connection to an endpoint through a proxy: its remote address is the endpoint's.
type proxied struct {
	net.Conn
	remote netip.AddrPort
}

func (p proxied) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.remote) }

// proxiedSocket is one whose socket can be polled.
type proxiedSocket struct {
	*net.TCPConn
	remote netip.AddrPort
}

func (p proxiedSocket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.remote) }

// through returns how connections for the target are made by the proxy, and for which of the addresses; or why none may be.
func (d *dialer) through(target *preparedTarget, addresses []netip.AddrPort, rules []Rule) (dialOne, []netip.AddrPort, error) {
	if !d.proxy.ByHost {
		return func(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
			if err := d.guard.Load().judge(address, rules); err != nil {
				return nil, err
			}
			return d.proxy.connect(ctx, address.String(), address)
		}, addresses, nil
	}
	for _, address := range addresses { // the proxy may take any of them
		if err := d.guard.Load().judge(address, rules); err != nil {
			return nil, nil, err
		}
	}
	return func(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
		return d.proxy.connect(ctx, target.address, address)
	}, addresses[:1], nil
}

// connect asks the proxy for a host and port, which lead to the address.
func (p *Proxy) connect(ctx context.Context, to string, address netip.AddrPort) (net.Conn, error) {
	var secrets ProxySecrets
	if p.Secrets != nil {
		secrets = p.Secrets()
	}
	socket, err := (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext(ctx, "tcp", p.Address)
	if err != nil {
		return nil, proxyFailure(ctx, delivery.ReasonProxyUnreachable, err)
	}
	made := socket
	if p.TLS {
		if made, err = p.secure(ctx, socket, secrets.Roots); err != nil {
			_ = socket.Close() // the handshake's error tells more
			return nil, proxyFailure(ctx, delivery.ReasonProxyUnreachable, err)
		}
	}
	if err := ask(ctx, made, to, secrets); err != nil {
		_ = socket.Close()
		return nil, proxyFailure(ctx, delivery.ReasonProxyRefused, err)
	}
	if tcp, ok := made.(*net.TCPConn); ok {
		return proxiedSocket{tcp, address}, nil
	}
	return proxied{made, address}, nil
}

// proxyFailure has a reason of its own, but for the end of the attempt's time.
func proxyFailure(ctx context.Context, reason delivery.Reason, err error) error {
	if ctx.Err() != nil || isTimeout(err) {
		reason = delivery.ReasonTimeout
	}
	return &failure{reason: reason, err: err}
}

func (p *Proxy) secure(ctx context.Context, socket net.Conn, roots *Roots) (*tls.Conn, error) {
	host, _, err := net.SplitHostPort(p.Address)
	if err != nil {
		return nil, fmt.Errorf("the proxy's address: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, NextProtos: []string{"http/1.1"}}
	if roots != nil {
		config.RootCAs = roots.pool
	}
	secured := tls.Client(socket, config)
	return secured, handshake(ctx, secured)
}

// ask sends CONNECT, and reads the answer. What comes behind the answer's header before the client has said anything is no
// answer of the endpoint.
func ask(ctx context.Context, made net.Conn, to string, secrets ProxySecrets) error {
	release := context.AfterFunc(ctx, func() { _ = made.SetDeadline(time.Unix(1, 0)) })
	defer release()
	request := "CONNECT " + to + " HTTP/1.1" + crlf + "Host: " + to + crlf
	if secrets.User != "" || secrets.Password != "" {
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(secrets.User+":"+secrets.Password)) + crlf
	}
	if _, err := io.WriteString(made, request+crlf); err != nil {
		return fmt.Errorf("ask the proxy: %w", err)
	}
	reader := bufio.NewReader(io.LimitReader(made, maxProxyHeader))
	// To close the body would read it. A 2xx has none, whatever its header says, and what else comes ends the connection.
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // see above
	if err != nil {
		return fmt.Errorf("read the proxy's answer: %w", err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 || reader.Buffered() > 0 {
		return errors.New("the proxy refused")
	}
	if !release() { // ctx ended meanwhile
		return ctx.Err()
	}
	return made.SetDeadline(time.Time{})
}

// check returns an error if no proxy can be reached so.
func (p *Proxy) check() error {
	host, port, err := net.SplitHostPort(p.Address)
	if err != nil || host == "" || port == "" || strings.ContainsAny(host, " \t\r\n/@") {
		return errors.New("the proxy's address is no host and port")
	}
	return nil
}
