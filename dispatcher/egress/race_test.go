package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

func addressesOf(texts ...string) []netip.Addr {
	all := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func TestInterleave(t *testing.T) {
	t.Parallel()
	for want, addresses := range map[string][]netip.Addr{
		"[]":                                nil,
		"[1.1.1.1]":                         addressesOf("1.1.1.1"),
		"[1.1.1.1 ::1 2.2.2.2 ::2]":         addressesOf("1.1.1.1", "2.2.2.2", "::1", "::2"),
		"[::1 1.1.1.1 ::2 ::3]":             addressesOf("::1", "::2", "::3", "1.1.1.1"),
		"[1.1.1.1 ::1 2.2.2.2 3.3.3.3]":     addressesOf("1.1.1.1", "2.2.2.2", "3.3.3.3", "::1"),
		"[1.1.1.1 2.2.2.2 3.3.3.3]":         addressesOf("1.1.1.1", "2.2.2.2", "3.3.3.3"),
		"[::2 1.1.1.1 ::1 2.2.2.2 ::3]":     addressesOf("::2", "::1", "1.1.1.1", "2.2.2.2", "::3"),
		"[1.1.1.1 ::2 2.2.2.2 ::1 4.4.4.4]": addressesOf("1.1.1.1", "2.2.2.2", "::2", "4.4.4.4", "::1"),
	} {
		if got := fmt.Sprint(interleave(addresses)); got != want {
			t.Errorf("%v: %s, want %s", addresses, got, want)
		}
	}
}

// network stands for the addresses behind a name, on the virtual clock.
type network struct {
	mu      sync.Mutex
	dialled []string
	open    int
	most    int // dials at once
	now     int
}

// tracked counts connections that are open.
type tracked struct {
	net.Conn
	of   *network
	once sync.Once
}

func (c *tracked) Close() error {
	c.once.Do(func() { c.of.mu.Lock(); c.of.open--; c.of.mu.Unlock() })
	return c.Conn.Close()
}

// dial connects after what the last byte of the address says: below 100 after as many times 100 ms, from 100 never,
// from 200 it is refused after as many times 100 ms.
func (n *network) dial(ctx context.Context, address netip.AddrPort, _ []Rule) (net.Conn, error) {
	raw := address.Addr().As16()
	b := int(raw[15])
	n.mu.Lock()
	n.dialled = append(n.dialled, address.Addr().String())
	n.now++
	n.most = max(n.most, n.now)
	n.mu.Unlock()
	defer func() { n.mu.Lock(); n.now--; n.mu.Unlock() }()
	wait := time.Duration(b%100) * 100 * time.Millisecond
	if b >= 100 && b < 200 {
		wait = time.Hour
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if b >= 200 {
		return nil, errors.New("refused")
	}
	near, far := net.Pipe()
	_ = far.Close()
	n.mu.Lock()
	n.open++
	n.mu.Unlock()
	return &tracked{Conn: near, of: n}, nil
}

// TestRace keeps the promise of row B4.
func TestRace(t *testing.T) {
	t.Parallel()
	many := func(n int, text string) []string {
		return strings.Split(strings.Repeat(text+" ", n)[:n*(len(text)+1)-1], " ")
	}
	for name, tc := range map[string]struct {
		addresses   []string
		timeout     time.Duration // 30 s if 0
		wantDialled int
		wantTook    time.Duration
		wantErr     bool
	}{
		"one":                    {addresses: []string{"1.1.1.2"}, wantDialled: 1, wantTook: 200 * time.Millisecond},
		"one that never answers": {addresses: []string{"1.1.1.100"}, wantDialled: 1, wantTook: 30 * time.Second, wantErr: true},
		"the first at once":      {addresses: []string{"1.1.1.0", "1.1.1.0"}, wantDialled: 1},
		"the first in time":      {addresses: []string{"1.1.1.2", "1.1.1.0"}, wantDialled: 1, wantTook: 200 * time.Millisecond},
		"the first drops SYNs":   {addresses: []string{"1.1.1.100", "1.1.1.1"}, wantDialled: 2, wantTook: 400 * time.Millisecond},
		"the first is slow":      {addresses: []string{"1.1.1.5", "1.1.1.100"}, wantDialled: 2, wantTook: 500 * time.Millisecond},
		"the first is refused":   {addresses: []string{"1.1.1.200", "1.1.1.1"}, wantDialled: 2, wantTook: 100 * time.Millisecond},
		"refused beside another": {addresses: []string{"1.1.1.201", "1.1.1.201", "1.1.1.0"}, wantDialled: 3, wantTook: 200 * time.Millisecond},
		"eight dead, one alive":  {addresses: append(many(8, "1.1.1.100"), "1.1.1.0"), wantDialled: 9, wantTook: 2400 * time.Millisecond},
		"eight dead, 8 s":        {addresses: append(many(8, "1.1.1.100"), "1.1.1.0"), timeout: 8 * time.Second, wantDialled: 9, wantTook: 2300 * time.Millisecond},
		"all refused":            {addresses: many(5, "1.1.1.200"), wantDialled: 5, wantErr: true},
		"all dead": {
			addresses: many(4, "1.1.1.100"), timeout: 8 * time.Second, wantDialled: 4, wantTook: 2*time.Second + 900*time.Millisecond, wantErr: true,
		},
		"the bound": {addresses: append(many(maxAddresses, "1.1.1.200"), "1.1.1.0"), wantDialled: maxAddresses, wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := &network{}
				d := &dialer{dial: n.dial, lookup: func(context.Context, string) ([]netip.Addr, error) { return addressesOf(tc.addresses...), nil }}
				if tc.timeout == 0 {
					tc.timeout = 30 * time.Second
				}
				ctx, cancel := context.WithTimeout(t.Context(), tc.timeout)
				defer cancel()
				started := time.Now()
				made, err := d.connect(ctx, &preparedTarget{address: "a.test:80", plaintext: true}, poolKey{})
				if (err != nil) != tc.wantErr {
					t.Fatalf("error %v, want %v", err, tc.wantErr)
				}
				if took := time.Since(started); took != tc.wantTook || len(n.dialled) != tc.wantDialled {
					t.Errorf("dialled %d in %v, want %d in %v", len(n.dialled), took, tc.wantDialled, tc.wantTook)
				}
				if n.now != 0 {
					t.Errorf("%d dials outlive the race", n.now)
				}
				if err == nil {
					if n.open != 1 {
						t.Errorf("%d connections are open, want that of the winner", n.open)
					}
					_ = made.Close()
				}
				if n.open != 0 || len(d.hosts.all) != 0 {
					t.Errorf("%d connections and %d hosts are left", n.open, len(d.hosts.all))
				}
			})
		})
	}
}

// TestRaceFamilies has a name with addresses of two families, of which one does not get through.
func TestRaceFamilies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		d := &dialer{dial: n.dial, lookup: func(context.Context, string) ([]netip.Addr, error) {
			return addressesOf("2001::64", "2001::65", "2001::66", "1.1.1.0"), nil
		}}
		started := time.Now()
		made, err := d.connect(t.Context(), &preparedTarget{address: "a.test:80", plaintext: true}, poolKey{})
		if err != nil {
			t.Fatal(err)
		}
		_ = made.Close()
		if took := time.Since(started); took != addressDelay {
			t.Errorf("took %v, want %v", took, addressDelay)
		}
	})
}

// TestRaceReasons are of the most telling failure.
func TestRaceReasons(t *testing.T) {
	t.Parallel()
	d := &dialer{dial: func(_ context.Context, address netip.AddrPort, _ []Rule) (net.Conn, error) {
		if address.Addr().IsPrivate() {
			return nil, errAddressNotAllowed
		}
		return nil, errors.New("refused")
	}}
	for want, addresses := range map[delivery.Reason][]string{
		delivery.ReasonAddressNotAllowed: {"10.0.0.1", "10.0.0.2"},
		delivery.ReasonUnreachable:       {"10.0.0.1", "8.8.8.8", "10.0.0.2"},
	} {
		d.lookup = func(context.Context, string) ([]netip.Addr, error) { return addressesOf(addresses...), nil }
		_, err := d.connect(t.Context(), &preparedTarget{address: "a.test:80", plaintext: true}, poolKey{})
		var known *failure
		if !errors.As(err, &known) || known.reason != want {
			t.Errorf("%v: %v, want %s", addresses, err, want)
		}
	}
}

// TestConnectionsAge keeps the promise of row B5: a connection is used for a minute at most.
func TestConnectionsAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(10, 50*time.Second, time.Minute)
		defer p.close()
		c := piped(t, "a")
		for range 6 {
			p.put(c)
			<-time.After(9 * time.Second)
			if p.get(poolKey{endpoint: "a"}) != c {
				t.Fatal("gone within a minute")
			}
		}
		p.put(c)
		<-time.After(9 * time.Second)
		if p.get(poolKey{endpoint: "a"}) != nil || c.open() {
			t.Error("used again after more than a minute")
		}
		old := piped(t, "a")
		<-time.After(time.Minute)
		if p.put(old); old.open() {
			t.Error("kept after a minute in use")
		}
	})
}

// TestConnectionsFollowTheirName keeps the other promise of row B5.
func TestConnectionsFollowTheirName(t *testing.T) {
	t.Parallel()
	const where = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	r := newReceiver(t, func(c net.Conn) {
		for b := bufio.NewReader(c); readRequest(b); {
			if _, err := c.Write([]byte(where)); err != nil {
				return
			}
		}
	})
	c := newClient(t)
	var mu sync.Mutex
	current := addressesOf("127.0.0.1")
	var dialled []string
	c.dialer.lookup = func(context.Context, string) ([]netip.Addr, error) {
		mu.Lock()
		defer mu.Unlock()
		return current, nil
	}
	dial := c.dialer.dial
	c.dialer.dial = func(ctx context.Context, address netip.AddrPort, rules []Rule) (net.Conn, error) {
		mu.Lock()
		dialled = append(dialled, address.Addr().String())
		mu.Unlock()
		return dial(ctx, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), address.Port()), rules)
	}
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(r.url, "http://"))
	send := func(tenant string) {
		t.Helper()
		request := newRequest(t, "http://a.test:"+port)
		request.Tenant = tenant
		if result := c.Send(context.Background(), request); !result.Delivered() {
			t.Fatalf("%+v, want delivered", result)
		}
	}
	send("a")
	send("a") // on the same
	mu.Lock()
	current = addressesOf("127.0.0.2", "127.0.0.1")
	mu.Unlock()
	send("b") // resolves again; a's address is still there
	send("a")
	mu.Lock()
	current = addressesOf("127.0.0.9")
	mu.Unlock()
	send("c") // resolves again
	send("a") // so this one dials again
	mu.Lock()
	defer mu.Unlock()
	if got, want := fmt.Sprint(dialled), "[127.0.0.1 127.0.0.2 127.0.0.9 127.0.0.9]"; got != want {
		t.Errorf("dialled %s, want %s", got, want)
	}
	if n := len(c.dialer.hosts.all); n != 1 {
		t.Errorf("%d hosts, want 1", n)
	}
	c.Close()
	if n := len(c.dialer.hosts.all); n != 0 {
		t.Errorf("%d hosts are kept without a connection", n)
	}
}

// TestPoolIsShared lets one tenant fill the pool, and another one keep a connection all the same.
func TestPoolIsShared(t *testing.T) {
	t.Parallel()
	p := newPool(8, time.Minute, time.Hour)
	defer p.close()
	of := func(tenant string) *conn {
		c := piped(t, "x")
		c.key.tenant = tenant
		return c
	}
	mine := of("small")
	p.put(mine)
	for range 20 {
		p.put(of("large"))
	}
	if !mine.open() {
		t.Error("a tenant with many connections pushed out that of another one")
	}
	for range 20 {
		p.put(of("new"))
	}
	if !mine.open() || p.tenants["large"] != 5 || p.tenants["new"] != 2 || p.order.Len() != 8 {
		t.Errorf("the tenants have %v, want a share for each", p.tenants)
	}
}
