package dispatcher

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/clinikapi/eventflow/dispatcher/ingest"
)

// clientCA are the authorities of producers' certificates, in a file that may be replaced while it is in use. While it is
// missing or holds no certificate, none is trusted: whoever took an authority out must not be outlived by it.
type clientCA struct {
	file   string
	logger logr.Logger

	mu       sync.Mutex
	roots    *x509.CertPool
	checked  time.Time
	modified time.Time
}

// user returns who a request's client certificate says that asks, nil if there is none that is trusted.
func (c *clientCA) user(r *http.Request) *authenticationv1.UserInfo {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil
	}
	return ingest.CertificateUser(r.TLS.PeerCertificates, c.trusted(), time.Now())
}

// trusted are the authorities of now.
func (c *clientCA) trusted() *x509.CertPool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roots == nil || time.Since(c.checked) > certificateAge {
		c.checked = time.Now()
		if err := c.load(); err != nil {
			c.logger.Error(err, "The authorities of client certificates cannot be read; no client certificate is taken")
			c.roots, c.modified = x509.NewCertPool(), time.Time{}
		}
	}
	return c.roots
}

func (c *clientCA) load() error {
	info, err := os.Stat(c.file)
	if err != nil {
		return fmt.Errorf("read --ingest-client-ca-file: %w", err)
	}
	if c.roots != nil && info.ModTime().Equal(c.modified) {
		return nil
	}
	text, err := os.ReadFile(c.file)
	if err != nil {
		return fmt.Errorf("read --ingest-client-ca-file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("read --ingest-client-ca-file: %s holds no certificate in PEM", c.file)
	}
	c.roots, c.modified = roots, info.ModTime()
	return nil
}
