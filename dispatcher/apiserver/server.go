package apiserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/query"
)

// Access is what a request wants to do, as a rule of RBAC grants it.
type Access struct {
	Verb, Resource, Subresource, Namespace, Name string
}

// The errors of an Authorizer.
var (
	// ErrForbidden: the user may not do this.
	ErrForbidden = errors.New("the user may not do this")
	// ErrBusy: more is being asked at once than may be.
	ErrBusy = errors.New("too much is being authorized at once")
)

// Authorizer says who may do what.
type Authorizer interface {
	// AuthorizeUser returns nil if the user may, else ErrForbidden, ErrBusy, or why it could not be found out.
	AuthorizeUser(ctx context.Context, user *authenticationv1.UserInfo, access Access) error
}

// Options are what a Server works with.
type Options struct {
	Deliveries *query.Deliveries
	Feed       *query.Feed
	// Authenticate returns who asks, or nil if the request does not come from the front proxy.
	Authenticate func(r *http.Request) *authenticationv1.UserInfo
	Authorizer   Authorizer
	// Tenant returns the tenant that a namespace is, and whether this dispatcher knows the namespace.
	Tenant func(ctx context.Context, namespace, remote string) (tenant string, known bool, err error)
	// Shared says that other processes change the same store: watch is refused then, because it would miss their changes.
	Shared bool
	// Memory is what answers are charged to, in bytes, by tenant; nil charges nothing. MaxEventBytes bounds one event's JSON.
	Memory        *budget.Budget
	MaxEventBytes func() int
	Logger        logr.Logger
}

// Server serves the API. It is safe for concurrent use.
type Server struct{ options Options }

// New returns a Server. It fails if an option is missing.
func New(options Options) (*Server, error) {
	if options.Deliveries == nil || options.Feed == nil || options.Authenticate == nil || options.Authorizer == nil || options.Tenant == nil {
		return nil, errors.New("the deliveries API needs Deliveries, a Feed, Authenticate, an Authorizer and Tenant")
	}
	return &Server{options}, nil
}

// NewDiscovery returns a Server that answers discovery as New's does, and all else with 503: for while there is no store yet.
func NewDiscovery(shared bool) *Server { return &Server{Options{Shared: shared}} }

// groupPath and versionPath begin the API's paths.
var (
	groupPath   = "/apis/" + v1alpha1.GroupVersion.Group
	versionPath = groupPath + "/" + v1alpha1.GroupVersion.Version
)

// call is a request that was understood.
type call struct {
	Access
	tenant string
	as     form
	query  selected
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache, private")
	if s.discover(w, r) {
		return
	}
	if err := s.serve(w, r); err != nil {
		s.fail(w, r, err)
	}
}

// serve answers what is no discovery. It has not answered if it returns an error.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	if s.options.Deliveries == nil {
		return apierrors.NewServiceUnavailable("the dispatcher has not opened its store yet; try again")
	}
	user := s.options.Authenticate(r)
	if user == nil {
		return unauthorized()
	}
	c, err := parse(r)
	if err != nil {
		return err
	}
	if err := s.options.Authorizer.AuthorizeUser(r.Context(), user, c.Access); err != nil {
		return denied(&c, err)
	}
	if err := c.check(r, s.options.Shared); err != nil { // after the right, so that errors tell a stranger nothing
		return err
	}
	tenant, known, err := s.options.Tenant(r.Context(), c.Namespace, r.RemoteAddr)
	switch {
	case err != nil:
		return err
	case !known:
		c.tenant = c.Namespace // which is nobody's uid: nothing is found
	default:
		c.tenant = tenant
	}
	if c.Verb == "watch" { // which is charged for its beginning
		return s.watch(w, r, &c)
	}
	give, err := s.charge(&c)
	if err != nil {
		return err
	}
	defer give()
	return s.do(w, r, &c)
}

func (s *Server) do(w http.ResponseWriter, r *http.Request, c *call) error {
	switch {
	case c.Subresource == v1alpha1.SubresourcePayload:
		return s.payload(w, r, c)
	case c.Verb == "create":
		return s.change(w, r, c)
	case c.Resource == v1alpha1.ResourceEvents && c.Verb == "get":
		return s.getEvent(w, r, c)
	case c.Resource == v1alpha1.ResourceEvents:
		return s.listEvents(w, r, c)
	case c.Verb == "get":
		return s.get(w, r, c)
	default:
		return s.list(w, r, c)
	}
}

// verbOf is the verb of a request, as kube-apiserver names it.
func verbOf(r *http.Request, name string) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		watch := r.URL.Query().Get("watch")
		switch {
		case name != "":
			return "get"
		case watch == "true" || watch == "1":
			return "watch"
		}
		return "list"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if name == "" {
			return "deletecollection"
		}
		return "delete"
	}
	return strings.ToLower(r.Method)
}

// parse says what a request wants, as far as a right to it can be asked for.
func parse(r *http.Request) (c call, err error) {
	rest, ok := strings.CutPrefix(r.URL.Path, versionPath+"/")
	parts := strings.Split(rest, "/")
	if !ok || r.URL.RawPath != "" {
		return c, pathNotFound()
	}
	if parts[0] == "namespaces" && len(parts) >= 3 {
		c.Namespace, parts = parts[1], parts[2:]
		if len(validation.IsDNS1123Label(c.Namespace)) > 0 {
			return c, pathNotFound()
		}
	}
	if len(parts) > 3 || parts[len(parts)-1] == "" {
		return c, pathNotFound()
	}
	c.Resource = parts[0]
	if len(parts) > 1 {
		c.Name = parts[1]
	}
	if len(parts) > 2 {
		c.Subresource = parts[2]
	}
	if verbs[c.Resource] == nil || c.Subresource != "" && verbs[c.Resource+"/"+c.Subresource] == nil {
		return c, pathNotFound()
	}
	c.Verb = verbOf(r, c.Name)
	return c, nil
}

// check refuses what there is not.
func (c *call) check(r *http.Request, shared bool) (err error) {
	resource := c.Resource
	if c.Subresource != "" {
		resource += "/" + c.Subresource
	}
	known := false
	for _, verb := range verbs[resource] {
		known = known || verb == c.Verb
	}
	if !known || c.Namespace == "" || c.Verb == "watch" && shared {
		return methodNotAllowed(c)
	}
	if c.as, err = formOf(r.Header.Values("Accept")); err != nil {
		return err
	}
	if c.Verb == "list" || c.Verb == "watch" {
		c.query, err = parseSelection(c, r.URL.Query())
	}
	return err
}

// maxWatch is how long a watch lasts at most, and defaultWatch without timeoutSeconds.
const maxWatch, defaultWatch = time.Hour, 10 * time.Minute
