package trigger

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kubeclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/client"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/cli/exit"
)

// target is where the event goes, and as whom.
type target struct {
	server, token, tokenFile, serviceAccount string
	kubeconfig, context, dispatcher          string
	caFile                                   string
	version                                  string
}

func (t *target) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&t.server, "server", "", "URL of the dispatcher's API, such as http://127.0.0.1:8080; found in the cluster unless set")
	flags.StringVar(&t.token, "token", "", "bearer token; better in EVENTFLOW_TOKEN or --token-file, as others may see a command line")
	flags.StringVar(&t.tokenFile, "token-file", "", "file with the bearer token")
	flags.StringVar(&t.serviceAccount, "service-account", "", "ServiceAccount of the namespace for which to request a token")
	flags.StringVar(&t.caFile, "ca-file", "", "certificates, in PEM, that the dispatcher's own may be signed by")
	flags.StringVar(&t.kubeconfig, "kubeconfig", "", "kubeconfig file; without, $KUBECONFIG or the usual place")
	flags.StringVar(&t.context, "context", "", "context of the kubeconfig")
	flags.StringVar(&t.dispatcher, "dispatcher", "", "NAMESPACE/NAME of the WebhookDispatcher; that of the subscription, or default, unless set")
}

// connect finds the dispatcher and the credentials.
func (t *target) connect(ctx context.Context, namespace, subscription string) (*api, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = t.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: t.context})
	cluster, clusterErr := loader.ClientConfig()
	if t.kubeconfig != "" && clusterErr != nil {
		return nil, exit.Bad("--kubeconfig=%s: %w", t.kubeconfig, clusterErr)
	}
	if namespace == "" {
		namespace = metav1.NamespaceDefault
		if of, _, err := loader.Namespace(); err == nil && clusterErr == nil {
			namespace = of
		}
	}
	a := &api{namespace: namespace}
	var kube kubeclient.Client
	var trusted *v1alpha1.WebhookDispatcher // says what to trust
	near := t.server != "" && isSafe(t.server)
	forwarded := t.caFile == "" && strings.HasPrefix(t.server, "https:") && near
	if clusterErr == nil && (t.server == "" || t.serviceAccount != "" || near) {
		var err error
		if kube, err = newClient(cluster); err != nil {
			return nil, fmt.Errorf("connect to the cluster: %w", err)
		}
	}
	switch {
	case t.server != "":
		a.base = strings.TrimRight(t.server, "/")
		if forwarded && kube != nil { // a port of this machine leads to the cluster's dispatcher, most likely
			trusted, _ = t.find(ctx, kube, namespace, subscription)
		}
	case kube == nil:
		return nil, exit.Bad("there is no cluster (%w): name the dispatcher with --server, or a kubeconfig with --kubeconfig", clusterErr)
	default:
		found, err := t.find(ctx, kube, namespace, subscription)
		if err != nil {
			return nil, err
		}
		a.base, a.found, trusted = found.Status.PublishURL, found, found
	}
	if a.found != nil || near {
		a.kube = kube
	}
	transport, err := t.transport(trusted)
	if err != nil {
		return nil, err
	}
	if clusterErr != nil {
		cluster = nil
	}
	// A publish is not tried again: the user sees why it failed.
	config := client.Config{URL: a.base, UserAgent: "eventflow/" + t.version, RetryFor: -1}
	if err := t.authorize(ctx, &config, transport, a, cluster, kube); err != nil {
		return nil, err
	}
	if a.client, err = client.New(config); err != nil {
		return nil, exit.Bad("--server: %w", err)
	}
	return a, nil
}

func newClient(cluster *rest.Config) (kubeclient.Client, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	mapper := meta.NewDefaultRESTMapper(nil) // no discovery: these are all that is asked for
	mapper.Add(corev1.SchemeGroupVersion.WithKind("ServiceAccount"), meta.RESTScopeNamespace)
	for _, kind := range []string{"WebhookSubscription", "WebhookDispatcher"} {
		mapper.Add(v1alpha1.GroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	return kubeclient.New(cluster, kubeclient.Options{Scheme: scheme, Mapper: mapper})
}

// transport is that of requests to the dispatcher. One that was found in the cluster says there by what it is known.
func (t *target) transport(found *v1alpha1.WebhookDispatcher) (*http.Transport, error) {
	transport := client.NewTransport(nil)
	roots := x509.NewCertPool()
	switch {
	case t.caFile != "":
		text, err := os.ReadFile(t.caFile)
		if err != nil {
			return nil, exit.Bad("--ca-file: %w", err)
		}
		if !roots.AppendCertsFromPEM(text) {
			return nil, exit.Bad("--ca-file=%s: the file holds no certificate in PEM", t.caFile)
		}
	case found != nil && found.Status.PublishCA != "":
		if !roots.AppendCertsFromPEM([]byte(found.Status.PublishCA)) {
			return nil, fmt.Errorf("status.publishCA of WebhookDispatcher %s/%s holds no certificate in PEM", found.Namespace, found.Name)
		}
	default:
		return transport, nil
	}
	transport.TLSClientConfig.RootCAs = roots
	return transport, nil
}

// authorize sets the transport, and adds the credentials. Those of the kubeconfig's user go to the cluster's own dispatcher, to
// this machine, and over TLS; to another server the user names a token.
func (t *target) authorize(ctx context.Context, config *client.Config, transport http.RoundTripper, a *api, cluster *rest.Config, kube kubeclient.Client) (err error) {
	token := t.token
	switch {
	case t.tokenFile != "":
		if token, err = client.TokenFile(t.tokenFile)(ctx); err != nil {
			return exit.Bad("--token-file: %w", err)
		}
	case t.serviceAccount != "":
		if kube == nil {
			return exit.Bad("--service-account needs a cluster: name a kubeconfig with --kubeconfig")
		}
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: t.serviceAccount, Namespace: a.namespace}}
		request := &authenticationv1.TokenRequest{}
		if err := kube.SubResource("token").Create(ctx, account, request); err != nil {
			return fmt.Errorf("request a token for ServiceAccount %s/%s: %w", a.namespace, t.serviceAccount, err)
		}
		token = request.Status.Token
	}
	config.Transport = transport
	switch {
	case token != "":
		config.Token = client.StaticToken(token)
	case cluster != nil && (a.found != nil || isSafe(a.base)):
		if config.Transport, err = rest.HTTPWrappersForConfig(cluster, transport); err != nil {
			return fmt.Errorf("use the kubeconfig's user: %w", err)
		}
	}
	return nil
}

// isSafe reports whether a token that was not made for a server may be sent to it.
func isSafe(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// find returns the WebhookDispatcher of a subscription, or the default one.
func (t *target) find(ctx context.Context, kube kubeclient.Client, namespace, subscription string) (*v1alpha1.WebhookDispatcher, error) {
	ref := v1alpha1.DispatcherReference{Name: "default"}
	switch {
	case t.dispatcher != "":
		var ok bool
		if ref.Namespace, ref.Name, ok = strings.Cut(t.dispatcher, "/"); !ok {
			return nil, exit.Bad("--dispatcher=%q: want NAMESPACE/NAME", t.dispatcher)
		}
	case subscription != "":
		sub := &v1alpha1.WebhookSubscription{}
		if err := kube.Get(ctx, kubeclient.ObjectKey{Namespace: namespace, Name: subscription}, sub); err != nil {
			return nil, fmt.Errorf("read the subscription: %w", err)
		}
		ref.Namespace, ref.Name = sub.Spec.DispatcherRef.Namespace, cmp.Or(sub.Spec.DispatcherRef.Name, ref.Name)
	}
	var all v1alpha1.WebhookDispatcherList
	if err := kube.List(ctx, &all, kubeclient.InNamespace(ref.Namespace)); err != nil {
		return nil, fmt.Errorf("look for the WebhookDispatcher: %w; or name its API with --server", err)
	}
	var found []*v1alpha1.WebhookDispatcher
	for i := range all.Items {
		if all.Items[i].Name == ref.Name {
			found = append(found, &all.Items[i])
		}
	}
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("there is no WebhookDispatcher %s: name one with --dispatcher, or its API with --server", ref.Name)
	case len(found) > 1:
		return nil, fmt.Errorf("there are %d WebhookDispatchers with the name %s: choose one with --dispatcher", len(found), ref.Name)
	case found[0].Status.PublishURL == "":
		return nil, fmt.Errorf("WebhookDispatcher %s/%s has no status.publishURL yet: wait until it is Ready", found[0].Namespace, found[0].Name)
	}
	return found[0], nil
}
