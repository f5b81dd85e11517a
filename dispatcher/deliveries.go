package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/apiserver"
	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/limits"
	"github.com/clinikapi/eventflow/dispatcher/listener"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const (
	// deliveriesConnections bounds those of the deliveries API: kube-apiserver takes one for each watch, and some for the rest.
	deliveriesConnections = 1536
	// deliveriesPart is the part of the connections that the deliveries API gets at most.
	deliveriesPart = 4
	// frontProxyPause is how often it is read how kube-apiserver names its users, frontProxyRetry how often after a failure, and
	// frontProxyTimeout bounds each reading.
	frontProxyPause, frontProxyRetry, frontProxyTimeout = time.Minute, 5 * time.Second, 10 * time.Second
	// frontProxyConfig and frontProxyNamespace are the ConfigMap in which it stands.
	frontProxyConfig, frontProxyNamespace = "extension-apiserver-authentication", "kube-system"
)

// checkDeliveries names the flag to mend.
func (o *Options) checkDeliveries() error {
	switch {
	case (o.DeliveriesTLSCertFile == "") != (o.DeliveriesTLSKeyFile == ""):
		return errors.New("--deliveries-tls-cert-file and --deliveries-tls-key-file go together")
	case o.DeliveriesListen == "" && o.DeliveriesTLSCertFile != "":
		return errors.New("--deliveries-tls-cert-file needs --deliveries-listen")
	case o.DeliveriesListen == "":
		return nil
	case o.DeliveriesTLSCertFile == "":
		return errors.New("--deliveries-listen needs --deliveries-tls-cert-file and --deliveries-tls-key-file")
	case o.IngestAuth != authKubernetes:
		return fmt.Errorf("--deliveries-listen needs --ingest-auth=%s", authKubernetes)
	}
	return nil
}

// splitConnections returns how many connections the deliveries API may have. What was derived for publishers shrinks by as much.
func (o *Options) splitConnections(shares *limits.Limits) int {
	if o.DeliveriesListen == "" {
		return 0
	}
	n := max(1, min(deliveriesConnections, shares.Connections/deliveriesPart))
	if o.MaxConnections == 0 {
		shares.Connections = max(1, shares.Connections-n)
	}
	return n
}

// deliveriesServer serves the deliveries API to kube-apiserver. It answers discovery while the process runs, whatever becomes
// of the store: an API whose discovery fails harms the whole cluster.
type deliveriesServer struct {
	*server                                  // nil if the API is not wanted
	handler atomic.Pointer[apiserver.Server] // of discovery alone
	// audited answers from the store, and records who asks; nil until there is one.
	audited atomic.Pointer[http.Handler]
	// proxy is how kube-apiserver names its users; nil until that was read.
	proxy      atomic.Pointer[apiserver.FrontProxy]
	endWatches context.CancelFunc
	watches    context.Context //nolint:containedctx // of the server, not of a request
}

// listenDeliveries begins to serve the deliveries API: its discovery alone, as there is no store yet.
func (d *dispatcher) listenDeliveries(ctx context.Context) error {
	s := &deliveriesServer{}
	s.watches, s.endWatches = context.WithCancel(context.WithoutCancel(ctx))
	d.shown = s
	if d.DeliveriesListen == "" {
		return nil
	}
	s.handler.Store(apiserver.NewDiscovery(d.postgresURL != ""))
	bounds := listener.Options{Name: "deliveries", Connections: d.shownConnections, Judged: true, Registerer: d.registry}
	files := certificateFiles{cert: d.DeliveriesTLSCertFile, key: d.DeliveriesTLSKeyFile, askClients: true}
	var err error
	if s.server, err = d.listen(ctx, d.DeliveriesListen, s, bounds, files); err != nil {
		return fmt.Errorf("--deliveries-listen: %w", err)
	}
	d.Logger.Info("Deliveries API listening", "deliveries", s.address())
	return nil
}

// noticed returns the store with a feed of what becomes of its deliveries, if the deliveries API is wanted.
func (d *dispatcher) noticed(s store.Store) store.Store {
	if d.shown.server == nil {
		return s
	}
	d.feed = query.NewFeed(s, d.tenantOfSubscription)
	return d.feed
}

// showDeliveries makes the deliveries API answer from the store, if it is wanted.
func (d *dispatcher) showDeliveries() error {
	if d.shown.server == nil {
		return nil
	}
	handler, err := apiserver.New(apiserver.Options{
		Deliveries: d.deliveries, Feed: d.feed, Authenticate: d.shown.userOf, Authorizer: userAuthorizer{d.authorizer},
		Tenant: d.tenant, Shared: d.postgresURL != "", Memory: d.memory, MaxEventBytes: d.maxEventBytes, Logger: d.Logger.WithName("deliveries"),
	})
	if err != nil {
		return fmt.Errorf("--deliveries-listen: %w", err)
	}
	audited := d.auditShown(handler)
	d.shown.audited.Store(&audited)
	return nil
}

// hideDeliveries ends the deliveries API and its feed. The store can be closed then.
func (d *dispatcher) hideDeliveries() {
	d.shown.close()
	if d.feed != nil {
		d.feed.CloseFeed()
	}
}

type userKey struct{}

// ServeHTTP answers one request. A watch ends when the stop begins.
func (s *deliveriesServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var user *authenticationv1.UserInfo
	if proxy := s.proxy.Load(); proxy != nil {
		user = proxy.Authenticate(r)
	}
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), userKey{}, user))
	defer cancel()
	if user != nil {
		listener.Trust(ctx, true)
	}
	if r.URL.Query().Get("watch") != "" {
		defer context.AfterFunc(s.watches, cancel)()
	}
	if audited := s.audited.Load(); audited != nil {
		(*audited).ServeHTTP(w, r.WithContext(ctx))
		return
	}
	s.handler.Load().ServeHTTP(w, r.WithContext(ctx))
}

// userOf returns who asks; nil if the request does not come from the front proxy.
func (s *deliveriesServer) userOf(r *http.Request) *authenticationv1.UserInfo {
	user, _ := r.Context().Value(userKey{}).(*authenticationv1.UserInfo)
	if user == nil && s.proxy.Load() != nil { // until then it is not the client's fault
		listener.Trust(r.Context(), false)
	}
	return user
}

// shutdown ends watches, and lets other requests finish.
func (s *deliveriesServer) shutdown(ctx context.Context) {
	s.endWatches()
	if s.server != nil {
		_ = s.Shutdown(ctx) // reads, and changes that the store did or did not make
	}
}

func (s *deliveriesServer) close() {
	s.endWatches()
	if s.server != nil {
		s.server.close()
	}
}

// readFrontProxy reads again and again how kube-apiserver names its users, until ctx ends. What was read last holds while it
// cannot be read.
func (d *dispatcher) readFrontProxy(ctx context.Context) {
	if d.shown.server == nil {
		return
	}
	for {
		pause := frontProxyPause
		if err := d.readFrontProxyOnce(ctx); err != nil && ctx.Err() == nil {
			pause = frontProxyRetry
			d.Logger.Error(err, "Reading how kube-apiserver names its users failed; trying again", "configMap", frontProxyNamespace+"/"+frontProxyConfig)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (d *dispatcher) readFrontProxyOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, frontProxyTimeout)
	defer cancel()
	found, err := d.clients.ConfigMaps(frontProxyNamespace).Get(ctx, frontProxyConfig, metav1.GetOptions{})
	if err != nil {
		return err
	}
	proxy, err := apiserver.ParseFrontProxy(found.Data)
	if err != nil {
		return err
	}
	d.shown.proxy.Store(proxy)
	return nil
}

// userAuthorizer asks about the users of the deliveries API as about those who publish.
type userAuthorizer struct{ reviews *ingest.Kubernetes }

// AuthorizeUser returns nil if the user may.
func (a userAuthorizer) AuthorizeUser(ctx context.Context, user *authenticationv1.UserInfo, access apiserver.Access) error {
	resource := access.Resource
	if access.Subresource != "" {
		resource += "/" + access.Subresource
	}
	err := a.reviews.AuthorizeUser(ctx, user, ingest.Access{
		Verb: access.Verb, Group: v1alpha1.GroupVersion.Group, Resource: resource, Namespace: access.Namespace,
	})
	_, forbidden := errors.AsType[*ingest.ForbiddenError](err)
	switch {
	case forbidden, errors.Is(err, ingest.ErrUnauthenticated):
		return apiserver.ErrForbidden
	case errors.Is(err, ingest.ErrBusy):
		return fmt.Errorf("%w: %w", apiserver.ErrBusy, err)
	}
	return err
}

// tenantOfSubscription returns the tenant of a subscription that has a route.
func (d *dispatcher) tenantOfSubscription(key event.SubscriptionKey) (string, bool) {
	table := d.table.Load()
	if table == nil {
		return "", false
	}
	route, ok := table.Get(key)
	if !ok {
		return "", false
	}
	return table.Tenant(route.Namespace)
}
