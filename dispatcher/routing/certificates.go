package routing

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// maxCABytes bounds the certificates that a subscription brings along.
const maxCABytes = 64 << 10

// checkCertificates reports what keeps a text from being certificates in PEM (RFC 7468), without showing it.
func checkCertificates(text []byte) error {
	if len(text) > maxCABytes {
		return fmt.Errorf("the certificates are more than %d bytes: keep those of the authority alone", maxCABytes)
	}
	n := 0
	for block, rest := pem.Decode(text); ; block, rest = pem.Decode(rest) {
		if block == nil {
			if len(bytes.TrimSpace(rest)) > 0 && bytes.Contains(rest, []byte("-----BEGIN")) {
				return fmt.Errorf("what stands behind certificate %d is not PEM", n)
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("it holds a %q: want certificates alone, and above all no private key", block.Type)
		}
		n++
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d cannot be parsed", n)
		}
	}
	if n == 0 {
		return errors.New("it holds no certificate: want PEM, which begins with -----BEGIN CERTIFICATE-----")
	}
	return nil
}
