package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// connectProxy is a proxy that takes CONNECT, and leads to one receiver, whatever it is asked for.
type connectProxy struct {
	address  string
	roots    *Roots // of its certificate; nil without TLS
	receiver string
	answer   string // in place of 200
	user     string // that it asks for, with its password
	header   string // of its 200
	stays    bool   // connected after answer

	mu     sync.Mutex
	asked  []string
	served sync.WaitGroup
}

func newConnectProxy(t *testing.T, secured bool, receiver string, change ...func(*connectProxy)) *connectProxy {
	t.Helper()
	p := &connectProxy{receiver: receiver}
	for _, f := range change {
		f(p)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = listener.Addr().String()
	if secured {
		root := (*authority)(nil).authority(t, asIs)
		key := newKey(t)
		leaf := root.issue(t, key, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
		p.roots = rootsOf(t, root.certificate)
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{{PrivateKey: key, Certificate: [][]byte{leaf.Raw}}}, MinVersion: tls.VersionTLS12})
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.served.Go(func() { p.serve(ctx, conn) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		p.served.Wait()
	})
	return p
}

func (p *connectProxy) serve(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	reader := bufio.NewReader(conn)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, request.Method+" "+request.Host)
	p.mu.Unlock()
	answer := p.answer
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.user)); p.user != "" && request.Header.Get("Proxy-Authorization") != want {
		answer = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
	}
	if answer != "" {
		_, _ = io.WriteString(conn, answer)
		if p.stays {
			<-ctx.Done()
		}
		return
	}
	onward, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.receiver)
	if err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer func() { _ = onward.Close() }()
	stopOnward := context.AfterFunc(ctx, func() { _ = onward.Close() })
	defer stopOnward()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n"+p.header+"\r\n")
	p.served.Go(func() {
		_, _ = io.Copy(conn, onward)
		_ = conn.Close()
	})
	_, _ = io.Copy(onward, reader)
}

func (p *connectProxy) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := strings.Join(p.asked, ", ")
	p.asked = nil
	return asked
}

// by returns a client that goes through the proxy, and finds these addresses for every name.
func (p *connectProxy) by(t *testing.T, change func(*Proxy), found ...string) *Client {
	t.Helper()
	proxy := &Proxy{Address: p.address, TLS: p.roots != nil, Secrets: func() ProxySecrets { return ProxySecrets{Roots: p.roots} }}
	change(proxy)
	c := newClient(t, func(o *Options) { o.Proxy, o.AllowedCIDRs = proxy, nil })
	c.dialer.lookup = func(context.Context, string) ([]netip.Addr, error) { return slices.Clone(addresses(found...)), nil }
	c.dialer.dial = func(context.Context, netip.AddrPort, []Rule) (net.Conn, error) {
		t.Error("it was dialled past the proxy")
		return nil, io.EOF
	}
	return c
}

// TestProxyIsAskedForWhatTheGuardAllows makes the whole way, by a proxy with TLS and one without: with the address that was judged, or
// the host, and a connection that is kept for its tenant alone.
func TestProxyIsAskedForWhatTheGuardAllows(t *testing.T) {
	t.Parallel()
	for name, secured := range map[string]bool{"a plain proxy": false, "a proxy with TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newAskingReceiver(t, func(*tls.Config) {})
			p := newConnectProxy(t, secured, strings.TrimPrefix(r.url, "https://"))
			for i, step := range []struct {
				byHost bool
				found  []string
				want   delivery.Reason
				asked  string
			}{
				{false, []string{"203.0.113.9"}, delivery.ReasonAddressNotAllowed, ""}, // documentation's
				{false, []string{"8.8.8.8"}, "", "CONNECT 8.8.8.8:443"},
				{false, []string{"2606:4700::1"}, "", "CONNECT [2606:4700::1]:443"},
				{false, []string{"10.0.0.1", "8.8.8.8"}, "", "CONNECT 8.8.8.8:443"},
				{true, []string{"8.8.8.8", "8.8.4.4"}, "", "CONNECT hooks.example.com:443"},
				{true, []string{"8.8.8.8", "10.0.0.1"}, delivery.ReasonAddressNotAllowed, ""}, // the proxy might take the other
				{true, []string{"169.254.169.254"}, delivery.ReasonAddressNotAllowed, ""},
			} {
				c := p.by(t, func(p *Proxy) { p.ByHost = step.byHost }, step.found...)
				request := newRequest(t, "https://hooks.example.com/in", func(target *Target) { target.TLS = &TLS{Roots: r.roots} })
				result := c.Send(context.Background(), request)
				if asked := p.take(); result.Reason != step.want || asked != step.asked {
					t.Errorf("%d: reason %q, the proxy was asked %q; want %q, %q", i, result.Reason, asked, step.want, step.asked)
				}
				if _, name := r.take(); step.want == "" && name != "hooks.example.com" {
					t.Errorf("%d: the certificate was asked for %q", i, name)
				}
			}
		})
	}
}

// TestProxiedConnectionsAreKept: one is used again by its tenant, for as long as its address is allowed, and by no other.
func TestProxiedConnectionsAreKept(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer(noContent))
	p := newConnectProxy(t, false, strings.TrimPrefix(r.url, "http://"))
	c := p.by(t, func(*Proxy) {}, "8.8.8.8")
	send := func(tenant string) {
		t.Helper()
		request := newRequest(t, "http://hooks.example.com/in")
		request.Tenant = tenant
		if result := c.Send(context.Background(), request); result.Reason != "" {
			t.Fatalf("%+v", result)
		}
	}
	for _, tenant := range []string{"a", "a", "b", "b"} {
		send(tenant)
	}
	if asked := p.take(); asked != "CONNECT 8.8.8.8:80, CONNECT 8.8.8.8:80" {
		t.Errorf("the proxy was asked %q, want one connection for each tenant", asked)
	}
	if err := c.Allow(Allowances{AllowHTTP: true, DeniedCIDRs: prefixes("8.8.8.0/24")}); err != nil {
		t.Fatal(err)
	}
	if got := c.Send(context.Background(), newRequest(t, "http://hooks.example.com/in")).Reason; got != delivery.ReasonAddressNotAllowed || p.take() != "" {
		t.Errorf("after it was denied: reason %q", got)
	}
}

func TestProxyFails(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer(noContent))
	receiver := strings.TrimPrefix(r.url, "http://")
	says := func(answer string) func(*connectProxy) { return func(p *connectProxy) { p.answer = answer } }
	asks := func(p *connectProxy) { p.user = "eventflow:s3cret" }
	for name, test := range map[string]struct {
		proxy  func(*connectProxy)
		secret ProxySecrets
		tls    bool
		want   delivery.Reason
	}{
		"forbidden":             {proxy: says("HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nc4n4r"), want: delivery.ReasonProxyRefused},
		"a redirect":            {proxy: says("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n"), want: delivery.ReasonProxyRefused},
		"no HTTP":               {proxy: says("SSH-2.0-OpenSSH_9.9\r\n"), want: delivery.ReasonProxyRefused},
		"an endless header":     {proxy: says("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxProxyHeader) + "\r\n\r\n"), want: delivery.ReasonProxyRefused},
		"more than was asked":   {proxy: says("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"), want: delivery.ReasonProxyRefused},
		"no credentials":        {proxy: asks, want: delivery.ReasonProxyRefused},
		"wrong credentials":     {proxy: asks, secret: ProxySecrets{User: "eventflow", Password: "guess"}, want: delivery.ReasonProxyRefused},
		"credentials":           {proxy: asks, secret: ProxySecrets{User: "eventflow", Password: "s3cret"}},
		"no TLS where it is":    {proxy: says(""), tls: true, want: delivery.ReasonProxyUnreachable},
		"nobody knows the host": {proxy: func(p *connectProxy) { p.receiver = "127.0.0.1:1" }, want: delivery.ReasonProxyRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newConnectProxy(t, false, receiver, test.proxy)
			c := p.by(t, func(p *Proxy) {
				p.TLS, p.Secrets = test.tls, func() ProxySecrets { return test.secret }
			}, "8.8.8.8")
			if got := c.Send(context.Background(), newRequest(t, "http://hooks.example.com/in")).Reason; got != test.want {
				t.Errorf("reason %q, want %q", got, test.want)
			}
		})
	}
	t.Run("nobody answers", func(t *testing.T) {
		t.Parallel()
		p := &connectProxy{address: "127.0.0.1:1"}
		if got := p.by(t, func(*Proxy) {}, "8.8.8.8").Send(context.Background(), newRequest(t, "http://hooks.example.com/in")).Reason; got != delivery.ReasonProxyUnreachable {
			t.Errorf("reason %q", got)
		}
	})
	t.Run("an untrusted certificate", func(t *testing.T) {
		t.Parallel()
		p := newConnectProxy(t, true, receiver)
		c := p.by(t, func(p *Proxy) { p.Secrets = nil }, "8.8.8.8")
		if got := c.Send(context.Background(), newRequest(t, "http://hooks.example.com/in")).Reason; got != delivery.ReasonProxyUnreachable || p.take() != "" {
			t.Errorf("reason %q", got)
		}
	})
}

// TestSilentProxyEndsInTime: an attempt takes no longer than it may, also where the proxy says nothing.
func TestSilentProxyEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer func() { _, _ = ours.Close(), theirs.Close() }()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		if err := proxyFailure(ctx, delivery.ReasonProxyRefused, ask(ctx, ours, "8.8.8.8:443", ProxySecrets{})); dialReason(err) != delivery.ReasonTimeout || time.Since(began) != 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestServicesAreDialledPastTheProxy: what is fixed is inside, where the proxy does not lead.
func TestServicesAreDialledPastTheProxy(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer(noContent))
	p := newConnectProxy(t, false, strings.TrimPrefix(r.url, "http://"))
	c := p.by(t, func(*Proxy) {})
	s := &service{at: strings.TrimPrefix(r.url, "http://")}
	s.of(c)
	request := newRequest(t, "http://receiver.clinic-a.svc:8080/", func(target *Target) { target.Reach = &Reach{Fixed: addresses("10.96.0.10")} })
	result := c.Send(context.Background(), request)
	if dialed, _ := s.take(); result.Reason != "" || dialed != "10.96.0.10:8080" || p.take() != "" {
		t.Errorf("%+v, dialled %q", result, dialed)
	}
}

// TestTokensGoThroughTheProxy: no request leaves another way.
func TestTokensGoThroughTheProxy(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, answer("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 45\r\n\r\n{\"access_token\":\"abc\",\"token_type\":\"bearer\"} "))
	p := newConnectProxy(t, false, strings.TrimPrefix(r.url, "http://"))
	c := p.by(t, func(*Proxy) {}, "8.8.8.8")
	request := newRequest(t, "http://hooks.example.com/in", func(target *Target) {
		target.Authorization = &Authorization{ClientCredentials: &ClientCredentials{TokenURL: "http://token.example.com:8080/", ClientID: "a", ClientSecret: "b"}}
	})
	if result := c.Send(context.Background(), request); result.Reason != "" {
		t.Fatalf("%+v", result)
	}
	if _, result := c.Fetch(context.Background(), Document{URL: "http://api.example.com:9090/", Target: request.Target, Begun: time.Now()}); result.Reason != "" {
		t.Fatalf("%+v", result)
	}
	if asked := p.take(); asked != "CONNECT 8.8.8.8:8080, CONNECT 8.8.8.8:80, CONNECT 8.8.8.8:9090" {
		t.Errorf("the proxy was asked %q", asked)
	}
}

func TestProxyCheck(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{"proxy.example.com:3128": true, "[::1]:3128": true, "proxy.example.com": false, ":3128": false, "user@proxy:3128": false, "proxy:": false, "http://proxy:3128": false} {
		if _, err := New(Options{Proxy: &Proxy{Address: address}}); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// TestProxyAnswersHaveNoBody: what an answer says of a body is ignored (RFC 9110, section 9.3.6), and waited for by nobody.
func TestProxyAnswersHaveNoBody(t *testing.T) {
	t.Parallel()
	receiver := strings.TrimPrefix(newReceiver(t, answer(noContent)).url, "http://")
	for name, test := range map[string]struct {
		header, answer string
		want           delivery.Reason
	}{
		"a length":             {header: "Content-Length: 5\r\n"},
		"chunks":               {header: "Transfer-Encoding: chunked\r\n"},
		"refused, with length": {answer: "HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n", want: delivery.ReasonProxyRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newConnectProxy(t, false, receiver, func(p *connectProxy) { p.header, p.answer, p.stays = test.header, test.answer, true })
			c := p.by(t, func(*Proxy) {}, "8.8.8.8")
			if got := c.Send(context.Background(), newRequest(t, "http://hooks.example.com/in")).Reason; got != test.want {
				t.Errorf("reason %q, want %q", got, test.want)
			}
		})
	}
}

// TestProxyByHostJudgesEveryAddress: of a name that the proxy looks up anew, every address is judged, however many there are.
func TestProxyByHostJudgesEveryAddress(t *testing.T) {
	t.Parallel()
	p := newConnectProxy(t, false, strings.TrimPrefix(newReceiver(t, answer(noContent)).url, "http://"))
	var found []string
	for i := range maxAddresses {
		found = append(found, netip.AddrFrom4([4]byte{8, 8, 8, byte(i + 1)}).String())
	}
	for last, want := range map[string]delivery.Reason{"8.8.9.9": "", "10.0.0.1": delivery.ReasonAddressNotAllowed} {
		c := p.by(t, func(p *Proxy) { p.ByHost = true }, append(slices.Clone(found), last)...)
		got := c.Send(context.Background(), newRequest(t, "http://hooks.example.com/in")).Reason
		if asked := p.take(); got != want || (asked == "") != (want != "") {
			t.Errorf("%s: reason %q, asked for %q; want %q", last, got, asked, want)
		}
	}
}

// TestNoZoneReachesAProxy: what stands in a zone would stand in the request line.
func TestNoZoneReachesAProxy(t *testing.T) {
	t.Parallel()
	p := newConnectProxy(t, false, "127.0.0.1:1")
	for _, byHost := range []bool{false, true} {
		c := p.by(t, func(p *Proxy) { p.ByHost = byHost }, "8.8.8.8")
		got := c.Send(context.Background(), newRequest(t, "https://[2606:4700::1%25x%20y]/")).Reason
		if asked := p.take(); got != delivery.ReasonRequestInvalid || asked != "" {
			t.Errorf("reason %q, asked for %q", got, asked)
		}
	}
}
