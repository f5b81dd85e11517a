package egress

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"
)

// Identity is the certificate that deliveries show to an endpoint, and its private key. It is immutable, may be shared by
// many targets, and never prints its key.
type Identity struct {
	certificate *tls.Certificate
	sum         [sha256.Size]byte // of what it was parsed from
}

// ParseIdentity parses a certificate chain, the own certificate first, and its private key, both in PEM (RFC 7468). It fails
// if one of them is missing or cannot be parsed, or if they do not belong together. The error shows nothing of either.
func ParseIdentity(chain, key []byte) (*Identity, error) {
	if _, err := ParseRoots(chain); err != nil {
		return nil, err
	}
	private, err := parsePrivateKey(key)
	if err != nil {
		return nil, err
	}
	certificate := &tls.Certificate{PrivateKey: private}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		certificate.Certificate = append(certificate.Certificate, block.Bytes)
	}
	if certificate.Leaf, err = x509.ParseCertificate(certificate.Certificate[0]); err != nil {
		return nil, errors.New("the first certificate cannot be parsed")
	}
	public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(certificate.Leaf.PublicKey) {
		return nil, errors.New("the private key does not belong to the first certificate")
	}
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%d %s%s", len(chain), chain, key) // a hash fails never
	return &Identity{certificate: certificate, sum: [sha256.Size]byte(sum.Sum(nil))}, nil
}

// parsePrivateKey parses the only private key of a text of PEM: PKCS #8, PKCS #1 or SEC 1, without a password. What openssl
// writes beside one, its parameters, is passed over.
func parsePrivateKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, errors.New("the private key cannot be parsed, or has a password")
		}
		return signer, nil
	}
	return nil, errors.New("there is no private key in PEM form without a password")
}

// NotAfter is when the own certificate ends.
func (i *Identity) NotAfter() time.Time { return i.certificate.Leaf.NotAfter }

// String keeps the key out of logs.
func (i *Identity) String() string { return "client certificate" }

// GoString keeps the key out of %#v.
func (i *Identity) GoString() string { return "client certificate" }

// TLS is what a Target asks of TLS. Nil and the zero value ask for nothing beyond what the dispatcher does.
type TLS struct {
	// Roots are trusted in place of the dispatcher's; nil means the dispatcher's.
	Roots *Roots
	// Identity is shown to the endpoint, if it asks for a certificate; nil for none.
	Identity *Identity
	// ServerName is what the endpoint's certificate must name, and what is sent as the name that is asked for (RFC 6066,
	// section 3); "" for the host of the URL.
	ServerName string
	// MinVersion is the least version, such as tls.VersionTLS13; 0 for the dispatcher's.
	MinVersion uint16
}

// elsewhere is what holds at another address than the endpoint's, such as that of a token or a document: no other server
// gets to know the identity, and none has the endpoint's name.
func (t *TLS) elsewhere() *TLS {
	if t == nil {
		return nil
	}
	return &TLS{Roots: t.Roots, MinVersion: t.MinVersion}
}

// apply sets the config for a connection to the host.
func (t *TLS) apply(config *tls.Config, host string, least uint16) {
	config.MinVersion, config.ServerName = max(tls.VersionTLS12, least), host
	if t == nil {
		return
	}
	config.MinVersion = max(config.MinVersion, t.MinVersion)
	if t.Roots != nil {
		config.RootCAs = t.Roots.pool
	}
	if t.ServerName != "" {
		config.ServerName = t.ServerName
	}
	if t.Identity != nil {
		// Certificates would leave it out if the server names another authority, such as the root of a chain.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.Identity.certificate, nil
		}
	}
}

// writeTo writes what tells connections apart.
func (t *TLS) writeTo(w io.Writer) {
	var roots, identity [sha256.Size]byte
	if t.Roots != nil {
		roots = t.Roots.sum
	}
	if t.Identity != nil {
		identity = t.Identity.sum
	}
	_, _ = fmt.Fprintf(w, "%x %x %x %q", roots, identity, t.MinVersion, t.ServerName)
}
