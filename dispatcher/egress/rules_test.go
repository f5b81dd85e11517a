package egress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

func TestReserved(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"Host": true, "connection": true, "Content-Type": true, "content-length": true, "Content-Encoding": true,
		"Transfer-Encoding": true, "transfer_encoding": true, "TE": true, "Trailer": true, "Upgrade": true, "Expect": true,
		"Keep-Alive": true, "Proxy-Authorization": true, "Proxy-Connection": true, "Accept-Encoding": true, "HTTP2-Settings": true,
		"X-Clinik-Signature": true, "x-clinikapi-signature": true, "X_Clinik_Attempt": true, "Webhook-Id": true, "webhook_id": true,
		"ce-id": true, "Ce-Source": true, "CE-TENANT": true, "ce_type": true, "Ce-": true,
		"User-Agent": false, "Authorization": false, "X-Team": false, "Idempotency-Key": false, "Ceremony": false, "X-Ce-Id": false,
		"Cookie": false, "": false,
	} {
		if got := Reserved(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

// TestRules keeps the promises of item 7 and row A11.
func TestRules(t *testing.T) {
	t.Parallel()
	rule := func(ports []uint16, texts ...string) Rule { return Rule{Prefixes: prefixes(texts...), Ports: ports} }
	everything := prefixes("0.0.0.0/0", "::/0")
	metadata := []string{
		"169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23",
		"fd20:ce::254", "fd00:c1::a9fe:a9fe", "fe80::a9fe:a9fe%eth0", "0.0.0.0", "::", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
		"::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::", "::ffff:0:a9fe:a9fe", "2002:a9fe:a9fe::1",
		"2001:0:a9fe:a9fe::1", "2001::5601:5601", "64:ff9b::a83f:8110",
	}
	for name, tc := range map[string]struct {
		options                        Options
		rules                          []Rule
		wantYes, wantAddress, wantPort []string
	}{
		"ports by default": {
			wantYes:     []string{"8.8.8.8:80", "8.8.8.8:443", "8.8.8.8:1024", "8.8.8.8:8443", "8.8.8.8:65535", "[2606:4700::1]:443"},
			wantPort:    []string{"8.8.8.8:22", "8.8.8.8:25", "8.8.8.8:1023", "8.8.8.8:1", "[2606:4700::1]:25", "[64:ff9b::808:808]:25"},
			wantAddress: []string{"10.0.0.1:443", "10.0.0.1:25", "127.0.0.1:8080"},
		},
		"ports of the operator": {
			options:  Options{AllowedPorts: []uint16{88}},
			wantYes:  []string{"8.8.8.8:88", "8.8.8.8:443"},
			wantPort: []string{"8.8.8.8:25"},
		},
		"a rule without ports": {
			rules:       []Rule{rule(nil, "10.1.0.0/16", "fd00:1::/32")},
			wantYes:     []string{"10.1.2.3:443", "10.1.2.3:8080", "[fd00:1::1]:8080", "[::ffff:10.1.2.3]:443", "[64:ff9b::a01:203]:443"},
			wantPort:    []string{"10.1.2.3:22"},
			wantAddress: []string{"10.2.0.1:443", "[fd00:2::1]:443"},
		},
		"a rule with ports": {
			rules:       []Rule{rule([]uint16{25, 8080}, "10.1.0.0/16", "8.8.8.8/32")},
			wantYes:     []string{"10.1.2.3:25", "10.1.2.3:8080", "8.8.8.8:25", "8.8.8.8:443", "8.8.8.8:9999"},
			wantPort:    []string{"10.1.2.3:443", "10.1.2.3:9999", "8.8.8.8:26", "8.8.4.4:25"},
			wantAddress: []string{"10.2.0.1:8080"},
		},
		"a rule beside what all may reach": {
			options: Options{AllowedCIDRs: prefixes("10.0.0.0/8")},
			rules:   []Rule{rule([]uint16{25}, "10.1.0.0/16")},
			wantYes: []string{"10.1.2.3:25", "10.1.2.3:443", "10.2.0.1:443"}, wantPort: []string{"10.2.0.1:25"},
		},
		"several rules": {
			rules:   []Rule{rule([]uint16{25}, "10.1.0.0/16"), rule(nil, "10.0.0.0/8")},
			wantYes: []string{"10.1.2.3:25", "10.1.2.3:443", "10.2.0.1:443"}, wantPort: []string{"10.2.0.1:25"},
		},
		"denied wins over a rule": {
			options:     Options{DeniedCIDRs: prefixes("10.1.0.0/16")},
			rules:       []Rule{rule([]uint16{443}, "10.1.2.3/32")},
			wantAddress: []string{"10.1.2.3:443", "[::ffff:10.1.2.3]:443", "[64:ff9b::a01:203]:443", "[2002:a01:203::]:443"},
		},
		"metadata, whatever allows it": {
			options:     Options{AllowedCIDRs: everything},
			rules:       []Rule{{Prefixes: everything, Ports: []uint16{80}}, {Prefixes: everything}},
			wantYes:     []string{"10.0.0.1:80", "[fd00::1]:80", "127.0.0.1:80"},
			wantAddress: withPort(metadata, 80),
		},
		"own addresses": {
			options: Options{
				AllowedCIDRs: everything,
				OwnAddresses: func() []netip.Addr { return addressesOf("127.0.0.1", "::1", "10.0.0.7", "fd00::7", "fe80::7") },
				OwnPorts:     func() []uint16 { return []uint16{8080, 9090} },
			},
			rules:   []Rule{{Prefixes: everything, Ports: []uint16{8080}}},
			wantYes: []string{"127.0.0.1:8081", "[::1]:8081", "10.0.0.8:8080", "[fd00::8]:9090"},
			wantAddress: []string{
				"10.0.0.7:8080", "10.0.0.7:12345", "[::ffff:10.0.0.7]:443", "[64:ff9b::a00:7]:443", "[fd00::7]:443", "[fe80::7%eth0]:443",
				"127.0.0.1:8080", "127.0.0.1:9090", "127.9.9.9:8080", "[::1]:9090", "[::ffff:127.0.0.1]:8080", "[64:ff9b::7f00:1]:8080",
			},
		},
		"denied at run time": {
			options: Options{
				AllowedCIDRs: everything,
				Denied: func() []netip.AddrPort {
					return []netip.AddrPort{netip.MustParseAddrPort("10.96.0.1:443"), netip.MustParseAddrPort("[fd00::1]:0"), netip.MustParseAddrPort("[::ffff:10.0.0.9]:6443")}
				},
			},
			wantYes:     []string{"10.96.0.1:8443", "10.0.0.9:443"},
			wantAddress: []string{"10.96.0.1:443", "[::ffff:10.96.0.1]:443", "[64:ff9b::a60:1]:443", "[fd00::1]:443", "[fd00::1]:8080", "10.0.0.9:6443"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.options.OwnAddresses == nil {
				tc.options.OwnAddresses = func() []netip.Addr { return nil }
			}
			g, err := newGuard(tc.options)
			if err != nil {
				t.Fatal(err)
			}
			rules, err := checkedRules(tc.rules)
			if err != nil {
				t.Fatal(err)
			}
			for want, targets := range map[error][]string{nil: tc.wantYes, errAddressNotAllowed: tc.wantAddress, errPortNotAllowed: tc.wantPort} {
				for _, target := range targets {
					if err := g.judge(netip.MustParseAddrPort(target), rules); !errors.Is(err, want) {
						t.Errorf("%s: %v, want %v", target, err, want)
					}
				}
			}
		})
	}
}

func withPort(texts []string, port uint16) []string {
	all := make([]string, 0, len(texts))
	for _, text := range texts {
		all = append(all, netip.AddrPortFrom(netip.MustParseAddr(text), port).String())
	}
	return all
}

// TestOwnAddressesAreFound sees every address of this machine but loopback refused, with everything allowed.
func TestOwnAddressesAreFound(t *testing.T) {
	t.Parallel()
	g, err := newGuard(Options{AllowedCIDRs: prefixes("0.0.0.0/0", "::/0")})
	if err != nil {
		t.Fatal(err)
	}
	known, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range known {
		own := netip.MustParsePrefix(address.String()).Addr()
		if err := g.judge(netip.AddrPortFrom(own, 8080), nil); (err == nil) != own.IsLoopback() {
			t.Errorf("%s: %v", own, err)
		}
	}
}

// TestSendByRule makes the whole way: one tenant's rule opens nothing for another one, and a connection that was made
// under a rule is not used without it.
func TestSendByRule(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer(noContent))
	port := netip.MustParseAddrPort(strings.TrimPrefix(r.url, "http://")).Port()
	var own []uint16
	c := newClient(t, func(o *Options) { o.AllowedCIDRs = nil; o.OwnPorts = func() []uint16 { return own } })
	send := func(rules ...Rule) delivery.Reason {
		return c.Send(context.Background(), newRequest(t, r.url, func(t *Target) { t.Reach = &Reach{Rules: rules} })).Reason
	}
	allowing := Rule{Prefixes: loopback}
	for i, tc := range []struct {
		rules []Rule
		want  delivery.Reason
	}{
		{want: delivery.ReasonAddressNotAllowed},
		{rules: []Rule{allowing}},
		{want: delivery.ReasonAddressNotAllowed},
		{rules: []Rule{{Prefixes: loopback, Ports: []uint16{port}}}},
		{rules: []Rule{{Prefixes: loopback, Ports: []uint16{port - 1}}}, want: delivery.ReasonPortNotAllowed},
		{rules: []Rule{{Prefixes: []netip.Prefix{{}}}}, want: delivery.ReasonRequestInvalid},
	} {
		if got := send(tc.rules...); got != tc.want {
			t.Errorf("%d: reason %q, want %q", i, got, tc.want)
		}
	}
	own = []uint16{port}
	c.Close()
	if got := send(allowing); got != delivery.ReasonAddressNotAllowed {
		t.Errorf("the dispatcher's own port: reason %q, want %s", got, delivery.ReasonAddressNotAllowed)
	}
}

// TestOwnHeadersForgeNoEvent keeps a promise of row A11.
func TestOwnHeadersForgeNoEvent(t *testing.T) {
	t.Parallel()
	wire := capture(t, func(url string) {
		newClient(t).Send(context.Background(), newRequest(t, url, func(target *Target) {
			target.Header = http.Header{"ce-id": {"1"}, "Ce-Type": {"a.b"}, "CE_SOURCE": {"x"}, "Content-Encoding": {"gzip"}}
		}))
	})
	for _, header := range []string{"ce-", "ce_", "content-encoding"} {
		if strings.Contains(strings.ToLower(wire), "\r\n"+header) {
			t.Errorf("a delivery has %s", header)
		}
	}
}
