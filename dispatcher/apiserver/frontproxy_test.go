package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// issue returns a certificate of the given name, by an authority of its own, and the authority as PEM.
func issue(t *testing.T, name string, usage x509.ExtKeyUsage) (leaf *x509.Certificate, authority string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(template, parent *x509.Certificate) *x509.Certificate {
		template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if parent == nil {
			parent = template
		}
		raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	root := sign(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	leaf = sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{usage}}, root)
	return leaf, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))
}

// TestFrontProxy: headers count only with the front proxy's certificate.
func TestFrontProxy(t *testing.T) {
	t.Parallel()
	proxy, authority := issue(t, "front-proxy-client", x509.ExtKeyUsageClientAuth)
	forged, _ := issue(t, "front-proxy-client", x509.ExtKeyUsageClientAuth)
	data := map[string]string{
		"requestheader-client-ca-file": authority, "requestheader-allowed-names": `["front-proxy-client"]`,
		"requestheader-username-headers": `["X-Remote-User"]`, "requestheader-group-headers": `["X-Remote-Group"]`,
		"requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
	}
	parsed, err := ParseFrontProxy(data)
	if err != nil {
		t.Fatal(err)
	}
	otherName := *parsed
	otherName.Names = []string{"somebody"}
	ada := http.Header{"X-Remote-User": {"ada"}, "X-Remote-Group": {"nurses", "doctors"}, "X-Remote-Extra-Example.com%2fscope": {"a", "b"}}
	want := &authenticationv1.UserInfo{
		Username: "ada", Groups: []string{"nurses", "doctors"}, Extra: map[string]authenticationv1.ExtraValue{"example.com/scope": {"a", "b"}},
	}
	for name, tc := range map[string]struct {
		proxy  *FrontProxy
		with   []*x509.Certificate
		header http.Header
		want   *authenticationv1.UserInfo
	}{
		"the front proxy":      {parsed, []*x509.Certificate{proxy}, ada, want},
		"no certificate":       {parsed, nil, ada, nil},
		"another authority's":  {parsed, []*x509.Certificate{forged}, ada, nil},
		"a name not allowed":   {&otherName, []*x509.Certificate{proxy}, ada, nil},
		"nobody":               {parsed, []*x509.Certificate{proxy}, http.Header{"X-Remote-Group": {"nurses"}}, nil},
		"nothing was read yet": {&FrontProxy{}, []*x509.Certificate{proxy}, ada, nil},
		"an empty user's name": {parsed, []*x509.Certificate{proxy}, http.Header{"X-Remote-User": {""}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
			r.TLS, r.Header = &tls.ConnectionState{PeerCertificates: tc.with}, tc.header
			if got := tc.proxy.Authenticate(r); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
	for _, key := range []string{"requestheader-client-ca-file", "requestheader-username-headers"} {
		broken := map[string]string{key: ""}
		for other, value := range data {
			if other != key {
				broken[other] = value
			}
		}
		if _, err := ParseFrontProxy(broken); err == nil {
			t.Errorf("without %s: it is taken", key)
		}
	}
}
