package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

const (
	// drainDelay is that of the processes of these tests.
	drainDelay = time.Second
	// beforeReady is how long a dispatcher may take to stop that has accepted nothing.
	beforeReady = 5 * time.Second
	// theGrace is what Kubernetes gives a pod, less the rest of the default drain delay.
	theGrace = 40*time.Second - 4*time.Second
)

// stop ends the process as Kubernetes does, and returns how long that took.
func (p *plane) stop() time.Duration {
	p.t.Helper()
	start := time.Now()
	p.end(syscall.SIGTERM)
	if p.err != nil {
		p.t.Errorf("exit: %v\n%s", p.err, &p.log)
	}
	return time.Since(start)
}

// healthy waits until the process answers on its ops port.
func (p *plane) healthy() {
	p.t.Helper()
	eventually(p.t, "/healthz", func() bool { return p.probe("/healthz") == http.StatusOK })
}

// freeAddress is one that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// silentServer takes connections and says nothing.
func silentServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
		}
	}()
	return l.Addr().String()
}

// TestStopsBeforeItIsReady sends SIGTERM to a dispatcher that waits for something at its start. It ends tidily, and soon.
func TestStopsBeforeItIsReady(t *testing.T) {
	t.Parallel()
	for name, arrange := range map[string]func(t *testing.T, p *plane){
		"the store's lock": func(t *testing.T, p *plane) {
			other := &plane{t: t, dir: p.dir, store: p.store}
			other.start()
		},
		"a recovery that hangs": func(t *testing.T, p *plane) {
			first := &plane{t: t, dir: p.dir, store: p.store}
			first.start()
			first.stop()
			// The log to be recovered is one that nobody ever writes to.
			if err := syscall.Mkfifo(filepath.Join(p.dir, "store", "999999.log"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a database that refuses":      func(t *testing.T, p *plane) { p.store = "postgres://u@" + freeAddress(t) + "/d?sslmode=disable" },
		"a database that says nothing": func(t *testing.T, p *plane) { p.store = "postgres://u@" + silentServer(t) + "/d?sslmode=disable" },
		"a database that is read-only": readOnlyDatabase,
		"a volume that is full":        fullVolume,
		"the first routing table": func(t *testing.T, p *plane) {
			c := newControlPlane(t)
			c.set(open())
			p.arguments = newFollower(t, c).arguments
		},
		"the first settings": func(t *testing.T, p *plane) {
			c := newControlPlane(t)
			c.route("https://example.com")
			p.arguments = newFollower(t, c).arguments
		},
		"an API server without a word":  func(t *testing.T, p *plane) { p.arguments = newFollower(t, newControlPlane(t, "/")).arguments },
		"a lookup that is not answered": func(_ *testing.T, p *plane) { p.store = "postgres://u@nowhere.invalid/d?sslmode=disable" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &plane{t: t, dir: t.TempDir(), store: "pebble:store", opsAddress: freeAddress(t)}
			if err := os.Mkdir(filepath.Join(p.dir, "routes"), 0o700); err != nil {
				t.Fatal(err)
			}
			p.route("https://example.com")
			arrange(t, p)
			ready := p.launch()
			p.ops = p.opsAddress
			p.healthy()
			select {
			case <-ready:
				t.Fatal("it did not wait")
			case <-p.ended:
				t.Fatalf("it ended: %v\n%s", p.err, &p.log)
			case <-time.After(time.Second): // deep in its wait
			}
			if took := p.stop(); took > beforeReady {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// fullVolume has the dispatcher wait for space on the volume of its store.
func fullVolume(t *testing.T, p *plane) {
	volume := filepath.Join(p.dir, "store")
	if err := os.Mkdir(volume, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no small volume can be mounted here:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(volume, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	_ = os.WriteFile(filepath.Join(volume, "filler"), make([]byte, 2<<20), 0o600) // as much of it as fits
}

func readOnlyDatabase(t *testing.T, p *plane) {
	database, err := postgrestest.Start(postgrestest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := database.Stop(); err != nil {
			t.Error(err)
		}
	})
	p.store = database.URL("postgres") + "&options=-c%20default_transaction_read_only%3Don"
}

// TestStopsWhileItWorks sends SIGTERM to a dispatcher whose clients and endpoints hang. It ends within the grace, and what is
// pending is delivered afterwards.
func TestStopsWhileItWorks(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		arrange func(t *testing.T, p *plane, e *endpoint)
		pending int // at least, after the stop
		most    time.Duration
	}{
		"nothing to do": {func(*testing.T, *plane, *endpoint) {}, 0, drainDelay + 3*time.Second},
		"attempts that hang": {func(t *testing.T, p *plane, e *endpoint) {
			for i := range 20 {
				p.publish(fmt.Sprint("evt-", i))
			}
			eventually(t, "an attempt", func() bool { return len(e.received()) > 0 })
		}, 20, theGrace},
		"publishers that are slow": {func(_ *testing.T, p *plane, _ *endpoint) {
			for range 20 {
				p.dribble()
			}
		}, 0, theGrace},
		"both, and idle connections": {func(t *testing.T, p *plane, e *endpoint) {
			for i := range 20 {
				p.publish(fmt.Sprint("evt-", i))
				p.dribble()
				conn, err := net.Dial("tcp", p.api)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
			}
			eventually(t, "an attempt", func() bool { return len(e.received()) > 0 })
		}, 20, theGrace},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEndpoint(t)
			hang := make(chan struct{})
			e.answers(func(http.ResponseWriter, *http.Request) { <-hang })
			p := newPlane(t, e.URL)
			tc.arrange(t, p, e)
			took := p.stop()
			t.Logf("stopped within %v", took)
			if took > tc.most {
				t.Errorf("it took %v, want at most %v", took, tc.most)
			}
			close(hang)
			p.start()
			eventually(t, "what was pending is delivered", func() bool {
				delivered := 0
				for _, d := range p.deliveries() {
					if d.State == "Delivered" {
						delivered++
					}
				}
				return delivered >= tc.pending
			})
		})
	}
}

// dribble begins a publish, and sends a byte of it each second.
func (p *plane) dribble() {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.api)
	if err != nil {
		p.t.Fatal(err)
	}
	body := eventText("evt-slow", "patient.created", 100_000)
	fmt.Fprintf(conn, "POST /v1/namespaces/clinic-a/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for i := range len(body) {
			if _, err := conn.Write([]byte{body[i]}); err != nil {
				return
			}
			select {
			case <-tick.C:
			case <-p.t.Context().Done():
				return
			}
		}
	}()
	p.t.Cleanup(func() {
		conn.Close()
		<-ended
	})
}

// TestStopsWhileNamespacesAreAsked: publishes wait for an API server that does not answer.
func TestStopsWhileNamespacesAreAsked(t *testing.T) {
	t.Parallel()
	c := newControlPlane(t, "/api/v1/namespaces/clinic-a")
	c.route("https://example.com")
	s := open()
	s.Generation = 1
	c.set(s)
	p := newFollower(t, c)
	p.start()
	answered := make(chan int, 20)
	for i := range 20 {
		go func() {
			status, _ := p.post(eventText(fmt.Sprint("evt-", i), "patient.created", 1))
			answered <- status
		}()
	}
	eventually(t, "publishes that wait", func() bool { return p.gauge(`eventflow_connections{listener="api"}`) >= 20 })
	if took := p.stop(); took > theGrace {
		t.Errorf("it took %v", took)
	}
	for range 20 {
		<-answered
	}
}

// TestStopsWithoutItsDatabase takes the database away, and then the dispatcher.
func TestStopsWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	database, err := postgrestest.Start(postgrestest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := database.Stop(); err != nil {
			t.Error(err)
		}
	})
	for name, end := range map[string]func(*relay){"gone": (*relay).close, "silent": (*relay).freeze} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := database.Exec(t.Context(), "postgres", "CREATE DATABASE "+name); err != nil {
				t.Fatal(err)
			}
			way := newRelay(t, database.Address())
			e, hang := newEndpoint(t), make(chan struct{})
			defer close(hang)
			e.answers(func(http.ResponseWriter, *http.Request) { <-hang })
			p := &plane{t: t, dir: t.TempDir(), store: "postgres://postgres@" + way.address() + "/" + name + "?sslmode=disable"}
			if err := os.Mkdir(filepath.Join(p.dir, "routes"), 0o700); err != nil {
				t.Fatal(err)
			}
			p.route(e.URL)
			p.start()
			for i := range 10 {
				p.publish(fmt.Sprint("evt-", i))
			}
			eventually(t, "an attempt", func() bool { return len(e.received()) > 0 })
			end(way)
			took := p.stop()
			t.Logf("stopped within %v", took)
			if took > theGrace {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// relay is the way to a server, which can be cut.
type relay struct {
	listener net.Listener
	target   string
	frozen   atomic.Bool
	mu       sync.Mutex
	open     []net.Conn
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: target}
	t.Cleanup(r.close)
	go r.accept()
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", r.target)
		if err != nil {
			near.Close()
			continue
		}
		r.mu.Lock()
		r.open = append(r.open, near, far)
		r.mu.Unlock()
		go r.copy(near, far)
		go r.copy(far, near)
	}
}

// copy goes on reading when the relay is frozen: what was sent is acknowledged, and lost.
func (r *relay) copy(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if r.frozen.Load() {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (r *relay) freeze() { r.frozen.Store(true) }

func (r *relay) close() {
	r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.open {
		conn.Close()
	}
}
