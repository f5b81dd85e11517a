package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/audit"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/listener"
	"github.com/clinikapi/eventflow/dispatcher/places"
	"github.com/clinikapi/eventflow/dispatcher/pull"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/quota"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/tracing"
)

// The bounds of a request.
const (
	maxRequestBytes      = 8 << 20
	maxRequestEvents     = 1000
	defaultMaxEventBytes = 1 << 20
)

// Options are what a Handler works with.
type Options struct {
	// Store keeps what is accepted. It must not hold on to the events it is given once Append has returned.
	Store store.Store
	// Routes returns the current routing table. While it returns nil, publishes are refused with 503.
	Routes func() *routing.Table
	// Accept takes what became durable. It must not block for long. What it keeps it has charged before it returns; ingest
	// gives its own charge back then.
	Accept func([]delivery.Fanout)
	// Deliveries are those of Store: ingest lists and changes them on request.
	Deliveries *query.Deliveries
	// Pulls answer the consumers that ask for their deliveries; nil for none.
	Pulls *pull.Puller
	// Catalog says which event types are known.
	Catalog *event.Catalog
	// Authorizer decides who may use the API.
	Authorizer Authorizer
	// CertificateUser, if it is set, returns the user that a request's client certificate stands for, nil for none. It counts for
	// requests without a token, and needs an Authorizer that is an Identifier.
	CertificateUser func(*http.Request) *authenticationv1.UserInfo
	// Tenant returns the tenant that a namespace is now, and false if there is no such namespace, where that can be told;
	// publishes to others are refused with 404. remote is the client's address and port; ErrBusy says that too much is being asked
	// at once. If it is nil, a namespace's name is its tenant, and a publish to one without subscriptions is accepted and
	// causes no delivery.
	Tenant func(ctx context.Context, namespace, remote string) (tenant string, known bool, err error)
	// Terms, if it is set, returns the Catalog and MaxEventBytes of now, in place of those of the same names here. A publish
	// is read by those of the moment at which its body has arrived.
	Terms func() (catalog *event.Catalog, maxEventBytes int)
	// FilterFailed hears of each filter that failed for an event; nil for nobody. It must not block.
	FilterFailed func(sub event.SubscriptionKey, err *expression.Error)
	// ScheduleFailed hears the same of schedules, also of a filter or a key of cancelOn.
	ScheduleFailed func(sub event.SubscriptionKey, err *expression.Error)
	// GivenUp hears of each delivery that was stored as failed, because its schedule could not be evaluated; nil for nobody.
	// It must not block.
	GivenUp func(id event.DeliveryID)
	// Now is the time by the store's clock, by which schedules decide; nil for time.Now.
	Now func() time.Time
	// Unlock waits until the store can take a tenant's events: its encryption key may have to be fetched. What waits for that
	// keeps no other tenant from being worked on. Nil waits for nothing.
	Unlock func(ctx context.Context, tenant string) error
	// Tracer makes spans of publishes; nil makes none.
	Tracer *tracing.Tracer
	// Quota admits what publishes cause; nil admits all.
	Quota *quota.Keeper
	// Hosts are the host names, in lower case, that clients may name this API by without authentication, beside those that no
	// web page can have; see knownHost.
	Hosts []string
	// MaxEventBytes bounds one event's JSON, up to 8 MiB; 0 means 1 MiB.
	MaxEventBytes int
	// Memory is what publishes are charged to, in bytes, by namespace; it may be shared with others. If it is nil, they
	// have one of MaxInFlightBytes for themselves.
	Memory *budget.Budget
	// MaxInFlightBytes bounds the memory of all publishes in flight; 0 means 128 MiB, and 64 MiB is the least.
	MaxInFlightBytes int64
	// Uploads bound the bodies that are received at the same time.
	Uploads UploadLimits
	// Audit records who used the API; nil records nothing.
	Audit *audit.Log
	// Logger hears of what failed on this side.
	Logger logr.Logger
	// Registerer gets the metrics; it may be nil.
	Registerer prometheus.Registerer
}

// Handler serves the API. It is safe for concurrent use.
type Handler struct {
	options Options
	// identifier is the Authorizer, nil if it knows no users.
	identifier Identifier
	memory     *holdings
	uploads    *uploads
	places     *places.Pool // for publishes
	metrics    *metrics
	filters    *filters
	draining   atomic.Bool
	// crossOrigin refuses what web pages send, where there is no authentication.
	crossOrigin *http.CrossOriginProtection
	unordered   unordered
	scratch     sync.Pool // of *scratch
}

// New returns a Handler. It fails if an option is missing or the metrics are registered already.
func New(options Options) (*Handler, error) {
	if options.Store == nil || options.Routes == nil || options.Accept == nil || options.Deliveries == nil || options.Catalog == nil || options.Authorizer == nil {
		return nil, errors.New("ingest needs a Store, Routes, Accept, Deliveries, a Catalog and an Authorizer")
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.MaxEventBytes == 0 {
		options.MaxEventBytes = defaultMaxEventBytes
	}
	if options.MaxEventBytes < 0 || options.MaxEventBytes > maxRequestBytes {
		return nil, fmt.Errorf("ingest takes events of up to %d bytes, not %d", maxRequestBytes, options.MaxEventBytes)
	}
	identifier, identifies := options.Authorizer.(Identifier)
	if options.CertificateUser != nil && !identifies {
		return nil, errors.New("client certificates need an Authorizer that knows users")
	}
	h := &Handler{options: options, identifier: identifier, crossOrigin: http.NewCrossOriginProtection(), memory: newHoldings(options.Memory, options.MaxInFlightBytes),
		places: places.New(publishPlaces, publishWaiters)}
	var err error
	if h.uploads, err = newUploads(options.Uploads, h.scarce, options.Registerer); err != nil {
		return nil, fmt.Errorf("register the metrics of uploads: %w", err)
	}
	h.scratch.New = func() any { return newScratch(&h.options, h.memory) }
	if h.metrics, err = newMetrics(options.Registerer, h.memory, h.places); err != nil {
		return nil, fmt.Errorf("register the metrics of ingest: %w", err)
	}
	if h.filters, err = newFilters(&h.options); err != nil {
		return nil, fmt.Errorf("register the metrics of filters and schedules: %w", err)
	}
	return h, nil
}

// scarce reports whether most of the memory for publishes is in use.
func (h *Handler) scarce() bool { return h.memory.budget.Used() > h.memory.budget.Limit()/4*3 }

// Drain makes every answer from now on ask its client to close the connection, so that a stopping dispatcher is left by
// its clients before it stops to listen.
func (h *Handler) Drain() {
	if h.draining.CompareAndSwap(false, true) && h.options.Pulls != nil {
		h.options.Pulls.Drain()
	}
}

// operation is what a request does, and a label of the metrics.
type operation string

const (
	opPublish    operation = "publish"
	opList       operation = "list"
	opGet        operation = "get"
	opReplay     operation = "replay"
	opReplayMany operation = "replay-many"
	opCancel     operation = "cancel"
	opSendNow    operation = "sendnow"
	opPublicKeys operation = "public-keys"
	opPull       operation = "pull"
	opNone       operation = "none"
)

// access is what each operation needs: a verb and a resource.
var access = map[operation]Access{
	opPublish:    {Verb: "create", Resource: ResourceEvents},
	opList:       {Verb: "list", Resource: ResourceDeliveries},
	opGet:        {Verb: "get", Resource: ResourceDeliveries},
	opReplay:     {Verb: "update", Resource: ResourceDeliveries},
	opReplayMany: {Verb: "update", Resource: ResourceDeliveries},
	opCancel:     {Verb: "update", Resource: ResourceDeliveries},
	opSendNow:    {Verb: "update", Resource: ResourceDeliveries},
	opPull:       {Verb: "update", Resource: ResourcePull},
}

// call is a request that was understood: what to do, and where.
type call struct {
	operation operation
	namespace string
	tenant    string // that the namespace is
	delivery  string // the id as text, where the operation is on one
	identity  string // of the subscription whose public keys are asked for
	// subscription is the name, where the operation is on one.
	subscription string
	user         string // that asks, "" if that is not known
	// idle says that the operation found nothing to do.
	idle bool
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	if h.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	c, err := route(r)
	status := 0
	private := c.operation != opPublicKeys
	if err == nil && private {
		c.user, err = h.authorize(r, c)
	}
	if err == nil && private {
		c.tenant, err = h.tenantOf(r, c)
	}
	if err == nil {
		status, err = h.serve(w, r, &c)
	}
	if err != nil {
		p := asProblem(err)
		if !h.discard(w, r, p) {
			w.Header().Set("Connection", "close")
		}
		p.write(w)
		status = p.kind.status
	}
	h.metrics.observe(c.operation, status, started)
	h.audit(r, &c, status)
}

// auditLevels are the levels from which on an operation is recorded.
var auditLevels = map[operation]audit.Level{
	opPublish: audit.All, opList: audit.Reads, opGet: audit.Reads,
	opReplay: audit.Writes, opReplayMany: audit.Writes, opCancel: audit.Writes, opSendNow: audit.Writes, opPull: audit.Writes,
}

// audit records a request of a user that is known, or of anyone where nobody is asked. Who could not say who they are did nothing,
// and is counted by the metrics: a flood of bad tokens must not fill the trail.
func (h *Handler) audit(r *http.Request, c *call, status int) {
	if h.options.Audit == nil || c.operation == opNone || c.operation == opPublicKeys || c.user == "" && !h.open() {
		return
	}
	level := auditLevels[c.operation]
	if c.idle {
		level = audit.All
	}
	h.options.Audit.Add(level, audit.Record{
		Action: string(c.operation), User: c.user, Source: listener.Source(r.RemoteAddr),
		Namespace: strings.Clone(c.namespace), Delivery: strings.Clone(c.delivery), Subscription: strings.Clone(c.subscription), Status: status,
	})
}

// serve does what c says. It has answered if it returns a status, and has not if it returns an error.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, c *call) (status int, err error) {
	switch c.operation {
	case opPublish:
		return h.publish(w, r, *c)
	case opList:
		return h.list(w, r, *c)
	case opGet:
		return h.get(w, r, *c)
	case opReplay:
		return h.replay(w, r, *c)
	case opCancel:
		return h.cancel(w, r, *c)
	case opSendNow:
		return h.sendNow(w, r, *c)
	case opPublicKeys:
		return h.publicKeys(w, r, *c)
	case opPull:
		return h.pull(w, r, c)
	default:
		return h.replayMany(w, r, *c)
	}
}

// pathPrefix begins every path of the API.
const pathPrefix = "/v1/namespaces/"

// route says what a request wants. It takes paths as they are: http.ServeMux would redirect those that are not clean,
// which clients do not follow with a POST.
func route(r *http.Request) (call, error) {
	if identity, ok := strings.CutPrefix(r.URL.Path, publicKeysPrefix); ok {
		return routePublicKeys(r, identity)
	}
	rest, ok := strings.CutPrefix(r.URL.Path, pathPrefix)
	namespace, rest, found := strings.Cut(rest, "/")
	if !ok || !found || r.URL.RawPath != "" {
		return call{operation: opNone}, pathNotFound()
	}
	c := call{operation: opNone, namespace: namespace}
	method := http.MethodPost
	id, isDelivery := strings.CutPrefix(rest, "deliveries/")
	switch {
	case rest == "events":
		c.operation = opPublish
	case rest == "deliveries":
		c.operation, method = opList, http.MethodGet
	case rest == "deliveries/replay":
		c.operation = opReplayMany
	case isDelivery && id != "":
		c.operation, c.delivery, method = onDelivery(id)
	default:
		c.subscription, c.operation = onSubscription(rest)
		method = http.MethodGet
	}
	if c.operation == opNone || strings.Contains(c.delivery, "/") {
		return call{operation: opNone}, pathNotFound()
	}
	headed := method == http.MethodGet && c.operation != opPull // a pull without its answer would only seem to be one
	if r.Method != method && (!headed || r.Method != http.MethodHead) {
		return c, newProblem(methodNotAllowed, "send %s to this path", method).with("Allow", method)
	}
	if !isLabel(namespace) {
		return c, newProblem(namespaceNotFound, "the path names no valid namespace: want at most 63 lower-case letters, digits and inner dashes")
	}
	return c, nil
}

// onDelivery is what is done to one delivery, by what follows "deliveries/" in the path.
func onDelivery(rest string) (op operation, id, method string) {
	for _, op := range []operation{opReplay, opCancel, opSendNow} {
		if id, found := strings.CutSuffix(rest, "/"+string(op)); found {
			return op, id, http.MethodPost
		}
	}
	return opGet, rest, http.MethodGet
}

// isLabel reports whether s is a label as RFC 1123 has it, and Kubernetes for the names of namespaces. The check of
// apimachinery's, a regular expression, costs more than the rest of the route.
func isLabel(s string) bool { return isLabelText(s) && len(s) <= validation.DNS1123LabelMaxLength }

// isLabelText is isLabel for a text of any length.
func isLabelText(s string) bool {
	for i := range len(s) {
		c, inner := s[i], i > 0 && i < len(s)-1
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || !inner) {
			return false
		}
	}
	return s != ""
}

func pathNotFound() *problem {
	return newProblem(notFound, "there is nothing at this path; publish with POST %s{namespace}/events", pathPrefix)
}

// open reports whether everyone who reaches the API may do everything.
func (h *Handler) open() bool {
	_, open := h.options.Authorizer.(None)
	return open
}

// authorize returns a nil error if the request's sender may do what c says, and the sender's name if it is known.
func (h *Handler) authorize(r *http.Request, c call) (user string, err error) {
	if h.open() {
		if err := h.crossOrigin.Check(r); err != nil { // a web page in the browser of someone who reaches the API
			return "", newProblem(forbidden, "a web page of another origin may not use this API without authentication")
		}
		if err := h.checkHost(r); err != nil {
			return "", err
		}
		listener.Trust(r.Context(), true)
		return "", nil
	}
	wanted := access[c.operation]
	wanted.Namespace, wanted.Name = c.namespace, strings.Clone(c.subscription)
	user, err = h.identify(r, wanted)
	listener.Trust(r.Context(), err == nil)
	if err != nil {
		err = h.refusal(r, wanted, err)
	}
	return user, err
}

// identify asks the Authorizer. A token counts before a client certificate, which the connection may have for another reason.
func (h *Handler) identify(r *http.Request, wanted Access) (name string, err error) {
	values := r.Header["Authorization"]
	authorization := ""
	if len(values) == 1 { // two would leave open which one counts
		authorization = values[0]
	}
	if h.identifier == nil {
		return "", h.options.Authorizer.Authorize(r.Context(), authorization, listener.Source(r.RemoteAddr), wanted)
	}
	var user *authenticationv1.UserInfo
	if len(values) == 0 && h.options.CertificateUser != nil {
		if user = h.options.CertificateUser(r); user != nil {
			return user.Username, h.identifier.AuthorizeUser(r.Context(), user, wanted)
		}
	}
	if user, err = h.identifier.Identify(r.Context(), authorization, listener.Source(r.RemoteAddr), wanted); user != nil {
		name = user.Username
	}
	return name, err
}

// refusal is what a client is told of the Authorizer's error.
func (h *Handler) refusal(r *http.Request, wanted Access, err error) error {
	if errors.Is(err, ErrUnauthenticated) {
		return newProblem(unauthenticated, "send a valid token of a Kubernetes user or service account%s: Authorization: Bearer <token>", h.alternative()).
			with("WWW-Authenticate", `Bearer realm="eventflow"`)
	}
	if denied, ok := errors.AsType[*ForbiddenError](err); ok {
		return newProblem(forbidden, "%s", denied)
	}
	if errors.Is(err, ErrBusy) {
		return tooManyQuestions()
	}
	if r.Context().Err() == nil {
		h.options.Logger.Error(err, "A request could not be authorized", "verb", wanted.Verb, "resource", wanted.Resource, "namespace", wanted.Namespace)
	}
	return newProblem(unavailable, "the Kubernetes API server could not be asked whether this is allowed; send the request again").retry(2 * time.Second)
}

// alternative is what a client may send in place of a token.
func (h *Handler) alternative() string {
	if h.options.CertificateUser == nil {
		return ""
	}
	return ", or a client certificate that this dispatcher trusts"
}

// tenantOf returns the tenant that the namespace of a request is. One that does not exist is a problem for a publish
// alone: of others, nothing is found.
func (h *Handler) tenantOf(r *http.Request, c call) (string, error) {
	namespace := strings.Clone(c.namespace) // the request's own text would stay with its events
	if h.options.Tenant == nil {
		return namespace, nil
	}
	tenant, known, err := h.options.Tenant(r.Context(), namespace, r.RemoteAddr)
	switch {
	case errors.Is(err, ErrBusy):
		return "", tooManyQuestions()
	case err != nil:
		return "", err
	case !known && c.operation == opPublish:
		return "", newProblem(namespaceNotFound, "there is no namespace %s; nothing was stored", quoted(namespace))
	case !known:
		return namespace, nil
	}
	return tenant, nil
}

func tooManyQuestions() error {
	return newProblem(overloaded, "more about tokens, accesses and namespaces is new at once than this dispatcher may ask the Kubernetes API server; send the request again after the time in Retry-After").retry(time.Second)
}
