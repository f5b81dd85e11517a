package listener_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/clinikapi/eventflow/dispatcher/listener"
)

// pipes is a net.Listener whose clients are at addresses of the test's choice.
type pipes struct {
	conns chan net.Conn
	fail  func() error // of the next Accept; nil for none
	once  sync.Once
	done  chan struct{}
}

// pipe is one end of a connection, from an address.
type pipe struct {
	net.Conn
	remote net.Addr
}

func (p pipe) RemoteAddr() net.Addr { return p.remote }

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	if p.fail != nil {
		if err := p.fail(); err != nil {
			return nil, err
		}
	}
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// fixture is a server behind a Listener.
type fixture struct {
	t        *testing.T
	pipes    *pipes
	registry *prometheus.Registry
	server   *http.Server
	release  chan struct{} // requests to /hold wait for it
}

// newFixture serves: a request with "Authorization: good" is authorized.
func newFixture(t *testing.T, connections int) *fixture {
	f := &fixture{t: t, pipes: newPipes(), registry: prometheus.NewRegistry(), release: make(chan struct{})}
	l, err := listener.New(f.pipes, listener.Options{Name: "api", Connections: connections, Judged: true, Registerer: f.registry})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		good := r.Header.Get("Authorization") == "good"
		listener.Trust(r.Context(), good)
		if r.URL.Path == "/hold" {
			<-f.release
		}
		if !good {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})}
	l.Bind(server)
	f.server = server
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		close(f.release)
		_ = server.Close()
		served.Wait()
	})
	return f
}

// dial connects from an address, 10.0.0.n.
func (f *fixture) dial(n int) net.Conn {
	ours, theirs := net.Pipe()
	f.pipes.conns <- pipe{theirs, &net.TCPAddr{IP: net.IPv4(10, 0, byte(n>>8), byte(n)), Port: 1}}
	synctest.Wait()
	f.t.Cleanup(func() { _ = ours.Close() })
	return ours
}

// request sends a request, and returns the answer's first line, or "" if the connection is closed.
func (f *fixture) request(c net.Conn, path, authorization string) string {
	go func() {
		_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", path, authorization)
	}()
	synctest.Wait()
	if path == "/hold" {
		return ""
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if err != nil {
		return ""
	}
	synctest.Wait()
	line, _, _ := strings.Cut(string(answer[:n]), "\r\n")
	return line
}

// open reports whether the server still has the connection.
func open(c net.Conn) bool {
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	synctest.Wait()
	select {
	case err := <-read:
		return err == nil
	default:
		return true
	}
}

const ok, unauthorized = "HTTP/1.1 200 OK", "HTTP/1.1 401 Unauthorized"

// TestIdleConnectionsKeepNobodyOut: 500 silent connections from one address and from fifty, and then a client that wants
// something.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	for _, addresses := range []int{1, 50, 500} {
		t.Run(fmt.Sprint(addresses), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const bound = 100
				f := newFixture(t, bound)
				for i := range 500 {
					c := f.dial(i % addresses)
					if i%2 == 0 { // half a header
						go func() { _, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 1000)) }()
					}
				}
				synctest.Wait()
				if got := f.gauge(); got > bound {
					t.Errorf("%v connections are open, want at most %d", got, bound)
				}
				for i := range 20 {
					if got := f.request(f.dial(1000), "/", "good"); got != ok {
						t.Fatalf("connection %d of another address got %q", i, got)
					}
				}
				if got := f.request(f.dial(0), "/", "good"); got != ok {
					t.Errorf("a client behind the same address got %q", got)
				}
			})
		})
	}
}

func (f *fixture) gauge() float64 {
	families, err := f.registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "eventflow_connections" {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

// TestAuthorizedConnectionsStay: strangers go first, idle ones next, and those with a request under way never.
func TestAuthorizedConnectionsStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 8)
		var idle, stranger, refused [1]net.Conn
		idle[0] = f.dial(1)
		if got := f.request(idle[0], "/", "good"); got != ok {
			t.Fatalf("got %q", got)
		}
		active := f.dial(1)
		f.request(active, "/hold", "good")
		refused[0] = f.dial(1)
		if got := f.request(refused[0], "/", "bad"); got != unauthorized {
			t.Fatalf("got %q", got)
		}
		stranger[0] = f.dial(1)
		if c := f.dial(1); !open(c) || open(refused[0]) { // a fifth, of a half of eight
			t.Error("the connection whose request was refused did not go first")
		}
		if !open(stranger[0]) || !open(idle[0]) {
			t.Error("more connections went than one")
		}
		for range 2 { // the stranger, and the one that came for the refused one, are replaced
			f.request(f.dial(1), "/hold", "good")
		}
		if open(stranger[0]) || !open(idle[0]) {
			t.Error("the stranger did not go before the idle connection")
		}
		if f.request(f.dial(1), "/hold", "good"); open(idle[0]) {
			t.Error("the idle connection did not go for a new one")
		}
		if c := f.dial(1); open(c) {
			t.Error("a connection went whose authorized request is under way")
		}
		if !open(active) {
			t.Error("the first authorized request was cut")
		}
		want := `
# HELP eventflow_connections_refused_total Connections closed at once because of the bound on them.
# TYPE eventflow_connections_refused_total counter
eventflow_connections_refused_total{listener="api"} 1
`
		if err := testutil.GatherAndCompare(f.registry, strings.NewReader(want), "eventflow_connections_refused_total"); err != nil {
			t.Error(err)
		}
	})
}

// TestDescriptorsOfItsOwn accepts with a spare descriptor when the process has no other.
func TestDescriptorsOfItsOwn(t *testing.T) {
	t.Parallel()
	starved := &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	inner := newPipes()
	failures := 0
	inner.fail = func() error {
		if failures > 0 {
			failures--
			return starved
		}
		return nil
	}
	l, err := listener.New(inner, listener.Options{SpareDescriptors: 2})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() { inner.conns <- pipe{theirs, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}} }()
	failures = 2
	c, err := l.Accept()
	if err != nil {
		t.Fatalf("with spare descriptors: %v", err)
	}
	failures = 1
	if _, err := l.Accept(); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("without: got %v", err)
	}
	_ = c.Close() // which makes them spare again
	go func() { _ = inner.Close() }()
	failures = 1
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("with spare ones again: got %v", err)
	}
	_ = l.Close()
}

// An attacker with many addresses makes every address's share small. A producer whose connections are authorized keeps
// more than that share.
func TestProvenAddressKeepsItsConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const bound, addresses, producers = 160, 40, 10 // a share is less than four
		f := newFixture(t, bound)
		flood := func() {
			for i := range 4 * addresses {
				f.dial(i % addresses)
			}
		}
		flood()
		conns := make([]net.Conn, producers)
		for i := range conns {
			conns[i] = f.dial(1000)
			if got := f.request(conns[i], "/", "good"); got != ok {
				t.Fatalf("connection %d got %q", i, got)
			}
		}
		if got := f.request(conns[0], "/", "bad"); got != unauthorized { // as if it had just come
			t.Fatalf("got %q", got)
		}
		flood()
		for i, c := range conns {
			if got := f.request(c, "/", "good"); got != ok {
				t.Errorf("connection %d got %q for its second request", i, got)
			}
		}
		if got := f.gauge(); got > bound {
			t.Errorf("%v connections are open, want at most %d", got, bound)
		}
	})
}

// What proves an address is bounded: beyond it, one address with good requests leaves the others their places.
func TestProvenAddressTakesNoMoreThanItsPart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const bound, addresses = 160, 40
		f := newFixture(t, bound)
		for i := range 4 * addresses {
			f.dial(i % addresses)
		}
		conns := make([]net.Conn, 20)
		kept := 0
		for i := range conns {
			conns[i] = f.dial(1000)
			f.request(conns[i], "/", "good")
		}
		for _, c := range conns {
			if open(c) {
				kept++
			}
		}
		if kept < 8 || kept > 12 {
			t.Errorf("the address kept %d connections, want about a sixteenth of %d", kept, bound)
		}
	})
}
