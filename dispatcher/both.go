package dispatcher

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
)

// bothWays accepts from two listeners: one for TLS, whose address it has, and one for plain HTTP. So both share the bounds of
// one listener, and whatever is held for one way is not held twice.
type bothWays struct {
	net.Listener
	plain    net.Listener
	accepted chan accepted
	closed   chan struct{}
	once     sync.Once
	accepts  sync.WaitGroup
}

type accepted struct {
	conn net.Conn
	err  error
}

func newBothWays(secured, plain net.Listener) *bothWays {
	b := &bothWays{Listener: secured, plain: plain, accepted: make(chan accepted), closed: make(chan struct{})}
	for _, inner := range []net.Listener{secured, plain} {
		b.accepts.Go(func() { b.acceptFrom(inner) })
	}
	return b
}

// acceptFrom takes one connection at a time: the next one waits in the kernel until the server asks for it.
func (b *bothWays) acceptFrom(inner net.Listener) {
	for {
		conn, err := inner.Accept()
		select {
		case b.accepted <- accepted{conn, err}:
		case <-b.closed:
			if conn != nil {
				_ = conn.Close()
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// Accept returns the next connection of either.
func (b *bothWays) Accept() (net.Conn, error) {
	select {
	case next := <-b.accepted:
		return next.conn, next.err
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

// Close closes both, and returns when nothing of them is accepted any more.
func (b *bothWays) Close() error {
	b.once.Do(func() { close(b.closed) })
	err := errors.Join(b.Listener.Close(), b.plain.Close())
	b.accepts.Wait()
	return err
}

// securedButPlain speaks TLS on each connection, but for those that came to the port of plain HTTP.
type securedButPlain struct {
	net.Listener
	config *tls.Config
	plain  net.Addr
}

// Accept returns the next connection. The handshake is the server's, within its limits.
func (s *securedButPlain) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err != nil || portOf(conn.LocalAddr()) == portOf(s.plain) {
		return conn, err
	}
	return tls.Server(conn, s.config), nil
}

// portOf is the port of a TCP address, 0 of another.
func portOf(address net.Addr) int {
	if tcp, ok := address.(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}
