package apiserver

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// FrontProxy is how kube-apiserver says who asks, as the ConfigMap extension-apiserver-authentication has it.
type FrontProxy struct {
	// Roots are the authorities that issue its client certificate.
	Roots *x509.CertPool
	// Names are the common names that the certificate may have; any, if there are none.
	Names []string
	// The headers that carry the user, its groups, and the prefix of those with more about it.
	UserHeaders, GroupHeaders, ExtraPrefixes []string
}

// ParseFrontProxy reads the data of the ConfigMap extension-apiserver-authentication in kube-system.
func ParseFrontProxy(data map[string]string) (*FrontProxy, error) {
	p := &FrontProxy{Roots: x509.NewCertPool()}
	if !p.Roots.AppendCertsFromPEM([]byte(data["requestheader-client-ca-file"])) {
		return nil, errors.New("requestheader-client-ca-file has no certificate: this kube-apiserver aggregates nothing")
	}
	for key, into := range map[string]*[]string{
		"requestheader-allowed-names": &p.Names, "requestheader-username-headers": &p.UserHeaders,
		"requestheader-group-headers": &p.GroupHeaders, "requestheader-extra-headers-prefix": &p.ExtraPrefixes,
	} {
		if text := data[key]; text != "" {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				return nil, fmt.Errorf("read %s: %w", key, err)
			}
		}
	}
	if len(p.UserHeaders) == 0 {
		return nil, errors.New("requestheader-username-headers is empty")
	}
	return p, nil
}

// Authenticate returns who asks, nil unless the request came with the front proxy's certificate and names a user. TLS has to
// ask for a certificate, and need not verify it.
func (p *FrontProxy) Authenticate(r *http.Request) *authenticationv1.UserInfo {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || p.Roots == nil {
		return nil
	}
	leaf := r.TLS.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, certificate := range r.TLS.PeerCertificates[1:] {
		between.AddCert(certificate)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: p.Roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil || len(p.Names) > 0 && !slices.Contains(p.Names, leaf.Subject.CommonName) {
		return nil
	}
	user := &authenticationv1.UserInfo{}
	for _, name := range p.UserHeaders {
		if values := r.Header.Values(name); len(values) > 0 && user.Username == "" {
			user.Username = values[0]
		}
	}
	if user.Username == "" {
		return nil
	}
	for _, name := range p.GroupHeaders {
		user.Groups = append(user.Groups, r.Header.Values(name)...)
	}
	for _, prefix := range p.ExtraPrefixes {
		for name, values := range r.Header {
			if len(name) <= len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
				continue
			}
			key, err := url.PathUnescape(strings.ToLower(name[len(prefix):]))
			if err != nil {
				continue
			}
			if user.Extra == nil {
				user.Extra = map[string]authenticationv1.ExtraValue{}
			}
			user.Extra[key] = append(user.Extra[key], values...)
		}
	}
	return user
}
