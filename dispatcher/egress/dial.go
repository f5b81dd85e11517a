package egress

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

const (
	// maxAddresses of a name are dialled for one attempt.
	maxAddresses = 16
	// addressDelay is how long an address has before the next one is dialled beside it (RFC 8305, section 5, would take
	// 250 ms; 300 ms spares more handshakes across oceans).
	addressDelay = 300 * time.Millisecond
	// minAddressTime is what an address gets at least, if the attempt has as much: the first SYN may be lost.
	minAddressTime = 2 * time.Second
)

// dialer makes the connections, guarded, and reports each failure with its reason.
type dialer struct {
	guard atomic.Pointer[guard] // of now; see Client.Allow
	hosts hosts
	// lookup resolves a name to addresses in the order of preference (RFC 6724).
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// dial connects to one address, as the guard allows under the rules.
	dial     func(ctx context.Context, address netip.AddrPort, rules []Rule) (net.Conn, error)
	proxy    *Proxy // nil for none
	tls      *tls.Config
	sessions tls.ClientSessionCache
}

// keepAlive finds out within two minutes that an idle connection's peer is gone.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 6}

func newDialer(o Options, g *guard, maxSessions int) *dialer {
	d := &dialer{proxy: o.Proxy}
	d.guard.Store(g)
	resolver := o.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	d.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
		return resolver.LookupNetIP(ctx, "ip", host)
	}
	d.dial = func(ctx context.Context, address netip.AddrPort, rules []Rule) (net.Conn, error) {
		if o.Dial != nil {
			if err := d.guard.Load().judge(address, rules); err != nil {
				return nil, err
			}
			return o.Dial(ctx, "tcp", address.String())
		}
		guarded := net.Dialer{Control: d.guard.Load().control(rules), KeepAliveConfig: keepAlive}
		return guarded.DialContext(ctx, "tcp", address.String())
	}
	d.tls = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs, NextProtos: []string{"http/1.1"}}
	d.sessions = tls.NewLRUClientSessionCache(maxSessions)
	return d
}

// connect makes a connection for the target, with TLS if its URL says https.
func (d *dialer) connect(ctx context.Context, target *preparedTarget, key poolKey) (*conn, error) {
	addresses, known, err := d.resolve(ctx, target)
	if err != nil {
		return nil, err
	}
	rules := target.dialRules()
	dial := func(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
		return d.dial(ctx, address, rules)
	}
	if d.proxy != nil && target.fixed == nil {
		dial, addresses, err = d.through(target, addresses, rules)
	}
	var w *wire
	if err == nil {
		w, err = race(ctx, addresses, dial)
	}
	if err != nil {
		known.forget()
		return nil, &failure{reason: dialReason(err), err: err}
	}
	var secured net.Conn = w
	if !target.plaintext {
		if secured, err = d.secure(ctx, w, target, key); err != nil {
			known.forget()
			return nil, err
		}
	}
	made := newConn(secured, w, key)
	if secured, ok := secured.(*tls.Conn); ok {
		made.version = secured.ConnectionState().Version
	}
	made.host, made.rules, made.plaintext = known, rules, target.plaintext
	return made, nil
}

// resolve returns what to dial, and under which name that is known; nil for an address.
func (d *dialer) resolve(ctx context.Context, target *preparedTarget) ([]netip.AddrPort, *host, error) {
	if target.fixed != nil {
		return target.fixed.addresses, nil, nil
	}
	host, portText, err := net.SplitHostPort(target.address)
	if err != nil {
		return nil, nil, &failure{reason: delivery.ReasonRequestInvalid, err: err}
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, nil, &failure{reason: delivery.ReasonRequestInvalid, err: err}
	}
	if address, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(address, uint16(port))}, nil, nil
	}
	found, err := d.lookup(ctx, host)
	if err == nil && len(found) == 0 {
		err = &net.DNSError{Err: "no addresses", IsNotFound: true}
	}
	if err != nil {
		return nil, nil, &failure{reason: dialReason(err), err: err}
	}
	for i, address := range found {
		found[i] = address.Unmap()
	}
	known := d.hosts.resolved(host, found)
	chosen := interleave(found)
	if d.proxy == nil || !d.proxy.ByHost { // a proxy that looks the name up may take any
		chosen = chosen[:min(len(chosen), maxAddresses)]
	}
	addresses := make([]netip.AddrPort, 0, len(chosen))
	for _, address := range chosen {
		addresses = append(addresses, netip.AddrPortFrom(address, uint16(port)))
	}
	return addresses, known, nil
}

// secure completes a handshake on w, and closes it if that fails.
func (d *dialer) secure(ctx context.Context, w *wire, target *preparedTarget, key poolKey) (*tls.Conn, error) {
	config := d.tls.Clone()
	target.tls.apply(config, target.host, d.guard.Load().minTLS)
	config.ClientSessionCache = sessions{all: d.sessions, prefix: key.tenant + "\x00" + key.endpoint + "\x00"}
	config.VerifyConnection = strong
	w.records = new(records)
	secured := tls.Client(w, config)
	if err := handshake(ctx, secured); err != nil {
		_ = w.Close() // the handshake's error tells more
		return nil, &failure{reason: handshakeReason(err), err: err}
	}
	return secured, nil
}

// handshake runs in a goroutine of its own, whose deep stack goes with it: that of the attempt may wait for long.
func handshake(ctx context.Context, secured *tls.Conn) error {
	done := make(chan error, 1)
	go func() { done <- secured.HandshakeContext(ctx) }()
	if err := <-done; err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return nil
}
