package egress

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Roots are certificate authorities to trust. They are immutable, and may be shared by many targets.
type Roots struct {
	pool *x509.CertPool
	sum  [sha256.Size]byte // of what they were parsed from
}

// ParseRoots parses PEM blocks of type CERTIFICATE (RFC 7468, section 5). Other blocks, such as private keys, are an
// error, and so is a text without a certificate; the error shows nothing of the text.
func ParseRoots(text []byte) (*Roots, error) {
	roots := &Roots{pool: x509.NewCertPool(), sum: sha256.Sum256(text)}
	n := 0
	for rest := text; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %d is no certificate", n+1)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse the certificate in PEM block %d: %w", n+1, err)
		}
		roots.pool.AddCert(certificate)
	}
	if n == 0 {
		return nil, errors.New("there is no certificate in PEM form")
	}
	return roots, nil
}

// sessions are the TLS sessions (RFC 8446, section 2.2) of one pool key. A session that began with other roots, or for
// another tenant, is never resumed: it would skip the check of the certificate, and let the endpoint link the two.
type sessions struct {
	all    tls.ClientSessionCache
	prefix string
}

func (s sessions) Get(key string) (*tls.ClientSessionState, bool) { return s.all.Get(s.prefix + key) }

func (s sessions) Put(key string, state *tls.ClientSessionState) { s.all.Put(s.prefix+key, state) }

// minRSABits is the least size of an RSA key (CA/Browser Forum Baseline Requirements, section 6.1.5).
const minRSABits = 2048

var errWeak = errors.New("a key of the certificate chain is too weak")

// strong refuses chains with a weak key in each of them, which package tls accepts.
func strong(state tls.ConnectionState) error {
	for _, chain := range state.VerifiedChains {
		if !hasWeakKey(chain) {
			return nil
		}
	}
	return errWeak
}

func hasWeakKey(chain []*x509.Certificate) bool {
	for _, certificate := range chain {
		if key, ok := certificate.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < minRSABits {
			return true
		}
	}
	return false
}

// hasWeakSignature reports whether one of the certificates that an endpoint sent is signed in a way that is not accepted.
func hasWeakSignature(chain []*x509.Certificate) bool {
	for _, certificate := range chain {
		switch certificate.SignatureAlgorithm {
		case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
			return true
		default:
		}
	}
	return false
}
