package postgrestest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Certificate is a server's, with its key.
type Certificate struct {
	certificate, key []byte // PEM
}

// Authority signs certificates of servers.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority that nobody trusts yet.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template()
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &Authority{certificate, key}, err
}

// PEM is the authority's own certificate, for those who trust it.
func (a *Authority) PEM() []byte { return encode("CERTIFICATE", a.certificate.Raw) }

// Issue makes a certificate of a server with the given host names, which is valid until a given time.
func (a *Authority) Issue(until time.Time, hosts ...string) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template()
	template.NotAfter, template.DNSNames = until, hosts
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	return &Certificate{encode("CERTIFICATE", der), encode("PRIVATE KEY", private)}, err
}

func template() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "postgrestest"},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writeCertificate writes the server's certificate beside its data, and the settings that name it.
func (s *Server) writeCertificate(settings map[string]string) error {
	c := s.options.Certificate
	if c == nil {
		return nil
	}
	settings["ssl"], settings["ssl_cert_file"], settings["ssl_key_file"] = "on", "'server.crt'", "'server.key'"
	for name, content := range map[string][]byte{"server.crt": c.certificate, "server.key": c.key} {
		file := filepath.Join(s.data(), name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return err
		}
		if s.account != nil {
			if err := os.Chown(file, int(s.account.Uid), int(s.account.Gid)); err != nil {
				return errors.Join(err, os.Remove(file))
			}
		}
	}
	return nil
}
