package egress

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue returns a certificate, of its own key if a is nil.
func (a *authority) issue(t testing.TB, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "127.0.0.1"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(template)
	parent, signer := template, key
	if a != nil {
		parent, signer = a.certificate, a.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func (a *authority) authority(t testing.TB, change func(*x509.Certificate)) *authority {
	t.Helper()
	key := newKey(t)
	return &authority{key: key, certificate: a.issue(t, key, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.Subject.CommonName, c.IPAddresses = true, x509.KeyUsageCertSign, c.SerialNumber.String(), nil
		c.ExtKeyUsage = nil
		change(c)
	})}
}

func pemOf(all ...*x509.Certificate) []byte {
	var text bytes.Buffer
	for _, certificate := range all {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
	}
	return text.Bytes()
}

func rootsOf(t testing.TB, all ...*x509.Certificate) *Roots {
	t.Helper()
	roots, err := ParseRoots(pemOf(all...))
	if err != nil {
		t.Fatal(err)
	}
	return roots
}

func asIs(*x509.Certificate) {}

// TestCertificates keeps the promise of row B12: a private authority can be trusted, and each cause has its reason.
func TestCertificates(t *testing.T) {
	t.Parallel()
	root := (*authority)(nil).authority(t, asIs)
	middle := root.authority(t, asIs)
	old := root.authority(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	key := newKey(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		chain []*x509.Certificate
		key   crypto.Signer
		roots *Roots
		want  delivery.Reason
	}{
		"a private authority": {chain: []*x509.Certificate{root.issue(t, key, asIs)}, roots: rootsOf(t, root.certificate)},
		"a whole chain":       {chain: []*x509.Certificate{middle.issue(t, key, asIs), middle.certificate}, roots: rootsOf(t, root.certificate)},
		"not trusted":         {chain: []*x509.Certificate{root.issue(t, key, asIs)}, want: delivery.ReasonCertificateUntrusted},
		"another authority":   {chain: []*x509.Certificate{root.issue(t, key, asIs)}, roots: rootsOf(t, old.certificate), want: delivery.ReasonCertificateUntrusted},
		"self-signed":         {chain: []*x509.Certificate{(*authority)(nil).issue(t, key, asIs)}, roots: rootsOf(t, root.certificate), want: delivery.ReasonCertificateUntrusted},
		"incomplete chain":    {chain: []*x509.Certificate{middle.issue(t, key, asIs)}, roots: rootsOf(t, root.certificate), want: delivery.ReasonCertificateUntrusted},
		"expired": {
			chain: []*x509.Certificate{root.issue(t, key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })},
			roots: rootsOf(t, root.certificate), want: delivery.ReasonCertificateExpired,
		},
		"expired above": {
			chain: []*x509.Certificate{old.issue(t, key, asIs), old.certificate},
			roots: rootsOf(t, root.certificate), want: delivery.ReasonCertificateExpired,
		},
		"not yet valid": {
			chain: []*x509.Certificate{root.issue(t, key, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })},
			roots: rootsOf(t, root.certificate), want: delivery.ReasonCertificateNotYetValid,
		},
		"wrong host": {
			chain: []*x509.Certificate{root.issue(t, key, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} })},
			roots: rootsOf(t, root.certificate), want: delivery.ReasonCertificateWrongHost,
		},
		"no name but the common one": {
			chain: []*x509.Certificate{root.issue(t, key, func(c *x509.Certificate) { c.IPAddresses = nil })},
			roots: rootsOf(t, root.certificate), want: delivery.ReasonCertificateWrongHost,
		},
		"RSA-1024": {
			chain: []*x509.Certificate{root.issue(t, weak, asIs)}, key: weak,
			roots: rootsOf(t, root.certificate), want: delivery.ReasonCertificateWeak,
		},
		"for clients": {
			chain: []*x509.Certificate{root.issue(t, key, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })},
			roots: rootsOf(t, root.certificate), want: delivery.ReasonCertificateInvalid,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.key == nil {
				tc.key = key
			}
			served := tls.Certificate{PrivateKey: tc.key}
			for _, certificate := range tc.chain {
				served.Certificate = append(served.Certificate, certificate.Raw)
			}
			r := newReceiver(t, func(c net.Conn) {
				secured := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{served}})
				if secured.HandshakeContext(context.Background()) == nil {
					answer(noContent)(secured)
				}
			})
			c := newClient(t, func(o *Options) { o.RootCAs = x509.NewCertPool() })
			url := strings.Replace(r.url, "http:", "https:", 1)
			for range 2 {
				result := c.Send(context.Background(), newRequest(t, url, func(target *Target) { target.TLS = &TLS{Roots: tc.roots} }))
				if result.Reason != tc.want {
					t.Errorf("%+v, want reason %q", result, tc.want)
				}
				c.Close()
			}
		})
	}
}

// TestTrustIsNotShared has two subscriptions of a tenant at one endpoint, of which one trusts its authority.
func TestTrustIsNotShared(t *testing.T) {
	t.Parallel()
	root := (*authority)(nil).authority(t, asIs)
	key := newKey(t)
	served := tls.Certificate{PrivateKey: key, Certificate: [][]byte{root.issue(t, key, asIs).Raw}}
	config := &tls.Config{Certificates: []tls.Certificate{served}}
	r := newReceiver(t, func(c net.Conn) {
		secured := tls.Server(c, config)
		if secured.HandshakeContext(context.Background()) == nil {
			answer(noContent)(secured)
		}
	})
	c := newClient(t, func(o *Options) { o.RootCAs = x509.NewCertPool() })
	url := strings.Replace(r.url, "http:", "https:", 1)
	trusted := rootsOf(t, root.certificate)
	for i, tc := range []struct {
		roots *Roots
		want  delivery.Reason
	}{{trusted, ""}, {nil, delivery.ReasonCertificateUntrusted}, {trusted, ""}, {rootsOf(t, (*authority)(nil).authority(t, asIs).certificate), delivery.ReasonCertificateUntrusted}} {
		if result := c.Send(context.Background(), newRequest(t, url, func(target *Target) { target.TLS = &TLS{Roots: tc.roots} })); result.Reason != tc.want {
			t.Errorf("%d: %+v, want reason %q", i, result, tc.want)
		}
	}
}

func TestParseRoots(t *testing.T) {
	t.Parallel()
	good := string(pemOf((*authority)(nil).authority(t, asIs).certificate))
	for name, tc := range map[string]struct{ text, wantErr string }{
		"one":             {text: good},
		"two, with notes": {text: "# ours\n" + good + "# theirs\n" + good},
		"none":            {text: "canary", wantErr: "no certificate"},
		"empty":           {wantErr: "no certificate"},
		"a key":           {text: good + "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n", wantErr: "block 2 is no certificate"},
		"nonsense":        {text: "-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n", wantErr: "block 1"},
	} {
		_, err := ParseRoots([]byte(tc.text))
		if (err == nil) != (tc.wantErr == "") || (err != nil && !strings.Contains(err.Error(), tc.wantErr)) {
			t.Errorf("%s: %v, want an error about %q", name, err, tc.wantErr)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error shows the text: %v", name, err)
		}
	}
}
