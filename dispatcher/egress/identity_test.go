package egress

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

func keyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (a *authority) client(t testing.TB, name string) *Identity {
	t.Helper()
	key := newKey(t)
	chain := a.issue(t, key, func(c *x509.Certificate) {
		c.Subject.CommonName, c.ExtKeyUsage = name, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	identity, err := ParseIdentity(pemOf(chain), keyPEM(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// askingReceiver asks for client certificates, and notes whose each new connection shows.
type askingReceiver struct {
	url   string
	roots *Roots

	mu   sync.Mutex
	seen []string // by connection
	asks []string // the names that were asked for
}

func (r *askingReceiver) take() (seen, asks string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen, asks = strings.Join(r.seen, " "), strings.Join(r.asks, " ")
	r.seen, r.asks = nil, nil
	return seen, asks
}

func newAskingReceiver(t *testing.T, change func(*tls.Config)) *askingReceiver {
	t.Helper()
	root := (*authority)(nil).authority(t, asIs)
	key := newKey(t)
	leaf := root.issue(t, key, func(c *x509.Certificate) { c.DNSNames = []string{"hooks.example.com"} })
	config := &tls.Config{
		Certificates: []tls.Certificate{{PrivateKey: key, Certificate: [][]byte{leaf.Raw}}}, ClientAuth: tls.RequestClientCert,
	}
	change(config)
	asking := &askingReceiver{roots: rootsOf(t, root.certificate)}
	r := newReceiver(t, func(c net.Conn) {
		secured := tls.Server(c, config)
		if secured.HandshakeContext(context.Background()) != nil {
			return
		}
		state, name := secured.ConnectionState(), "nobody"
		if len(state.PeerCertificates) > 0 {
			name = state.PeerCertificates[0].Subject.CommonName
		}
		asking.mu.Lock()
		asking.seen, asking.asks = append(asking.seen, name), append(asking.asks, state.ServerName)
		asking.mu.Unlock()
		answer(noContent)(secured)
	})
	asking.url = strings.Replace(r.url, "http:", "https:", 1)
	return asking
}

// TestIdentitiesAreNotShared has the subscriptions of one endpoint show a certificate each: one that was made for one, of
// another tenant, before a renewal, or without, serves no other, also not by resuming its session.
func TestIdentitiesAreNotShared(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			r := newAskingReceiver(t, func(c *tls.Config) { c.MaxVersion = version })
			issuer := (*authority)(nil).authority(t, asIs)
			first, second := issuer.client(t, "first"), issuer.client(t, "second")
			c := newClient(t, func(o *Options) { o.RootCAs = x509.NewCertPool() })
			for i, step := range []struct {
				tenant   string
				identity *Identity
				want     string // whose new connection there was
			}{
				{"a", first, "first"}, {"a", first, ""}, {"a", second, "second"}, {"a", nil, "nobody"},
				{"b", first, "first"}, {"b", second, "second"}, {"a", first, ""}, {"a", nil, ""},
			} {
				request := newRequest(t, r.url, func(target *Target) { target.TLS = &TLS{Roots: r.roots, Identity: step.identity} })
				request.Tenant = step.tenant
				if result := c.Send(context.Background(), request); result.Reason != "" {
					t.Fatalf("%d: %+v", i, result)
				}
				if seen, _ := r.take(); seen != step.want {
					t.Errorf("%d: the endpoint saw %q, want %q", i, seen, step.want)
				}
			}
		})
	}
}

// TestTLSTerms keeps what spec.tls asks of an endpoint.
func TestTLSTerms(t *testing.T) {
	t.Parallel()
	issuer := (*authority)(nil).authority(t, asIs)
	ours, demand := issuer.client(t, "ours"), func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(issuer.certificate)
	}
	for name, tc := range map[string]struct {
		server           func(*tls.Config)
		least            uint16 // the dispatcher's
		asked            TLS
		want             delivery.Reason
		wantSeen, wantAs string
	}{
		"accepted":                     {server: demand, asked: TLS{Identity: ours}, wantSeen: "ours"},
		"none is shown":                {server: demand, want: delivery.ReasonTLSFailed},
		"of another authority":         {server: demand, asked: TLS{Identity: (*authority)(nil).authority(t, asIs).client(t, "theirs")}, want: delivery.ReasonTLSFailed},
		"another name":                 {server: asServer, asked: TLS{ServerName: "hooks.example.com"}, wantSeen: "nobody", wantAs: "hooks.example.com"},
		"a name that it does not have": {server: asServer, asked: TLS{ServerName: "other.example.com"}, want: delivery.ReasonCertificateWrongHost},
		"TLS 1.2 is enough":            {server: no13, wantSeen: "nobody"},
		"TLS 1.3 is asked for":         {server: no13, asked: TLS{MinVersion: tls.VersionTLS13}, want: delivery.ReasonTLSFailed},
		"by the dispatcher":            {server: no13, least: tls.VersionTLS13, asked: TLS{MinVersion: tls.VersionTLS12}, want: delivery.ReasonTLSFailed},
		"and is spoken":                {server: asServer, least: tls.VersionTLS13, asked: TLS{MinVersion: tls.VersionTLS12}, wantSeen: "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newAskingReceiver(t, tc.server)
			c := newClient(t, func(o *Options) { o.RootCAs, o.MinTLS = x509.NewCertPool(), tc.least })
			result := c.Send(context.Background(), newRequest(t, r.url, func(target *Target) { asked := tc.asked; asked.Roots = r.roots; target.TLS = &asked }))
			if result.Reason != tc.want {
				t.Fatalf("%+v, want reason %q", result, tc.want)
			}
			if seen, as := r.take(); tc.want == "" && (seen != tc.wantSeen || as != tc.wantAs) {
				t.Errorf("the endpoint saw %q as %q, want %q as %q", seen, as, tc.wantSeen, tc.wantAs)
			}
		})
	}
}

func asServer(*tls.Config) {}

func no13(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }

// TestIdentityStaysAtTheEndpoint reads documents: of the endpoint's own host and port with the certificate, of others without.
func TestIdentityStaysAtTheEndpoint(t *testing.T) {
	t.Parallel()
	r, other := newAskingReceiver(t, asServer), newAskingReceiver(t, asServer)
	c := newClient(t, func(o *Options) { o.RootCAs = x509.NewCertPool() })
	ours := (*authority)(nil).authority(t, asIs).client(t, "ours")
	for _, tc := range []struct {
		at   *askingReceiver
		want string
	}{{r, "ours"}, {other, "nobody"}} {
		request := newRequest(t, r.url, func(target *Target) { target.TLS = &TLS{Roots: tc.at.roots, Identity: ours} })
		request.Begun = time.Now()
		_, result := c.Fetch(context.Background(), Document{URL: tc.at.url + "/document", Target: request.Target, Tenant: request.Tenant, Begun: request.Begun})
		if seen, _ := tc.at.take(); seen != tc.want {
			t.Errorf("the server saw %q, want %q: %+v", seen, tc.want, result)
		}
	}
}

// TestMinTLSHoldsForKeptConnections raises the dispatcher's least version over a connection that is kept.
func TestMinTLSHoldsForKeptConnections(t *testing.T) {
	t.Parallel()
	r := newAskingReceiver(t, no13)
	c := newClient(t, func(o *Options) { o.RootCAs = x509.NewCertPool() })
	send := func() delivery.Reason {
		return c.Send(context.Background(), newRequest(t, r.url, func(target *Target) { target.TLS = &TLS{Roots: r.roots} })).Reason
	}
	if reason := send(); reason != "" {
		t.Fatal(reason)
	}
	o := c.options
	if err := c.Allow(Allowances{AllowHTTP: o.AllowHTTP, MinTLS: tls.VersionTLS13, AllowedCIDRs: o.AllowedCIDRs}); err != nil {
		t.Fatal(err)
	}
	if reason := send(); reason != delivery.ReasonTLSFailed {
		t.Errorf("reason %q, want %q: the old connection served", reason, delivery.ReasonTLSFailed)
	}
}

func TestParseIdentity(t *testing.T) {
	t.Parallel()
	key, other := newKey(t), newKey(t)
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	chain := pemOf((*authority)(nil).issue(t, key, asIs))
	oid, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}) // of elliptic.P256
	if err != nil || elliptic.P256().Params().Name != "P-256" {
		t.Fatal(err)
	}
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: oid})
	for name, tc := range map[string]struct {
		chain, key []byte
		wantErr    string
	}{
		"a pair":                {chain: chain, key: keyPEM(t, key)},
		"openssl's":             {chain: chain, key: append(parameters, keyPEM(t, key)...)},
		"RSA":                   {chain: pemOf((*authority)(nil).issue(t, weak, asIs)), key: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)})},
		"another's key":         {chain: chain, key: keyPEM(t, other), wantErr: "does not belong"},
		"of another kind":       {chain: chain, key: keyPEM(t, weak), wantErr: "does not belong"},
		"no key":                {chain: chain, key: []byte("canary"), wantErr: "no private key"},
		"no certificate":        {chain: []byte("canary"), key: keyPEM(t, key), wantErr: "no certificate"},
		"a key with a password": {chain: chain, key: pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("canary")}), wantErr: "without a password"},
		"nonsense":              {chain: chain, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("canary")}), wantErr: "cannot be parsed"},
		"key as certificate":    {chain: keyPEM(t, key), key: keyPEM(t, key), wantErr: "is no certificate"},
	} {
		identity, err := ParseIdentity(tc.chain, tc.key)
		if (err == nil) != (tc.wantErr == "") || (err != nil && !strings.Contains(err.Error(), tc.wantErr)) {
			t.Errorf("%s: %v, want an error about %q", name, err, tc.wantErr)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error shows the text: %v", name, err)
		}
		if shown := fmt.Sprintf("%v %+v %#v", identity, identity, identity); err == nil && shown != "client certificate client certificate client certificate" {
			t.Errorf("%s: it is printed as %s", name, shown)
		}
	}
}

// TestNoCertificateOverHTTP keeps that a subscription that relies on its certificate is not served without.
func TestNoCertificateOverHTTP(t *testing.T) {
	t.Parallel()
	ours := (*authority)(nil).authority(t, asIs).client(t, "ours")
	request := newRequest(t, "http://127.0.0.1:9/", func(target *Target) { target.TLS = &TLS{Identity: ours} })
	if err := request.Target.Check(); err == nil || !strings.Contains(err.Error(), "http") {
		t.Errorf("got %v", err)
	}
}

// TestTokensAreOfOneIdentity keeps that subscriptions of a tenant that show different certificates share no token, which may
// be bound to one (RFC 8705, section 3).
func TestTokensAreOfOneIdentity(t *testing.T) {
	t.Parallel()
	issuer := (*authority)(nil).authority(t, asIs)
	first, second := issuer.client(t, "first"), issuer.client(t, "second")
	key := func(asked *TLS) tokenKey {
		return keyOf("a", &preparedTarget{tls: asked, tokens: &ClientCredentials{TokenURL: "https://example.com/token"}})
	}
	switch of := key(&TLS{Identity: first}); {
	case of != key(&TLS{Identity: first}):
		t.Error("the same certificate has two tokens")
	case of == key(&TLS{Identity: second}), of == key(nil), of == key(&TLS{Identity: first, ServerName: "hooks.example.com"}):
		t.Error("a token serves another certificate, or name")
	}
}
