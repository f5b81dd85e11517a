package deliveries

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
)

// checkFrontProxy: the dispatcher believes headers from kube-apiserver alone, and asks for itself whether a user may.
func (c *cluster) checkFrontProxy() {
	c.Helper()
	known := c.client(c.proxyCA, "front-proxy-client")
	other := c.client(c.proxyCA, "somebody-else")
	foreignCA, err := newAuthority(c.dir, "foreign-ca")
	if err != nil {
		c.Fatal(err)
	}
	foreign := c.client(foreignCA, "front-proxy-client")
	const viewer, admin = "system:serviceaccount:clinic-a:viewer", "system:masters"
	for name, test := range map[string]struct {
		client      *http.Client
		user, group string
		path        string
		want        int
	}{
		"front proxy, admin":      {known, "root", admin, "clinic-b/webhookdeliveries", http.StatusOK},
		"front proxy, viewer":     {known, viewer, "", "clinic-a/webhookdeliveries", http.StatusOK},
		"front proxy, not of b":   {known, viewer, "", "clinic-b/webhookdeliveries", http.StatusForbidden},
		"front proxy, no payload": {known, viewer, "", "clinic-a/webhookevents/evt-failed/payload", http.StatusForbidden},
		"front proxy, nobody":     {known, "", admin, "clinic-a/webhookdeliveries", http.StatusUnauthorized},
		"no certificate":          {c.client(nil, ""), "root", admin, "clinic-a/webhookdeliveries", http.StatusUnauthorized},
		"another name":            {other, "root", admin, "clinic-a/webhookdeliveries", http.StatusUnauthorized},
		"another authority":       {foreign, "root", admin, "clinic-a/webhookdeliveries", http.StatusUnauthorized},
	} {
		r, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "https://"+c.address+apiPath+test.path, http.NoBody)
		if err != nil {
			c.Fatal(err)
		}
		r.Header.Set("X-Remote-User", test.user)
		r.Header.Set("X-Remote-Group", test.group)
		response, err := test.client.Do(r)
		if err != nil {
			c.Errorf("%s: %v", name, err)
			continue
		}
		text, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != test.want {
			c.Errorf("%s: %d, want %d: %s", name, response.StatusCode, test.want, text)
		}
		if test.want != http.StatusOK && strings.Contains(string(text), "dlv_") {
			c.Errorf("%s: shows a delivery: %s", name, text)
		}
	}
}

// checkWithoutStore: a dispatcher that waits for its store answers discovery, and asks others to try again.
func (c *cluster) checkWithoutStore() {
	c.Helper()
	address := freeAddress(c.T)
	waiting := c.launchDispatcher("store", address) // which the other one holds
	client := c.client(c.proxyCA, "front-proxy-client")
	const group = "/apis/deliveries.webhooks.clinikapi.com/v1alpha1"
	for path, want := range map[string]int{group: http.StatusOK, apiPath + "clinic-a/webhookdeliveries": http.StatusServiceUnavailable} {
		c.eventually(func() error {
			r, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "https://"+address+path, http.NoBody)
			if err != nil {
				return err
			}
			r.Header.Set("X-Remote-User", "root")
			response, err := client.Do(r)
			if err != nil {
				return err
			}
			_ = response.Body.Close()
			if response.StatusCode != want {
				return fmt.Errorf("%s: %d, want %d", path, response.StatusCode, want)
			}
			return nil
		})
	}
	select {
	case <-waiting.ready:
		c.Error("two dispatchers have one store")
	default:
	}
	if err := c.end(waiting, syscall.SIGTERM); err != nil {
		c.Errorf("the dispatcher that waits ended with %v", err)
	}
}

// client speaks to the dispatcher itself, with a certificate of the authority's if there is one.
func (c *cluster) client(by *authority, name string) *http.Client {
	c.Helper()
	ca, err := os.ReadFile(c.servingCA)
	if err != nil {
		c.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), ServerName: "deliveries.default.svc"}
	config.RootCAs.AppendCertsFromPEM(ca)
	if by != nil {
		certificate, key, err := issue(template(name, x509.ExtKeyUsageClientAuth), by)
		if err != nil {
			c.Fatal(err)
		}
		pair := tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	c.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}
