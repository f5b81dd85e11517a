package dispatcher

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// checkProxy checks the flags of the proxy. No error shows the URL, which may hold a password.
func (o *Options) checkProxy() error {
	if o.EgressProxy == "" {
		if o.EgressProxySecrets != "" {
			return errors.New("--egress-proxy-secrets needs --egress-proxy")
		}
		return nil
	}
	u, err := url.Parse(o.EgressProxy)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.Port() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("--egress-proxy: want a scheme, a host and a port, such as http://proxy.example.com:3128; credentials stand in --egress-proxy-secrets")
	}
	if c := v1alpha1.ProxyConnect(o.EgressProxyConnect); c != v1alpha1.ConnectAddress && c != v1alpha1.ConnectHost {
		return fmt.Errorf("--egress-proxy-connect=%s: want %s or %s", c, v1alpha1.ConnectAddress, v1alpha1.ConnectHost)
	}
	return nil
}

// proxy is what the flags say of the proxy, which have been checked; nil for none.
func (o *Options) proxy(log logr.Logger) *egress.Proxy {
	if o.EgressProxy == "" {
		return nil
	}
	u, _ := url.Parse(o.EgressProxy)
	proxy := &egress.Proxy{Address: u.Host, TLS: u.Scheme == "https", ByHost: o.EgressProxyConnect == string(v1alpha1.ConnectHost)}
	if o.EgressProxySecrets != "" {
		files := &proxyFiles{dir: o.EgressProxySecrets, now: time.Now, log: log}
		proxy.Secrets = files.get
	}
	return proxy
}

// proxyFilesAge is how old what was read may be.
const proxyFilesAge = 10 * time.Second

// proxyFiles are the files of a proxy's secrets. What cannot be read leaves the last that could.
type proxyFiles struct {
	dir string
	now func() time.Time
	log logr.Logger

	mu   sync.Mutex
	at   time.Time
	last egress.ProxySecrets
}

// get returns what the files hold.
func (f *proxyFiles) get() egress.ProxySecrets {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); f.at.IsZero() || now.Sub(f.at) >= proxyFilesAge {
		f.at = now
		if read, err := f.read(); err == nil {
			f.last = read
		} else {
			f.log.Error(err, "The proxy's secrets are not usable, keeping the last ones")
		}
	}
	return f.last
}

func (f *proxyFiles) read() (read egress.ProxySecrets, err error) {
	var ca string
	for name, into := range map[string]*string{"username": &read.User, "password": &read.Password, "ca.crt": &ca} {
		text, err := os.ReadFile(filepath.Join(f.dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return read, fmt.Errorf("read a secret of the proxy: %w", err)
		}
		*into = string(text)
	}
	if ca != "" {
		read.Roots, err = egress.ParseRoots([]byte(ca))
	}
	return read, err
}
