package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	// skew is how far the clocks of those who verify may be behind.
	skew = 5 * time.Minute

	certificateBlock, keyBlock = "CERTIFICATE", "PRIVATE KEY"
)

// Pair is a certificate and its key, in PEM.
type Pair struct{ Certificate, Key []byte }

// issue makes a pair for hosts, and the certificate of the authority that signed it, which signs nothing else.
func issue(hosts []string, now, end time.Time) (pair Pair, authority []byte, err error) {
	signer, caKey, err := newAuthority(now, end)
	if err != nil {
		return Pair{}, nil, fmt.Errorf("make an authority: %w", err)
	}
	pair, err = newLeaf(hosts, now, end, signer, caKey)
	if err != nil {
		return Pair{}, nil, fmt.Errorf("make a certificate: %w", err)
	}
	return pair, encode(certificateBlock, signer.Raw), nil
}

// newAuthority makes a certificate that can sign leaves alone, and its key.
func newAuthority(now, end time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	wanted := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprintf("eventflow %x", serial)}, // a name of its own: a client finds it by that
		NotBefore: now.Add(-skew), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	certificate, err := sign(wanted, wanted, key, key)
	return certificate, key, err
}

func newLeaf(hosts []string, now, end time.Time, signer *x509.Certificate, caKey *ecdsa.PrivateKey) (Pair, error) {
	if len(hosts) == 0 {
		return Pair{}, errors.New("no host")
	}
	serial, err := newSerial()
	if err != nil {
		return Pair{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	leaf, err := sign(&x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "eventflow"}, DNSNames: hosts,
		NotBefore: now.Add(-skew), NotAfter: end, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, signer, key, caKey)
	if err != nil {
		return Pair{}, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Certificate: encode(certificateBlock, leaf.Raw), Key: encode(keyBlock, encoded)}, nil
}

func sign(wanted, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	raw, err := x509.CreateCertificate(rand.Reader, wanted, by, &key.PublicKey, byKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(raw)
}

// newSerial returns 127 random bits: RFC 5280, 4.1.2.2, wants a positive number of at most 20 octets.
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func encode(kind string, raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
}

// valid returns the certificate of a pair that a server for hosts can serve now, to clients that trust a bundle.
func (p Pair) valid(hosts []string, bundle []byte, now time.Time) (*x509.Certificate, error) {
	both, err := tls.X509KeyPair(p.Certificate, p.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	for _, host := range hosts {
		if _, err := both.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: now}); err != nil {
			return nil, err
		}
	}
	return both.Leaf, nil
}
