package dispatcher

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// certificateAge is how long a certificate is served before its files are looked at again.
const certificateAge = 10 * time.Second

// certificate is a certificate in two files, which may be replaced while it is served, as Secret mounts are.
type certificate struct {
	certFile, keyFile string
	logger            logr.Logger

	mu       sync.Mutex
	loaded   *tls.Certificate
	checked  time.Time
	modified time.Time
}

// reloadedCertificate returns a TLS configuration that serves the files' newest valid certificate. It
// gives show what says when that ends.
func reloadedCertificate(certFile, keyFile string, logger logr.Logger, show func(expiry func() float64)) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, logger: logger}
	if err := c.load(); err != nil {
		return nil, err
	}
	show(c.expiry)
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}, nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) > certificateAge {
		if err := c.load(); err != nil {
			c.logger.Error(err, "Reading the new certificate failed; the old one is served")
		}
	}
	return c.loaded, nil
}

// expiry is when the certificate that is served next ends, in Unix seconds.
func (c *certificate) expiry() float64 {
	served, _ := c.get(nil)
	if served == nil || served.Leaf == nil {
		return 0
	}
	return float64(served.Leaf.NotAfter.Unix())
}

func (c *certificate) load() error {
	c.checked = time.Now()
	info, err := os.Stat(c.certFile)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	if c.loaded != nil && info.ModTime().Equal(c.modified) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	c.loaded, c.modified = &pair, info.ModTime()
	return nil
}
