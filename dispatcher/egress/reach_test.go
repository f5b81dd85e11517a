package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// service is what a client finds of a cluster: cluster IPs that lead to a receiver, and a DNS that nobody should ask.
type service struct {
	at string // the receiver
	// dead are addresses that nobody answers at.
	dead map[netip.Addr]bool

	mu     sync.Mutex
	dialed []string
	asked  []string // of DNS
}

// placed is a connection from another address than the one that it has here.
type placed struct {
	*net.TCPConn
	remote netip.AddrPort
}

func (p placed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(p.remote) }

// of has the client find the service. The guard judges as it does where there is a network.
func (s *service) of(c *Client) {
	c.dialer.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked = append(s.asked, host)
		return []netip.Addr{netip.MustParseAddr("10.96.0.99")}, nil
	}
	c.dialer.dial = func(ctx context.Context, address netip.AddrPort, rules []Rule) (net.Conn, error) {
		if err := c.dialer.guard.Load().judge(address, rules); err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.dialed = append(s.dialed, address.String())
		s.mu.Unlock()
		if s.dead[address.Addr()] {
			return nil, errors.New("no route")
		}
		made, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.at)
		if err != nil {
			return nil, err
		}
		return placed{made.(*net.TCPConn), address}, nil
	}
}

func (s *service) take() (dialed, asked string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dialed, asked = strings.Join(s.dialed, " "), strings.Join(s.asked, " ")
	s.dialed, s.asked = nil, nil
	return dialed, asked
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// TestFixedAddressesAloneAreDialled: no name is looked up, the certificate names the URL's host, and a connection to an address
// of before, or of another tenant, is not used.
func TestFixedAddressesAloneAreDialled(t *testing.T) {
	t.Parallel()
	r := newAskingReceiver(t, func(*tls.Config) {})
	c := newClient(t, func(o *Options) { o.AllowedCIDRs = nil })
	s := &service{at: strings.TrimPrefix(r.url, "https://"), dead: map[netip.Addr]bool{netip.MustParseAddr("fd00:96::10"): true}}
	s.of(c)
	for i, step := range []struct {
		tenant string
		fixed  []netip.Addr
		port   string
		want   string // what was dialled
	}{
		{"a", addresses("10.96.0.10"), "8443", "10.96.0.10:8443"},
		{"a", addresses("10.96.0.10"), "8443", ""},
		{"b", addresses("10.96.0.10"), "8443", "10.96.0.10:8443"},
		{"a", addresses("10.96.0.11"), "8443", "10.96.0.11:8443"},
		{"a", addresses("10.96.0.11"), "22", "10.96.0.11:22"}, // the Service names the port
		{"a", addresses("fd00:96::10", "10.96.0.12"), "8443", "[fd00:96::10]:8443 10.96.0.12:8443"},
	} {
		request := newRequest(t, "https://hooks.example.com:"+step.port+"/in", func(target *Target) {
			target.TLS, target.Reach = &TLS{Roots: r.roots}, &Reach{Fixed: step.fixed}
		})
		request.Tenant = step.tenant
		if result := c.Send(context.Background(), request); result.Reason != "" {
			t.Fatalf("%d: %+v", i, result)
		}
		dialed, asked := s.take()
		if dialed != step.want || asked != "" {
			t.Errorf("%d: dialled %q, want %q; DNS was asked for %q", i, dialed, step.want, asked)
		}
		if _, name := r.take(); step.want != "" && name != "hooks.example.com" {
			t.Errorf("%d: the name that was asked for is %q", i, name)
		}
	}
}

// TestFixedAddressesOpenNothingElse: a document at the same host and port comes from there, any other is looked up, and guarded as
// if there were no fixed address.
func TestFixedAddressesOpenNothingElse(t *testing.T) {
	t.Parallel()
	r := newAskingReceiver(t, func(*tls.Config) {})
	c := newClient(t, func(o *Options) { o.AllowedCIDRs = nil })
	s := &service{at: strings.TrimPrefix(r.url, "https://")}
	s.of(c)
	target := newRequest(t, "https://hooks.example.com:8443/in", func(target *Target) {
		target.TLS, target.Reach = &TLS{Roots: r.roots}, &Reach{Fixed: addresses("10.96.0.99")}
	}).Target
	for address, want := range map[string]struct {
		reason        delivery.Reason
		dialed, asked string
	}{
		"hooks.example.com:8443": {"", "10.96.0.99:8443", ""},
		"hooks.example.com:9443": {delivery.ReasonAddressNotAllowed, "", "hooks.example.com"},
		"10.96.0.99:8443":        {delivery.ReasonAddressNotAllowed, "", ""},
	} {
		_, result := c.Fetch(context.Background(), Document{URL: "https://" + address + "/document", Target: target, Tenant: "a", Begun: time.Now()})
		dialed, asked := s.take()
		if result.Reason != want.reason || dialed != want.dialed || asked != want.asked {
			t.Errorf("%s: reason %q, dialled %q, asked %q; want %+v", address, result.Reason, dialed, asked, want)
		}
	}
}

// TestFixedAddressesAreGuarded: what is denied whatever allows it is denied here, too.
func TestFixedAddressesAreGuarded(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(o *Options) {
		o.AllowedCIDRs, o.DeniedCIDRs = prefixes("0.0.0.0/0", "::/0"), prefixes("10.96.1.0/24")
		o.OwnAddresses = func() []netip.Addr { return addresses("10.1.0.7") }
		o.Denied = func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("10.96.0.1:0")} }
	})
	s := &service{}
	s.of(c)
	for fixed, want := range map[string]delivery.Reason{
		"169.254.169.254":        delivery.ReasonAddressNotAllowed, // metadata
		"fd00:ec2::254":          delivery.ReasonAddressNotAllowed,
		"::ffff:169.254.169.254": delivery.ReasonAddressNotAllowed,
		"0.0.0.0":                delivery.ReasonAddressNotAllowed,
		"10.1.0.7":               delivery.ReasonAddressNotAllowed, // the dispatcher's own
		"10.96.0.1":              delivery.ReasonAddressNotAllowed, // the API server
		"10.96.1.10":             delivery.ReasonAddressNotAllowed, // the operator's
		"127.0.0.1":              delivery.ReasonRequestInvalid,
		"::1":                    delivery.ReasonRequestInvalid,
		"::ffff:127.0.0.1":       delivery.ReasonRequestInvalid,
		"64:ff9b::7f00:1":        delivery.ReasonRequestInvalid,
		"2002:7f00:1::":          delivery.ReasonRequestInvalid,
	} {
		request := newRequest(t, "https://hooks.example.com:8443/in", func(target *Target) { target.Reach = &Reach{Fixed: addresses(fixed)} })
		if got := c.Send(context.Background(), request).Reason; got != want {
			t.Errorf("%s: reason %q, want %q", fixed, got, want)
		}
	}
	if dialed, asked := s.take(); dialed != "" || asked != "" {
		t.Errorf("dialled %q, asked %q", dialed, asked)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		hosts   Hosts
		yes, no []string
	}{
		"exact":     {Hosts{"hooks.example.com"}, []string{"hooks.example.com", "HOOKS.example.com", "hooks.example.com."}, []string{"example.com", "a.hooks.example.com", "hooks.example.com.evil.example", ""}},
		"below":     {Hosts{"*.example.com"}, []string{"a.example.com", "a.b.Example.com."}, []string{"example.com", ".example.com", "evilexample.com", "example.com.evil.example", "a.example.co"}},
		"either":    {Hosts{"example.com", "*.example.com"}, []string{"example.com", "a.example.com"}, []string{"example.org"}},
		"addresses": {Hosts{"192.0.2.1", "*.0.2.2"}, []string{"192.0.2.1"}, []string{"192.0.2.2", "192.0.2.11"}},
		"none":      {nil, nil, []string{"example.com", ""}},
	} {
		for _, host := range test.yes {
			if !test.hosts.Have(host) {
				t.Errorf("%s: %q is refused", name, host)
			}
		}
		for _, host := range test.no {
			if test.hosts.Have(host) {
				t.Errorf("%s: %q is taken", name, host)
			}
		}
	}
}

// TestHostsBindEverything: deliveries, documents and tokens go to hosts of every list alone. Nothing else is looked up. A rule opens
// its ranges for its own hosts.
func TestHostsBindEverything(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer(noContent))
	for name, test := range map[string]struct {
		reach    Reach
		url      string
		document string // in place of a delivery
		want     delivery.Reason
		asked    string
	}{
		"one of the list":        {Reach{Within: []Hosts{{"*.example.com"}}}, "http://hooks.example.com:8080/", "", delivery.ReasonAddressNotAllowed, "hooks.example.com"},
		"none of the list":       {Reach{Within: []Hosts{{"*.example.com"}}}, "http://hooks.example.org:8080/", "", delivery.ReasonHostNotAllowed, ""},
		"of one list, not two":   {Reach{Within: []Hosts{{"*.example.com"}, {"a.example.com"}}}, "http://hooks.example.com:8080/", "", delivery.ReasonHostNotAllowed, ""},
		"an empty list":          {Reach{Within: []Hosts{nil}}, "http://hooks.example.com:8080/", "", delivery.ReasonHostNotAllowed, ""},
		"a document elsewhere":   {Reach{Within: []Hosts{{"*.example.com"}}}, "http://hooks.example.com:8080/", "http://evil.example.org/", delivery.ReasonHostNotAllowed, ""},
		"a document of the list": {Reach{Within: []Hosts{{"*.example.com"}}}, "http://hooks.example.com:8080/", "http://api.example.com:8080/", delivery.ReasonAddressNotAllowed, "api.example.com"},
		"a rule for the host":    {Reach{Rules: []Rule{{Hosts: Hosts{"hooks.example.com"}, Prefixes: prefixes("10.96.0.0/16")}}}, "http://hooks.example.com:8080/", "", "", "hooks.example.com"},
		"a rule for another":     {Reach{Rules: []Rule{{Hosts: Hosts{"api.example.com"}, Prefixes: prefixes("10.96.0.0/16")}}}, "http://hooks.example.com:8080/", "", delivery.ReasonAddressNotAllowed, "hooks.example.com"},
		"a rule for the document": {
			Reach{Rules: []Rule{{Hosts: Hosts{"api.example.com"}, Prefixes: prefixes("10.96.0.0/16")}}}, "http://hooks.example.com:8080/", "http://api.example.com:8080/", "", "api.example.com",
		},
		"a Service needs no host": {Reach{Fixed: addresses("10.96.0.10"), Within: []Hosts{nil}}, "http://receiver.clinic-a.svc:8080/", "", "", ""},
		"its document elsewhere":  {Reach{Fixed: addresses("10.96.0.10"), Within: []Hosts{nil}}, "http://receiver.clinic-a.svc:8080/", "http://receiver.clinic-a.svc:9090/", delivery.ReasonHostNotAllowed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, func(o *Options) { o.AllowedCIDRs = nil })
			s := &service{at: strings.TrimPrefix(r.url, "http://")}
			s.of(c)
			request := newRequest(t, test.url, func(target *Target) { target.Reach = &test.reach })
			var result Result
			if test.document == "" {
				result = c.Send(context.Background(), request)
			} else {
				_, result = c.Fetch(context.Background(), Document{URL: test.document, Target: request.Target, Begun: time.Now()})
			}
			if _, asked := s.take(); result.Reason != test.want || asked != test.asked {
				t.Errorf("reason %q, asked %q; want %q, %q", result.Reason, asked, test.want, test.asked)
			}
		})
	}
}

// TestTokensComeFromTheirHosts: a token endpoint is bound as the endpoint is.
func TestTokensComeFromTheirHosts(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(o *Options) { o.AllowedCIDRs = nil })
	s := &service{}
	s.of(c)
	request := newRequest(t, "http://hooks.example.com:8080/", func(target *Target) {
		target.Reach = &Reach{Within: []Hosts{{"hooks.example.com"}}}
		target.Authorization = &Authorization{ClientCredentials: &ClientCredentials{TokenURL: "http://evil.example.org/token", ClientID: "a", ClientSecret: "b"}}
	})
	result := c.Send(context.Background(), request)
	if dialed, asked := s.take(); result.Reason != delivery.ReasonAuthFailed || dialed != "" || asked != "" {
		t.Errorf("reason %q, dialled %q, asked %q", result.Reason, dialed, asked)
	}
}
