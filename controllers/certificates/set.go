package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
)

// The keys of a Secret that keeps a Set. The first two are those of a Secret of type kubernetes.io/tls.
const (
	CertificateKey = "tls.crt"
	PrivateKeyKey  = "tls.key"
	BundleKey      = "ca.crt"

	nextCertificateKey, nextPrivateKeyKey = "next.crt", "next.key"
)

// Set is a certificate, the one to come, and what clients trust. The zero value has none.
type Set struct {
	// Serving is served.
	Serving Pair
	// Next is served once every client has had time to trust it; empty if none is due.
	Next Pair
	// Bundle is what clients trust: authorities in PEM, the newest first.
	Bundle []byte
}

// FromData returns the Set that the data of a Secret holds.
func FromData(data map[string][]byte) Set {
	return Set{
		Serving: Pair{Certificate: data[CertificateKey], Key: data[PrivateKeyKey]},
		Next:    Pair{Certificate: data[nextCertificateKey], Key: data[nextPrivateKeyKey]},
		Bundle:  data[BundleKey],
	}
}

// Data is what a Secret keeps of the Set.
func (s Set) Data() map[string][]byte {
	data := map[string][]byte{CertificateKey: s.Serving.Certificate, PrivateKeyKey: s.Serving.Key, BundleKey: s.Bundle}
	if len(s.Next.Certificate) > 0 {
		data[nextCertificateKey], data[nextPrivateKeyKey] = s.Next.Certificate, s.Next.Key
	}
	return data
}

// Equal reports whether both are the same.
func (s Set) Equal(other Set) bool {
	return s.Serving.equal(other.Serving) && s.Next.equal(other.Next) && bytes.Equal(s.Bundle, other.Bundle)
}

func (p Pair) equal(other Pair) bool {
	return bytes.Equal(p.Certificate, other.Certificate) && bytes.Equal(p.Key, other.Key)
}

// Renew returns the Set to keep at a time for a server of hosts, and when to ask again. A Set that is to stay as it is comes back
// equal. What cannot be used, for its form, its hosts or its age, is made anew at once.
func Renew(s Set, hosts []string, now time.Time) (renewed Set, again time.Time, err error) {
	s.Bundle = unexpired(s.Bundle, now)
	serving, servingErr := s.Serving.valid(hosts, s.Bundle, now)
	next, nextErr := s.Next.valid(hosts, s.Bundle, now)
	if nextErr != nil {
		s.Next = Pair{}
	}
	switch {
	case servingErr != nil && nextErr == nil, nextErr == nil && !now.Before(servedAt(next)):
		s.Serving, s.Next = s.Next, Pair{}
		return s, dueAt(next), nil
	case servingErr != nil:
		if s.Serving, err = s.issue(hosts, now); err != nil {
			return Set{}, time.Time{}, err
		}
		return s, now.Add(lifeBeforeRenewal), nil
	case nextErr == nil:
		return s, servedAt(next), nil
	case now.Before(dueAt(serving)):
		return s, dueAt(serving), nil
	}
	if s.Next, err = s.issue(hosts, now); err != nil {
		return Set{}, time.Time{}, err
	}
	return s, now.Add(Overlap), nil
}

// lifeBeforeRenewal is the part of its life after which a certificate gets a successor.
const lifeBeforeRenewal = Life * 2 / 3

// dueAt is when a certificate gets a successor.
func dueAt(c *x509.Certificate) time.Time { return madeAt(c).Add(lifeBeforeRenewal) }

// servedAt is when a successor takes its place.
func servedAt(c *x509.Certificate) time.Time { return madeAt(c).Add(Overlap) }

func madeAt(c *x509.Certificate) time.Time { return c.NotBefore.Add(skew) }

// issue makes a pair whose authority joins the bundle.
func (s *Set) issue(hosts []string, now time.Time) (Pair, error) {
	pair, authority, err := issue(hosts, now)
	if err != nil {
		return Pair{}, fmt.Errorf("issue a certificate for %s: %w", hosts[:min(1, len(hosts))], err)
	}
	s.Bundle = append(authority, s.Bundle...)
	return pair, nil
}

// unexpired are the authorities of a bundle that clients can still verify by; of what is none, nothing stays.
func unexpired(bundle []byte, now time.Time) (kept []byte) {
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !c.IsCA || !now.Before(c.NotAfter) {
			continue
		}
		kept = append(kept, encode(certificateBlock, c.Raw)...)
	}
	return kept
}
