package routing

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

const clientCertificateField = "spec.tls.clientCertificateSecretRef"

// maxPrivateKeyBytes bounds a client certificate's key: one of RSA with 16384 bits has 13 KiB.
const maxPrivateKeyBytes = 16 << 10

// TLS is what a subscription asks of TLS beside its authorities, as it is written down. It is never logged.
type TLS struct {
	ServerName string `json:"serverName,omitempty"`
	MinVersion uint16 `json:"minVersion,omitzero"`
	// Chain and Key are the client certificate and its private key, in PEM; both are empty without one.
	Chain string `json:"chain,omitempty"`
	Key   string `json:"key,omitempty"`
}

func checkTLSTerms(spec v1alpha1.SubscriptionTLS) error {
	if ref := spec.ClientCertificateSecretRef; ref.Name != "" {
		if err := checkReference(clientCertificateField, v1alpha1.SecretKeyReference{Name: ref.Name, Key: corev1.TLSCertKey}); err != nil {
			return err
		}
	}
	if spec.ServerName != "" && len(validation.IsDNS1123Subdomain(spec.ServerName)) > 0 {
		return reject(v1alpha1.ReasonInvalidSpec, "spec.tls.serverName: want a DNS name, such as hooks.example.com")
	}
	if spec.MinVersion != "" && spec.MinVersion.Number() == 0 {
		return reject(v1alpha1.ReasonInvalidSpec, "spec.tls.minVersion: must be %s or %s", v1alpha1.TLS12, v1alpha1.TLS13)
	}
	return nil
}

// compileTLS takes up what is asked of TLS. The URL is known.
func (c *compiler) compileTLS() error {
	spec := c.spec.TLS
	asked := &TLS{ServerName: spec.ServerName, MinVersion: spec.MinVersion.Number()}
	if ref := spec.ClientCertificateSecretRef; ref.Name != "" {
		if strings.HasPrefix(strings.ToLower(c.entry.URL), "http:") {
			return reject(v1alpha1.ReasonClientCertificateInvalid, "%s: the endpoint's URL is http, which shows no certificate: use https, or remove it", clientCertificateField)
		}
		chain, err := c.resolve(clientCertificateField, v1alpha1.SecretKeyReference{Name: ref.Name, Key: corev1.TLSCertKey})
		if err != nil {
			return err
		}
		key, err := c.resolve(clientCertificateField, v1alpha1.SecretKeyReference{Name: ref.Name, Key: corev1.TLSPrivateKeyKey})
		if err != nil {
			return err
		}
		if err := checkIdentity(chain, key); err != nil {
			return reject(v1alpha1.ReasonClientCertificateInvalid, "Secret %q is no client certificate: %v; correct the Secret, or %s", ref.Name, err, clientCertificateField)
		}
		asked.Chain, asked.Key = blocks(chain), blocks(key)
	}
	if *asked != (TLS{}) {
		c.entry.TLS = asked
	}
	return nil
}

// checkIdentity reports what keeps two texts from being a certificate and its private key, without showing them.
func checkIdentity(chain, key []byte) error {
	if err := checkCertificates(chain); err != nil {
		return fmt.Errorf("%s: %w", corev1.TLSCertKey, err)
	}
	if len(key) > maxPrivateKeyBytes {
		return fmt.Errorf("%s: it has more than %d bytes", corev1.TLSPrivateKeyKey, maxPrivateKeyBytes)
	}
	if _, err := egress.ParseIdentity(chain, key); err != nil {
		return fmt.Errorf("%s: %w", corev1.TLSPrivateKeyKey, err)
	}
	return nil
}

// blocks returns the blocks of a text of PEM alone: what stands between them may be anything.
func blocks(text []byte) string {
	var kept bytes.Buffer
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		block.Headers = nil
		_ = pem.Encode(&kept, block) // a buffer fails never
	}
	return kept.String()
}

// asked is what the entry asks of TLS as egress has it. It fails if no Compile could have made the entry.
func (e *Entry) asked() (*egress.TLS, error) {
	t := e.TLS
	roots, err := rootsOf(e.CA)
	if err != nil || (roots == nil && t == nil) {
		return nil, err
	}
	asked := &egress.TLS{Roots: roots}
	if t == nil {
		return asked, nil
	}
	asked.ServerName, asked.MinVersion = t.ServerName, t.MinVersion
	if t.Chain == "" && t.Key == "" {
		return asked, nil
	}
	if asked.Identity, err = egress.ParseIdentity([]byte(t.Chain), []byte(t.Key)); err != nil {
		return nil, fmt.Errorf("parse the client certificate: %w", err)
	}
	return asked, nil
}

// cost is what t takes of a table; see Entry.Cost.
func (t *TLS) cost() int {
	if t == nil {
		return 0
	}
	return itemCost + len(t.ServerName) + len(t.Chain) + len(t.Key)
}

// ClientCertificateEnd is when the entry's client certificate ends; false if it has none.
func (e *Entry) ClientCertificateEnd() (time.Time, bool) {
	asked, err := e.asked()
	if err != nil || asked == nil || asked.Identity == nil {
		return time.Time{}, false
	}
	return asked.Identity.NotAfter(), true
}
