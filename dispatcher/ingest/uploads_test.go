package ingest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// pipeListener accepts connections in memory, whose deadlines follow the virtual clock.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

type pipeConn struct {
	net.Conn
	from string
}

func (c pipeConn) RemoteAddr() net.Addr { return pipeAddr(c.from) }

type pipeAddr string

func (pipeAddr) Network() string  { return "tcp" }
func (a pipeAddr) String() string { return string(a) + ":1" }

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr("server") }

// servePipes serves in memory, within a bubble.
func servePipes(t *testing.T, f *fixture) *pipeListener {
	t.Helper()
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	server := NewServer(f.Handler, logr.Discard())
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		served.Wait()
		<-time.After(time.Second) // for as long does net/http linger
	})
	return l
}

// client is a producer that is written by hand.
type client struct {
	net.Conn
	reader  *bufio.Reader
	started time.Time
}

func (l *pipeListener) dial(t *testing.T, from string) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	l.conns <- pipeConn{theirs, from}
	t.Cleanup(func() { _ = ours.Close() })
	return &client{Conn: ours, reader: bufio.NewReader(ours), started: time.Now()}
}

// begin sends the head of a publish to the namespace, and the beginning of its body.
func (c *client) begin(namespace string, length int, body string) {
	head := strings.Replace(requestHead, "clinic-a", namespace, 1)
	_, _ = fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n%s", head, length, body)
}

// receive reads the answer, and returns its status, 0 for none, and when it came.
func (c *client) receive() (status int, after time.Duration) {
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, time.Since(c.started)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode, time.Since(c.started)
}

// answer is receive for an answer that has to come.
func (c *client) answer(t *testing.T) (status int, after time.Duration) {
	t.Helper()
	status, after = c.receive()
	if status == 0 {
		t.Fatalf("no answer after %v", after)
	}
	return status, after
}

const oneEvent = `{"type":"patient.created","data":{}}`

// TestUploadsHaveALeastRate: a body that stalls or drips is ended within seconds, one that is slow and steady is not.
func TestUploadsHaveALeastRate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		chunk, length        int // bytes a second
		wantStatus           int
		wantAfter, notBefore time.Duration
	}{
		"stalls":         {0, 1000, http.StatusRequestTimeout, 6 * time.Second, 4 * time.Second},
		"drips":          {1 << 10, 1 << 20, http.StatusRequestTimeout, 8 * time.Second, 4 * time.Second},
		"half the rate":  {4 << 10, 1 << 20, http.StatusRequestTimeout, 12 * time.Second, 8 * time.Second},
		"steady":         {16 << 10, 512 << 10, http.StatusAccepted, 40 * time.Second, 30 * time.Second},
		"above the time": {100 << 10, 8 << 20, http.StatusRequestTimeout, readTimeout + time.Second, readTimeout - time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				c := servePipes(t, f).dial(t, "192.0.2.7")
				var sender sync.WaitGroup
				sender.Go(func() {
					sent := oneEvent
					c.begin("clinic-a", tc.length, sent)
					for left := tc.length - len(sent); left > 0; left -= tc.chunk {
						<-time.After(time.Second)
						if _, err := io.WriteString(c, strings.Repeat(" ", min(tc.chunk, left))); err != nil || tc.chunk == 0 {
							return
						}
					}
				})
				status, after := c.answer(t)
				_ = c.Close()
				sender.Wait()
				if status != tc.wantStatus || after > tc.wantAfter || after < tc.notBefore {
					t.Errorf("got %d after %v, want %d between %v and %v", status, after, tc.wantStatus, tc.notBefore, tc.wantAfter)
				}
			})
		})
	}
}

// TestSlowDiscardsEnd: what follows a token that is not good is not read for long.
func TestSlowDiscardsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(o *Options) { o.Authorizer = newKubernetes(t, newAPIServer()) })
		c := servePipes(t, f).dial(t, "192.0.2.7")
		go c.begin("clinic-a", 8<<20, "{")
		if status, after := c.answer(t); status != http.StatusUnauthorized || after > 6*time.Second {
			t.Errorf("got %d after %v", status, after)
		}
	})
}

// TestAStalledFloodHoldsNobodyUp: A5. Uploads of several tenants take the memory and stall; another's publish passes.
func TestAStalledFloodHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(o *Options) { o.MaxInFlightBytes = 40 << 20 })
		l := servePipes(t, f)
		const flood = 32
		answers := make(chan int, flood)
		for i := range flood { // until no more fit
			c := l.dial(t, fmt.Sprintf("192.0.2.%d", 100+i))
			go c.begin(fmt.Sprint("clinic-", i%8), 4<<20, strings.Repeat(" ", 2<<20))
			go func() {
				status, _ := c.receive()
				answers <- status
			}()
		}
		<-time.After(hurriedAge + 100*time.Millisecond)
		if !f.scarce() {
			t.Fatalf("%d of %d bytes are in use", f.memory.budget.Used(), f.memory.budget.Limit())
		}
		for range 40 { // which come faster than all of them can be let go
			c := l.dial(t, "192.0.2.8")
			go c.begin("clinic-a", len(oneEvent), oneEvent)
			if status, after := c.answer(t); status != http.StatusAccepted || after > time.Second {
				t.Fatalf("another tenant got %d after %v", status, after)
			}
			<-time.After(letGoInterval)
		}
		if f.scarce() {
			t.Error("no stalled upload was let go")
		}
		for range flood {
			if status := <-answers; status != http.StatusTooManyRequests && status != http.StatusRequestTimeout {
				t.Errorf("a stalled upload got %d", status)
			}
		}
		if got := testutil.ToFloat64(f.uploads.metrics.letGo.WithLabelValues("memory")); got == 0 {
			t.Error("none was counted")
		}
	})
}

// TestUploadsHaveShares: neither a namespace nor an address takes all places.
func TestUploadsHaveShares(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		namespace, from func(i int) string // of the flood
		otherNamespace  string
		otherFrom       string
	}{
		"a namespace": {
			func(int) string { return "clinic-b" }, func(i int) string { return fmt.Sprint("192.0.2.", i) }, "clinic-a", "192.0.2.1",
		},
		"an address": {
			func(i int) string { return fmt.Sprint("clinic-", i) }, func(int) string { return "192.0.2.1" }, "clinic-a", "192.0.2.2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, func(o *Options) { o.Uploads.Places = 8 })
				l := servePipes(t, f)
				refused := make(chan int, 100)
				for i := range 32 {
					c := l.dial(t, tc.from(i))
					go c.begin(tc.namespace(i), 1000, "{")
					go func() {
						if status, after := c.receive(); after == 0 {
							refused <- status
						}
					}()
				}
				synctest.Wait()
				c := l.dial(t, tc.otherFrom)
				go c.begin(tc.otherNamespace, len(oneEvent), oneEvent)
				if status, _ := c.answer(t); status != http.StatusAccepted {
					t.Errorf("the other one got %d", status)
				}
				<-time.After(discardTime)
				synctest.Wait()
				if f.uploads.tenants.Used() != 0 || f.uploads.sources.Used() != 0 || f.uploads.underWay() != 0 {
					t.Error("places are held by nobody")
				}
			})
		})
	}
}

// slowStore takes its time to make events durable.
type slowStore struct{ *memory }

func (s slowStore) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	<-time.After(2 * readTimeout)
	return s.memory.Append(ctx, events)
}

// TestTheRateEndsWithTheBody: a deadline of the body is none of what the store takes, nor of the next request.
func TestTheRateEndsWithTheBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(o *Options) { o.Store = slowStore{o.Store.(*memory)} })
		c := servePipes(t, f).dial(t, "192.0.2.7")
		for range 2 {
			go c.begin("clinic-a", len(oneEvent), oneEvent)
			if status, _ := c.answer(t); status != http.StatusAccepted {
				t.Fatalf("got %d", status)
			}
			<-time.After(idleTimeout - time.Second)
		}
	})
}
