package console

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"

	"github.com/clinikapi/eventflow/api/client"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/folder"
	"github.com/clinikapi/eventflow/console/kube"
	"github.com/clinikapi/eventflow/console/web"
)

// backends make the clients of each request.
type backends struct {
	open func(*http.Request) (*web.Backend, error)
	// where names what is looked at, and namespace is the one that the user works in.
	where, namespace string
}

func newBackends(o *options) (*backends, error) {
	var dispatcher *url.URL
	if o.dispatcher != "" {
		var err error
		if dispatcher, err = url.Parse(o.dispatcher); err != nil || dispatcher.Host == "" {
			return nil, fmt.Errorf("--dispatcher=%q: want a URL such as http://127.0.0.1:8080", o.dispatcher)
		}
	}
	trust, err := dispatcherTrust(o.dispatcherCA)
	if err != nil {
		return nil, err
	}
	if o.folder != "" {
		return folderBackends(o, dispatcher, trust)
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.context})
	config, err := loaded.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	config.UserAgent = "eventflow-console"
	b := &backends{where: config.Host, namespace: o.namespace}
	if raw, err := loaded.RawConfig(); err == nil && raw.CurrentContext != "" {
		b.where = raw.CurrentContext
		if o.context != "" {
			b.where = o.context
		}
	}
	if b.namespace == "" {
		if b.namespace, _, err = loaded.Namespace(); err != nil {
			return nil, fmt.Errorf("find the namespace of the context: %w", err)
		}
	}
	if o.auth == authBearer {
		b.open, err = perToken(config, dispatcher, trust)
	} else {
		b.open, err = oneUser(config, dispatcher, trust)
	}
	return b, err
}

// dispatcherTrust is how a dispatcher is verified; nil is by the authorities of the system.
func dispatcherTrust(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--dispatcher-ca-file: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--dispatcher-ca-file=%s: the file holds no certificate in PEM", file)
	}
	return config, nil
}

func folderBackends(o *options, dispatcher *url.URL, trust *tls.Config) (*backends, error) {
	from, err := source(dispatcher, client.NewTransport(trust))
	if err != nil {
		return nil, err
	}
	backend := &web.Backend{Objects: folder.New(o.folder), Deliveries: from, User: "local"}
	namespace := o.namespace
	if namespace == "" {
		namespace = "default"
	}
	return &backends{where: "folder " + o.folder, namespace: namespace, open: func(*http.Request) (*web.Backend, error) { return backend, nil }}, nil
}

func source(dispatcher *url.URL, transport http.RoundTripper) (deliveries.Source, error) {
	if dispatcher == nil {
		return deliveries.None{}, nil
	}
	from, err := deliveries.NewClient(dispatcher, transport)
	if err != nil {
		return nil, fmt.Errorf("--dispatcher: %w", err)
	}
	return from, nil
}

// oneUser acts as the kubeconfig's user.
func oneUser(config *rest.Config, dispatcher *url.URL, trust *tls.Config) (func(*http.Request) (*web.Backend, error), error) {
	toCluster, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	transport, err := rest.HTTPWrappersForConfig(config, client.NewTransport(trust))
	if err != nil {
		return nil, fmt.Errorf("use the kubeconfig's credentials: %w", err)
	}
	other, err := source(dispatcher, transport)
	if err != nil {
		return nil, err
	}
	lists, found := kube.NewLists(clock.RealClock{}), &discovery{clock: clock.RealClock{}}
	return func(r *http.Request) (*web.Backend, error) {
		objects, err := kube.NewClient(config, toCluster, sha256.Sum256(nil), lists)
		if err != nil {
			return nil, err
		}
		api, err := deliveries.NewAPI(config, toCluster, other)
		if err != nil {
			return nil, err
		}
		return &web.Backend{Objects: objects, Deliveries: found.choose(r.Context(), api, other), User: "local"}, nil
	}, nil
}

// perToken acts as the user of each request's token. What the console's own pod or kubeconfig may is left out.
func perToken(config *rest.Config, dispatcher *url.URL, trust *tls.Config) (func(*http.Request) (*web.Backend, error), error) {
	bare := rest.AnonymousClientConfig(config)
	base, err := rest.TransportFor(bare)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	toDispatcher := client.NewTransport(trust)
	lists, found := kube.NewLists(clock.RealClock{}), &discovery{clock: clock.RealClock{}}
	return func(r *http.Request) (*web.Backend, error) {
		token := web.Token(r)
		sum := sha256.Sum256([]byte(token))
		toCluster := &http.Client{Transport: &withToken{token, base}}
		objects, err := kube.NewClient(bare, toCluster, sum, lists)
		if err != nil {
			return nil, err
		}
		other, err := source(dispatcher, &withToken{token, toDispatcher})
		if err != nil {
			return nil, err
		}
		api, err := deliveries.NewAPI(bare, toCluster, other)
		if err != nil {
			return nil, err
		}
		return &web.Backend{
			Objects: objects, Deliveries: found.choose(r.Context(), api, other), User: "token " + hex.EncodeToString(sum[:6]),
		}, nil
	}, nil
}

// withToken adds a user's token to requests.
type withToken struct {
	token string
	next  http.RoundTripper
}

// RoundTrip adds the token.
func (t *withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+t.token)
	return t.next.RoundTrip(r)
}
