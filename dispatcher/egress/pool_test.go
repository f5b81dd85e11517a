package egress

import (
	"bufio"
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// piped is a pooled connection to nobody.
func piped(t *testing.T, key string) *conn {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return newConn(near, newWire(near), poolKey{endpoint: key})
}

func (c *conn) open() bool { return c.SetDeadline(time.Time{}) == nil }

func TestPoolKeepsTheNewest(t *testing.T) {
	t.Parallel()
	p := newPool(3, time.Minute, time.Hour)
	defer p.close()
	first, second, third, other := piped(t, "a"), piped(t, "a"), piped(t, "a"), piped(t, "b")
	for _, c := range []*conn{first, second, third, other} {
		p.put(c)
	}
	if first.open() {
		t.Error("the one used longest ago stayed open above the limit")
	}
	if got := p.get(poolKey{endpoint: "a"}); got != third {
		t.Error("not the one used last")
	}
	if got := p.get(poolKey{endpoint: "a"}); got != second {
		t.Error("not the one before")
	}
	if got := p.get(poolKey{endpoint: "a"}); got != nil {
		t.Error("a closed one is in the pool")
	}
	if got := p.get(poolKey{endpoint: "b"}); got != other || !got.reused {
		t.Error("the other endpoint's is gone")
	}
	p.put(second)
	p.close()
	p.put(third)
	if second.open() || third.open() || p.order.Len() != 0 || len(p.idle) != 0 {
		t.Error("a closed pool keeps connections")
	}
}

func TestPoolClosesWhatIsIdleForTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(10, time.Minute, time.Hour)
		defer p.close()
		old, young := piped(t, "a"), piped(t, "a")
		p.put(old)
		<-time.After(40 * time.Second)
		p.put(young)
		<-time.After(30 * time.Second)
		if old.open() || !young.open() {
			t.Errorf("open after 70 s: %v, after 30 s: %v; want only the young one", old.open(), young.open())
		}
		<-time.After(40 * time.Second)
		if young.open() {
			t.Error("open after 70 s")
		}
	})
}

// TestUnaskedAnswersAreNotTaken lets an endpoint send an answer to a request that nobody made yet.
func TestUnaskedAnswersAreNotTaken(t *testing.T) {
	t.Parallel()
	sent := make(chan struct{})
	r := newReceiver(t, func(conn net.Conn) {
		for b := bufio.NewReader(conn); readRequest(b); sent <- struct{}{} {
			_, _ = io.WriteString(conn, noContent)
			_, _ = io.WriteString(conn, "HTTP/1.1 500 Stale\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c := newClient(t)
	for range 10 {
		if result := c.Send(context.Background(), newRequest(t, r.url)); result.StatusCode != 204 {
			t.Fatalf("%+v, want 204", result)
		}
		<-sent
	}
	if n := r.accepted.Load(); n != 10 {
		t.Errorf("%d connections, want one each", n)
	}
}
