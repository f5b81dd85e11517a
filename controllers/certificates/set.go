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

// Schedule is how long certificates live, and how their successors come.
type Schedule struct {
	// Life is how long a certificate is valid from its making on, and so is its authority.
	Life time.Duration
	// Renewal is the age at which a certificate gets a successor.
	Renewal time.Duration
	// Overlap is how long a successor's authority is in the bundle before the successor is served: within it, each client has
	// to read the bundle once.
	Overlap time.Duration
}

// The schedules of clients that read the bundle again by themselves, and of those that may read it when they start alone.
var (
	Brief = Schedule{Life: 90 * day, Renewal: 60 * day, Overlap: time.Hour}
	Long  = Schedule{Life: 365 * day, Renewal: 150 * day, Overlap: 120 * day}
)

const day = 24 * time.Hour

// Renew returns the Set to keep at a time for a server of hosts, and when to ask again. A Set that is to stay as it is comes back
// equal. What cannot be used, for its form, its hosts or its age, is made anew at once.
func (p Schedule) Renew(s Set, hosts []string, now time.Time) (renewed Set, again time.Time, err error) {
	s.Bundle = unexpired(s.Bundle, now)
	serving, servingErr := s.Serving.valid(hosts, s.Bundle, now)
	next, nextErr := s.Next.valid(hosts, s.Bundle, now)
	if nextErr != nil {
		s.Next = Pair{}
	}
	switch {
	case servingErr != nil && nextErr == nil, nextErr == nil && !now.Before(p.servedAt(next)):
		s.Serving, s.Next = s.Next, Pair{}
		return s, p.dueAt(next), nil
	case servingErr != nil:
		if s.Serving, err = s.issue(hosts, now, now.Add(p.Life)); err != nil {
			return Set{}, time.Time{}, err
		}
		return s, now.Add(p.Renewal), nil
	case nextErr == nil:
		return s, p.servedAt(next), nil
	case now.Before(p.dueAt(serving)):
		return s, p.dueAt(serving), nil
	}
	if s.Next, err = s.issue(hosts, now, now.Add(p.Life)); err != nil {
		return Set{}, time.Time{}, err
	}
	return s, now.Add(p.Overlap), nil
}

// dueAt is when a certificate gets a successor.
func (p Schedule) dueAt(c *x509.Certificate) time.Time { return madeAt(c).Add(p.Renewal) }

// servedAt is when a successor takes its place.
func (p Schedule) servedAt(c *x509.Certificate) time.Time { return madeAt(c).Add(p.Overlap) }

func madeAt(c *x509.Certificate) time.Time { return c.NotBefore.Add(skew) }

// issue makes a pair whose authority joins the bundle.
func (s *Set) issue(hosts []string, now, end time.Time) (Pair, error) {
	pair, authority, err := issue(hosts, now, end)
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
