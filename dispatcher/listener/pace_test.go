package listener_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// flood sends a request that is not authorized, and reads the answer.
func flood(c net.Conn) error {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 4096))
	return err
}

// TestRefusedAddressIsPaced: a flood of requests that are not authorized is answered at a pace of its address, however
// many connections it has. Others see nothing of it, and neither does a producer at the same address.
func TestRefusedAddressIsPaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1000)
		producer, began := f.dial(1), time.Now()
		if got := f.request(producer, "/", "good"); got != ok {
			t.Fatalf("the producer got %q", got)
		}
		answered := make(chan struct{}, 1<<16)
		for range 100 {
			c := f.dial(1)
			go func() {
				for flood(c) == nil {
					answered <- struct{}{}
				}
			}()
		}
		synctest.Wait()
		if got := len(answered); got < 40 {
			t.Errorf("%d refusals at once, want the first 40 without a pause", got)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if got := len(answered); got < 600 || got > 1500 {
			t.Errorf("%d refusals within a minute, want about 20 a second", got)
		}
		before := time.Now()
		for name, got := range map[string]string{
			"the producer":                  f.request(producer, "/", "good"),
			"a new client of its address":   f.request(f.dial(1), "/", "good"),
			"a client of another address":   f.request(f.dial(2), "/", "good"),
			"another one, with a bad token": f.request(f.dial(3), "/", "bad"),
		} {
			if got != ok && got != unauthorized {
				t.Errorf("%s got %q", name, got)
			}
		}
		if took := time.Since(before); took > 0 {
			t.Errorf("others waited for %v, %v after the start", took, before.Sub(began))
		}
	})
}

// TestNewConnectionsArePaced: to connect again for each request is no way around it, and no wait is long enough for the
// server to give the client up.
func TestNewConnectionsArePaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 1000)
		kept := f.dial(1)
		for range 1000 {
			f.request(kept, "/", "bad")
		}
		before := time.Now()
		if got := f.request(f.dial(1), "/", "bad"); got != unauthorized {
			t.Errorf("a new connection got %q", got)
		}
		if took := time.Since(before); took == 0 || took > time.Second {
			t.Errorf("a new connection waited for %v, want up to a second", took)
		}
	})
}

// TestHalfRequestsArePaced: connections that end without a request that the handler sees count like refusals, and so do those
// that close with their refusal; those that send nothing, such as TCP probes, do not.
func TestHalfRequestsArePaced(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		sent string
		want bool
	}{
		"no HTTP":       {"nonsense\r\n\r\n", true},
		"long header":   {"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 20<<10), true},
		"closed at end": {"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", true},
		"authorized":    {"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: good\r\nConnection: close\r\n\r\n", false},
		"probe":         {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, 1000)
				f.server.MaxHeaderBytes = 4 << 10
				f.dial(1) // so that the address is known throughout
				for range 100 {
					c := f.dial(1)
					if tc.sent == "" {
						_ = c.Close()
						continue
					}
					go func() { _, _ = io.WriteString(c, tc.sent) }()
					go func() { _, _ = io.Copy(io.Discard, c) }()
				}
				<-time.After(time.Second) // net/http closes half a second after it answered
				before := time.Now()
				if got := f.request(f.dial(1), "/", "bad"); got != unauthorized {
					t.Errorf("a new connection got %q", got)
				}
				if took := time.Since(before); (took > 0) != tc.want || took > time.Second {
					t.Errorf("a new connection waited for %v", took)
				}
			})
		})
	}
}

// TestPausedConnectionCloses: a pause keeps neither a place nor a goroutine beyond the connection.
func TestPausedConnectionCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, 100)
		c := f.dial(1)
		for range 41 {
			f.request(c, "/", "bad")
		}
		before := time.Now()
		f.server.SetKeepAlivesEnabled(false) // as when it stops: idle connections are closed
		synctest.Wait()
		if open(c) || time.Since(before) > 0 {
			t.Error("a connection that waits stays open when the server closes it")
		}
	})
}
