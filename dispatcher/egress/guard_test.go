package egress

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestGuard(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		allowed, denied     []string
		wantYes, wantRefuse []string
	}{
		"by default": {
			wantYes: []string{"8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"},
			wantRefuse: []string{
				"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "169.254.169.254", "172.16.0.1",
				"172.31.255.255", "192.168.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
				"::", "::1", "::7f00:1", "fd00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "ff02::1", "2001:db8::1", "2001::1", "2002:7f00:1::",
				"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0.0.0.0",
				"64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1",
			},
		},
		"IPv4 allowed": {
			allowed:    []string{"10.1.0.0/16"},
			wantYes:    []string{"10.1.0.1", "::ffff:10.1.0.1", "64:ff9b::a01:1", "8.8.8.8"},
			wantRefuse: []string{"10.2.0.1", "127.0.0.1", "::ffff:10.2.0.1", "64:ff9b::a02:1"},
		},
		"IPv6 allowed": {
			allowed:    []string{"fd00:1::/32", "fe80::/10"},
			wantYes:    []string{"fd00:1::1", "fe80::1%eth0"},
			wantRefuse: []string{"fd00:2::1", "::1"},
		},
		"IPv4 allowed, written as mapped": {
			allowed:    []string{"::ffff:10.1.0.0/112"},
			wantYes:    []string{"10.1.0.1", "::ffff:10.1.2.3"},
			wantRefuse: []string{"10.2.0.1"},
		},
		"all of IPv6 allowed": {
			allowed:    []string{"::/0"},
			wantYes:    []string{"::1", "fd00::1"},
			wantRefuse: []string{"127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"},
		},
		"NAT64 allowed": {
			allowed:    []string{"64:ff9b::/96"},
			wantYes:    []string{"64:ff9b::808:808"},
			wantRefuse: []string{"64:ff9b::7f00:1"},
		},
		"denied wins over allowed": {
			allowed:    []string{"10.0.0.0/8", "fd00::/8"},
			denied:     []string{"10.1.0.0/16", "fd00:1::/32"},
			wantYes:    []string{"10.2.0.1", "fd00:2::1"},
			wantRefuse: []string{"10.1.0.1", "::ffff:10.1.0.1", "64:ff9b::a01:1", "fd00:1::1", "fd00:1::1%eth0"},
		},
		"denied wins over a narrower allowed": {
			allowed:    []string{"10.1.2.3/32"},
			denied:     []string{"10.0.0.0/8"},
			wantRefuse: []string{"10.1.2.3"},
		},
		"public denied": {
			denied:     []string{"8.8.8.0/24", "2606:4700::/32"},
			wantYes:    []string{"8.8.4.4"},
			wantRefuse: []string{"8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1"},
		},
		"denied, written as mapped": {
			denied:     []string{"::ffff:8.8.8.0/120"},
			wantRefuse: []string{"8.8.8.8", "::ffff:8.8.8.8"},
		},
		"all of NAT64 denied": {denied: []string{"64:ff9b::/96"}, wantYes: []string{"8.8.8.8"}, wantRefuse: []string{"64:ff9b::808:808"}},
		"host bits set":       {denied: []string{"8.8.8.8/24"}, wantRefuse: []string{"8.8.8.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := newGuard(Options{AllowedCIDRs: prefixes(tc.allowed...), DeniedCIDRs: prefixes(tc.denied...)})
			if err != nil {
				t.Fatal(err)
			}
			check := func(text string, want bool) {
				network := "tcp4"
				if strings.Contains(text, ":") {
					network = "tcp6"
				}
				err := g.control(nil)(network, netip.AddrPortFrom(netip.MustParseAddr(text), 443).String(), nil)
				if (err == nil) != want {
					t.Errorf("%s: error %v, want allowed %v", text, err, want)
				}
			}
			for _, text := range tc.wantYes {
				check(text, true)
			}
			for _, text := range tc.wantRefuse {
				check(text, false)
			}
		})
	}
}

func TestGuardRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	g, err := newGuard(Options{AllowedCIDRs: prefixes("0.0.0.0/0")})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range [][2]string{{"tcp4", "example.com:443"}, {"udp4", "8.8.8.8:53"}, {"unix", "/run/x.sock"}, {"tcp4", ""}, {"tcp", "8.8.8.8:443"}} {
		if g.control(nil)(tc[0], tc[1], nil) == nil {
			t.Errorf("%s %q is allowed", tc[0], tc[1])
		}
	}
	if _, err := newGuard(Options{AllowedCIDRs: []netip.Prefix{{}}}); err == nil {
		t.Error("an allowed CIDR that is none: no error")
	}
	if _, err := newGuard(Options{DeniedCIDRs: []netip.Prefix{{}}}); err == nil {
		t.Error("a denied CIDR that is none: no error")
	}
}

func FuzzGuard(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Add(netip.MustParseAddr("64:ff9b::7f00:1").AsSlice())
	g, err := newGuard(Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, ok := netip.AddrFromSlice(raw)
		if !ok || g.judge(netip.AddrPortFrom(a, 443), nil) != nil {
			return
		}
		a = a.Unmap()
		if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() {
			t.Errorf("%s is allowed", a)
		}
	})
}

// The whole way, from a URL: nothing connects.
func TestSendRefusesSpecialAddresses(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer(noContent))
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(r.url, "http://"))
	c := newClient(t, func(o *Options) { o.AllowedCIDRs = nil })
	for _, host := range []string{
		"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "10.0.0.1", "169.254.169.254", "[fd00::1]",
		"[64:ff9b::7f00:1]", "[fe80::1]", "localhost",
	} {
		for _, scheme := range []string{"http", "https"} {
			result := c.Send(context.Background(), newRequest(t, scheme+"://"+host+":"+port+"/"))
			if result.Reason != delivery.ReasonAddressNotAllowed || result.StatusCode != 0 {
				t.Errorf("%s://%s: %+v, want %s", scheme, host, result, delivery.ReasonAddressNotAllowed)
			}
		}
	}
	// Spellings that only some resolvers take for addresses end either way, but never there.
	for _, host := range []string{"127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1."} {
		if result := c.Send(context.Background(), newRequest(t, "http://"+host+":"+port+"/")); result.Delivered() {
			t.Errorf("%s: delivered", host)
		}
	}
	if n := r.accepted.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

func TestSendDeniedWinsOverAllowed(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer(noContent))
	c := newClient(t, func(o *Options) { o.DeniedCIDRs = prefixes("127.0.0.1/32") })
	if result := c.Send(context.Background(), newRequest(t, r.url)); result.Reason != delivery.ReasonAddressNotAllowed {
		t.Errorf("%+v, want %s", result, delivery.ReasonAddressNotAllowed)
	}
	if n := r.accepted.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// names is a DNS server: each lookup of a name takes the next of its answers, the last one again and again.
type names struct {
	mu      sync.Mutex
	answers map[string][][]string
	serving sync.WaitGroup
}

// resolver returns a resolver that asks n alone.
func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		n.serving.Go(func() {
			defer server.Close()
			var err error
			for err == nil {
				err = n.serve(server)
			}
		})
		return client, nil
	}}
}

// serve answers one query, framed as over TCP.
func (n *names) serve(conn net.Conn) error {
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return err
	}
	packed := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, packed); err != nil {
		return err
	}
	var query dnsmessage.Message
	if err := query.Unpack(packed); err != nil {
		return err
	}
	question := query.Questions[0]
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: query.ID, Response: true, Authoritative: true, RecursionAvailable: true},
		Questions: query.Questions,
	}
	answers, known := n.lookup(question)
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, text := range answers {
		reply.Answers = append(reply.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(text).As4()},
		})
	}
	packed, err := reply.Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...))
	return err
}

// lookup returns the addresses for a question of type A, and none for others.
func (n *names) lookup(q dnsmessage.Question) ([]string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := strings.TrimSuffix(q.Name.String(), ".")
	rounds, known := n.answers[name]
	if !known || q.Type != dnsmessage.TypeA {
		return nil, known
	}
	if len(rounds) > 1 {
		n.answers[name] = rounds[1:]
	}
	return rounds[0], true
}

func TestSendJudgesWhatANameResolvesTo(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"))
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(r.url, "http://"))
	n := &names{answers: map[string][][]string{
		"private.test":   {{"10.0.0.1"}},
		"metadata.test":  {{"169.254.169.254"}},
		"allowed.test":   {{"127.0.0.1"}},
		"rebinding.test": {{"127.0.0.1"}, {"127.0.0.2"}},
		"mixed.test":     {{"10.0.0.1", "127.0.0.1"}},
		"empty.test":     {{}},
	}}
	t.Cleanup(n.serving.Wait)
	c := newClient(t, func(o *Options) { o.AllowedCIDRs = prefixes("127.0.0.1/32"); o.Resolver = n.resolver() })
	for _, tc := range []struct {
		host string
		want delivery.Reason
	}{
		{"private.test", delivery.ReasonAddressNotAllowed},
		{"metadata.test", delivery.ReasonAddressNotAllowed},
		{"allowed.test", ""},
		{"rebinding.test", ""},
		{"rebinding.test", delivery.ReasonAddressNotAllowed},
		{"mixed.test", ""}, // by its allowed address
		{"empty.test", delivery.ReasonNameNotFound},
		{"unknown.test", delivery.ReasonNameNotFound},
	} {
		before := r.accepted.Load()
		result := c.Send(context.Background(), newRequest(t, "http://"+tc.host+":"+port))
		if result.Reason != tc.want {
			t.Errorf("%s: %+v, want reason %q", tc.host, result, tc.want)
		}
		if connected := r.accepted.Load() > before; connected != (tc.want == "") {
			t.Errorf("%s: connected %v", tc.host, connected)
		}
	}
}
