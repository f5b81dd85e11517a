package routing

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"k8s.io/utils/lru"

	"github.com/clinikapi/eventflow/api/spelling"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// maxCABytes bounds the certificates that a subscription brings along.
const maxCABytes = 64 << 10

// checkCertificates reports what keeps a text from being certificates in PEM (RFC 7468), without showing it.
func checkCertificates(text []byte) error {
	if len(text) > maxCABytes {
		return fmt.Errorf("the certificates are more than %d bytes: keep those of the authority alone", maxCABytes)
	}
	n, begun := 0, bytes.Count(text, []byte(pemBegin))
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
	odd := spelling.Odd(bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r"), nil), []byte("\n"), nil))
	if odd != "" {
		odd = "; the text has " + odd
	}
	switch {
	case n == 0:
		return fmt.Errorf("it holds no certificate: want PEM, which begins with %s in a line of its own%s", pemBegin, odd)
	case n < begun:
		return fmt.Errorf("%d of its %d certificates cannot be read: put each %s at the beginning of a line, with nothing before it%s", begun-n, begun, pemBegin, odd)
	}
	return nil
}

// pemBegin begins a certificate, in a line of its own: what stands in another is no certificate to crypto/x509 either, which
// would leave it out without a word.
const pemBegin = "-----BEGIN CERTIFICATE-----"

// parsedRoots keeps the newest authorities that were parsed: those of many subscriptions are the same.
var parsedRoots = lru.New(maxParsedRoots)

const maxParsedRoots = 256

// rootsOf returns the authorities in a text of PEM; nil if it is empty.
func rootsOf(text string) (*egress.Roots, error) {
	if text == "" {
		return nil, nil
	}
	if known, ok := parsedRoots.Get(text); ok {
		return known.(*egress.Roots), nil
	}
	roots, err := egress.ParseRoots([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("parse the certificate authorities: %w", err)
	}
	parsedRoots.Add(text, roots)
	return roots, nil
}
