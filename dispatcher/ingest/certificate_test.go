package ingest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// clientCertificate is one by an authority, which signs itself if by is nil.
func clientCertificate(t *testing.T, wanted, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by, byKey = wanted, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, wanted, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

func authority(t *testing.T) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	return clientCertificate(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hospital"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
}

func TestCertificateUser(t *testing.T) {
	t.Parallel()
	ca, caKey := authority(t)
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for name, test := range map[string]struct {
		subject  pkix.Name
		usage    x509.ExtKeyUsage
		ends     time.Duration
		stranger bool
		wantUser string
		want     []string
	}{
		"a producer":        {subject: pkix.Name{CommonName: "ehr"}, wantUser: "ehr", want: []string{"system:authenticated"}},
		"with groups":       {subject: pkix.Name{CommonName: "ehr", Organization: []string{"producers", "ward-3"}}, wantUser: "ehr", want: []string{"ward-3", "producers", "system:authenticated"}},
		"without a name":    {subject: pkix.Name{Organization: []string{"producers"}}},
		"a system name":     {subject: pkix.Name{CommonName: "system:serviceaccount:clinic-a:ehr"}},
		"the masters":       {subject: pkix.Name{CommonName: "ehr", Organization: []string{"producers", "system:masters"}}},
		"a server's":        {subject: pkix.Name{CommonName: "ehr"}, usage: x509.ExtKeyUsageServerAuth},
		"expired":           {subject: pkix.Name{CommonName: "ehr"}, ends: -time.Minute},
		"another authority": {subject: pkix.Name{CommonName: "ehr"}, stranger: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			usage, ends, by, byKey := test.usage, test.ends, ca, caKey
			if usage == 0 {
				usage = x509.ExtKeyUsageClientAuth
			}
			if ends == 0 {
				ends = time.Hour
			}
			if test.stranger {
				by, byKey = authority(t)
			}
			leaf, _ := clientCertificate(t, &x509.Certificate{
				SerialNumber: big.NewInt(2), Subject: test.subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(ends),
				ExtKeyUsage: []x509.ExtKeyUsage{usage},
			}, by, byKey)
			got := CertificateUser([]*x509.Certificate{leaf}, roots, time.Now())
			if test.wantUser == "" {
				if got != nil {
					t.Errorf("it stands for %+v", got)
				}
				return
			}
			if got == nil || got.Username != test.wantUser || !slices.Equal(got.Groups, test.want) {
				t.Errorf("it stands for %+v", got)
			}
		})
	}
	if CertificateUser(nil, roots, time.Now()) != nil {
		t.Error("no certificate stands for a user")
	}
}

// TestCertificateInPlaceOfToken: RBAC decides about a certificate's user as about a token's, and a token counts first.
func TestCertificateInPlaceOfToken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		user          *authenticationv1.UserInfo
		authorization []string
		wantUser      string
		wantError     bool
	}{
		"a certificate":            {user: &authenticationv1.UserInfo{Username: "ehr"}, wantUser: "ehr"},
		"one that is granted none": {user: &authenticationv1.UserInfo{Username: "stranger"}, wantUser: "stranger", wantError: true},
		"none":                     {wantError: true},
		"a good token beside":      {user: &authenticationv1.UserInfo{Username: "stranger"}, authorization: []string{"Bearer good-ehr"}, wantUser: "ehr"},
		"a bad token beside":       {user: &authenticationv1.UserInfo{Username: "ehr"}, authorization: []string{"Bearer bad"}, wantError: true},
		"two tokens beside":        {user: &authenticationv1.UserInfo{Username: "ehr"}, authorization: []string{"Bearer a", "Bearer b"}, wantError: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &Handler{identifier: &userTable{}}
			h.options.Authorizer = h.identifier
			h.options.CertificateUser = func(*http.Request) *authenticationv1.UserInfo { return test.user }
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://d/v1/namespaces/clinic-a/events", nil)
			r.TLS = &tls.ConnectionState{}
			r.Header["Authorization"] = test.authorization
			if test.authorization == nil {
				r.Header.Del("Authorization")
			}
			user, err := h.authorize(r, call{operation: opPublish, namespace: "clinic-a"})
			if user != test.wantUser || (err != nil) != test.wantError {
				t.Errorf("user %q, %v", user, err)
			}
		})
	}
}

// userTable knows the user ehr, who may do all.
type userTable struct{}

func (u *userTable) Authorize(ctx context.Context, authorization, source string, access Access) error {
	_, err := u.Identify(ctx, authorization, source, access)
	return err
}

func (u *userTable) Identify(ctx context.Context, authorization, _ string, access Access) (*authenticationv1.UserInfo, error) {
	if authorization != "Bearer good-ehr" {
		return nil, ErrUnauthenticated
	}
	user := &authenticationv1.UserInfo{Username: "ehr"}
	return user, u.AuthorizeUser(ctx, user, access)
}

func (*userTable) AuthorizeUser(_ context.Context, user *authenticationv1.UserInfo, access Access) error {
	if user.Username != "ehr" {
		return &ForbiddenError{User: user.Username, Access: access}
	}
	return nil
}
