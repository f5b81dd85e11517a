package virtual

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/clinikapi/eventflow/dispatcher/store/postgres"
	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

// server is the database that the tests share, each in a schema of its own.
var server *postgrestest.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if server, err = postgrestest.Start(postgrestest.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

var schemas atomic.Int64

// shared is a database that two dispatchers share, each over a line of its own.
type shared struct {
	schema string
	lines  []*line // of the nodes, in their order
	orders int     // hand-overs so far
}

func (p *shared) begin(c *clinic) {
	p.schema = fmt.Sprintf("virtual_%d", schemas.Add(1))
	p.join(c)
	p.join(c)
	c.Cleanup(func() {
		for i, n := range c.nodes {
			n.end()
			p.lines[i].close()
		}
	})
}

// join starts one more dispatcher.
func (p *shared) join(c *clinic) {
	l := newLine(c, server.Address())
	s, err := postgres.Open(c.Context(), postgres.Options{
		URL:    fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable&pool_max_conns=4", l.address()),
		Schema: p.schema, Now: c.clock.now, LeaseDuration: 2 * time.Second,
		Retention: postgres.Retention{Delivered: keep, Failed: keep},
	})
	if err != nil {
		c.Fatal(err)
	}
	p.lines = append(p.lines, l)
	c.start(s)
}

// kill lets another dispatcher join and the first one leave: by turns its line is cut, and it stops in order.
func (p *shared) kill(c *clinic) {
	p.join(c)
	if p.orders++; p.orders%2 == 1 {
		p.lines[0].cut()
	}
	c.nodes[0].end()
	p.lines[0].close()
	c.nodes, p.lines = c.nodes[1:], p.lines[1:]
}

// line is a connection to the database that can be cut.
type line struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu   sync.Mutex
	dead bool
	open map[net.Conn]struct{}
}

func newLine(t testing.TB, target string) *line {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{listener: listener, target: target, open: map[net.Conn]struct{}{}}
	l.work.Go(l.serve)
	return l
}

func (l *line) address() string { return l.listener.Addr().String() }

func (l *line) serve() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.target)
		if err != nil || !l.keep(near, far) {
			_ = near.Close()
			if far != nil {
				_ = far.Close()
			}
			continue
		}
		l.work.Go(func() { l.pass(near, far) })
		l.work.Go(func() { l.pass(far, near) })
	}
}

func (l *line) keep(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		l.open[c] = struct{}{}
	}
	return !l.dead
}

func (l *line) pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_, _ = to.Close(), from.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, to)
	delete(l.open, from)
}

// cut ends each connection, and refuses new ones.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	for c := range l.open {
		_ = c.Close()
	}
}

func (l *line) close() {
	_ = l.listener.Close()
	l.cut()
	l.work.Wait()
}
