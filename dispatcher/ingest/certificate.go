package ingest

import (
	"crypto/x509"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
)

const (
	// systemPrefix begins the names that Kubernetes keeps for itself.
	systemPrefix = "system:"
	// authenticatedGroup is the group of everyone whom Kubernetes knows.
	authenticatedGroup = "system:authenticated"
)

// CertificateUser returns the user that a client certificate stands for, nil if roots do not trust it at a time. As for
// kube-apiserver, the common name is the user, and the organizations are the groups. Names of Kubernetes' own, such as
// system:masters, are refused: these roots need not be the cluster's. chain begins with the client's certificate.
func CertificateUser(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) *authenticationv1.UserInfo {
	if len(chain) == 0 || roots == nil {
		return nil
	}
	between := x509.NewCertPool()
	for _, certificate := range chain[1:] {
		between.AddCert(certificate)
	}
	leaf := chain[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	name, groups := leaf.Subject.CommonName, leaf.Subject.Organization
	isSystem := func(name string) bool { return strings.HasPrefix(name, systemPrefix) }
	if err != nil || name == "" || isSystem(name) || slices.ContainsFunc(groups, isSystem) {
		return nil
	}
	return &authenticationv1.UserInfo{Username: name, Groups: append(slices.Clone(groups), authenticatedGroup)}
}
