package ingest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/dispatcher/kube"
)

// apiServer answers reviews: a token with a user belongs to that user, who may do what allow lists. It is a client of its
// own because that of client-go's fakes answers one call at a time.
type apiServer struct {
	mu                        sync.Mutex
	allow                     map[Access]bool
	audiences                 []string                                         // that tokens are meant for
	down                      error                                            // of every call, if set
	hang                      func(token string) <-chan struct{}               // until when a review of the token hangs; nil: not at all
	userOf                    func(token string) (name string, authentic bool) // nil: token "good-x" belongs to x
	tokenReviews, accessCount atomic.Int32
	lastAccess                *authorizationv1.SubjectAccessReviewSpec
}

type (
	fakeTokenReviews  struct{ *apiServer }
	fakeAccessReviews struct{ *apiServer }
)

// reviews are the clients of the server.
func (s *apiServer) reviews() kube.Reviews {
	return kube.Reviews{Tokens: fakeTokenReviews{s}, Accesses: fakeAccessReviews{s}}
}

func newAPIServer(allow ...Access) *apiServer {
	s := &apiServer{allow: make(map[Access]bool)}
	for _, a := range allow {
		s.allow[a] = true
	}
	return s
}

// wait waits as long as reviews of the token hang, and returns what all calls fail with.
func (s *apiServer) wait(ctx context.Context, token string) error {
	s.mu.Lock()
	hang, down := s.hang, s.down
	s.mu.Unlock()
	if hang != nil {
		if until := hang(token); until != nil {
			select {
			case <-until:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return down
}

func (f fakeTokenReviews) Create(ctx context.Context, review *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	s := f.apiServer
	s.tokenReviews.Add(1)
	if err := s.wait(ctx, review.Spec.Token); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	review = review.DeepCopy()
	name, good := strings.CutPrefix(review.Spec.Token, "good-")
	if s.userOf != nil {
		name, good = s.userOf(review.Spec.Token)
	}
	review.Status = authenticationv1.TokenReviewStatus{Authenticated: good, Audiences: s.audiences}
	if good {
		review.Status.User = authenticationv1.UserInfo{Username: name, UID: "u", Groups: []string{"g"}, Extra: map[string]authenticationv1.ExtraValue{"k": {"v"}}}
	}
	return review, nil
}

func (f fakeAccessReviews) Create(ctx context.Context, review *authorizationv1.SubjectAccessReview, _ metav1.CreateOptions) (*authorizationv1.SubjectAccessReview, error) {
	s := f.apiServer
	s.accessCount.Add(1)
	if err := s.wait(ctx, ""); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	review = review.DeepCopy()
	s.lastAccess = &review.Spec
	a := review.Spec.ResourceAttributes
	asked := Access{Verb: a.Verb, Group: a.Group, Resource: a.Resource, Namespace: a.Namespace}
	if a.Group == apiGroup {
		asked.Group = ""
	}
	if a.Subresource != "" {
		asked.Resource += "/" + a.Subresource
	}
	review.Status.Allowed = s.allow[asked]
	return review, nil
}

// errRefused is how an API server fails that is not there.
var errRefused = &url.Error{Op: "Post", URL: "https://10.96.0.1:443", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}

// newKubernetes returns an Authorizer with the longest grace, unless options say otherwise.
func newKubernetes(t *testing.T, server *apiServer, adjust ...func(*KubernetesOptions)) *Kubernetes {
	t.Helper()
	options := KubernetesOptions{OutageGrace: MaxOutageGrace}
	for _, change := range adjust {
		change(&options)
	}
	k, err := NewKubernetes(server.reviews(), options)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testSource is where clients of the tests are.
const testSource = "192.0.2.1"

// set changes the server's mind.
func (s *apiServer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

var publishA = Access{Verb: "create", Resource: ResourceEvents, Namespace: "clinic-a"}

func TestKubernetesAuthorize(t *testing.T) {
	t.Parallel()
	server := newAPIServer(publishA)
	k := newKubernetes(t, server)
	if err := k.Authorize(t.Context(), "Bearer good-ehr", testSource, publishA); err != nil {
		t.Errorf("allowed: %v", err)
	}
	spec := server.lastAccess
	if spec.User != "ehr" || spec.UID != "u" || len(spec.Groups) != 1 || spec.Extra["k"][0] != "v" {
		t.Errorf("asked for %+v", spec)
	}
	for name, authorization := range map[string]string{
		"none": "", "no token": "Bearer ", "no scheme": "good-ehr", "basic": "Basic good-ehr", "unknown": "Bearer bad-ehr",
		"unprintable": "Bearer good-\x01", "long": "Bearer good-" + strings.Repeat("x", maxTokenLength),
	} {
		if err := k.Authorize(t.Context(), authorization, testSource, publishA); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, denied := range []Access{
		{Verb: "create", Resource: ResourceEvents, Namespace: "clinic-b"},
		{Verb: "create", Resource: ResourceDeliveries, Namespace: "clinic-a"},
		{Verb: "list", Resource: ResourceEvents, Namespace: "clinic-a"},
	} {
		err := k.Authorize(t.Context(), "bearer good-ehr", testSource, denied)
		forbidden, ok := errors.AsType[*ForbiddenError](err)
		if !ok || forbidden.User != "ehr" || forbidden.Access != denied {
			t.Errorf("%+v: got %v", denied, err)
		}
	}
}

func TestKubernetesAudiences(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		wanted, meant []string
		want          error
	}{
		"none wanted":     {nil, []string{"https://kubernetes.default.svc"}, nil},
		"the same":        {[]string{"eventflow"}, []string{"eventflow"}, nil},
		"another":         {[]string{"eventflow"}, []string{"vault"}, ErrUnauthenticated},
		"not checked":     {[]string{"eventflow"}, nil, ErrUnauthenticated},
		"one of the many": {[]string{"eventflow", "b"}, []string{"b"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newAPIServer(publishA)
			server.audiences = tc.meant
			if err := newKubernetes(t, server, func(o *KubernetesOptions) { o.Audiences = tc.wanted }).Authorize(t.Context(), "Bearer good-ehr", testSource, publishA); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestAuthorization asks for every operation with and without what it needs.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	const delivery = "/deliveries/dlv_000000000000000000000000000000000000000"
	for name, tc := range map[string]struct {
		request string
		needs   Access
	}{
		"publish":     {"POST /events", publishA},
		"list":        {"GET /deliveries", Access{Verb: "list", Resource: ResourceDeliveries, Namespace: "clinic-a"}},
		"get":         {"GET " + delivery, Access{Verb: "get", Resource: ResourceDeliveries, Namespace: "clinic-a"}},
		"replay":      {"POST " + delivery + "/replay", Access{Verb: "update", Resource: ResourceDeliveries, Namespace: "clinic-a"}},
		"cancel":      {"POST " + delivery + "/cancel", Access{Verb: "update", Resource: ResourceDeliveries, Namespace: "clinic-a"}},
		"send now":    {"POST " + delivery + "/sendnow", Access{Verb: "update", Resource: ResourceDeliveries, Namespace: "clinic-a"}},
		"replay many": {"POST /deliveries/replay", Access{Verb: "update", Resource: ResourceDeliveries, Namespace: "clinic-a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			method, path, _ := strings.Cut(tc.request, " ")
			path = "/v1/namespaces/clinic-a" + path
			body := ""
			if name == "publish" {
				body = `{"type":"patient.created","data":{}}`
			}
			server := newAPIServer(tc.needs)
			f := newFixture(t, func(o *Options) { o.Authorizer = newKubernetes(t, server) })
			if w := f.do(method, path, body, "Authorization: Bearer good-ehr"); w.Code >= 400 && w.Code != 404 {
				t.Errorf("with access: got %d %s", w.Code, w.Body)
			}
			w := f.do(method, path, body)
			wantProblem(t, w, unauthenticated, "Bearer")
			if !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("headers are %v", w.Header())
			}
			wantProblem(t, f.do(method, path, body, "Authorization: Bearer good-ehr", "Authorization: Bearer good-ehr"), unauthenticated)
			other := strings.Replace(path, "clinic-a", "clinic-b", 1)
			wantProblem(t, f.do(method, other, body, "Authorization: Bearer good-ehr"), forbidden, `"ehr"`, tc.needs.Verb, tc.needs.Resource, `"clinic-b"`, "Role", `verbs ["`+tc.needs.Verb+`"]`)
			server.set(func() { server.down = errRefused })
			w = f.do(method, path, body, "Authorization: Bearer good-else")
			wantProblem(t, w, unavailable)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("server away: got %d %v", w.Code, w.Header())
			}
		})
	}
}

// TestAuthorizeUser: who was authenticated elsewhere is asked about once, as all that is known of the user, for each access.
func TestAuthorizeUser(t *testing.T) {
	t.Parallel()
	replay := Access{Verb: "create", Group: "deliveries." + apiGroup, Resource: "webhookdeliveries/replay", Namespace: "clinic-a"}
	server := newAPIServer(replay)
	k := newKubernetes(t, server)
	user := func() *authenticationv1.UserInfo {
		return &authenticationv1.UserInfo{Username: "ada", Groups: []string{"nurses"}, Extra: map[string]authenticationv1.ExtraValue{"k": {"v"}}}
	}
	for range 3 {
		if err := k.AuthorizeUser(t.Context(), user(), replay); err != nil {
			t.Errorf("allowed: %v", err)
		}
	}
	if n := server.accessCount.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if spec := server.lastAccess; spec.User != "ada" || len(spec.Groups) != 1 || spec.Extra["k"][0] != "v" || spec.ResourceAttributes.Subresource != "replay" {
		t.Errorf("asked for %+v", spec)
	}
	others := map[string]Access{"another group of resources": replay, "another subresource": replay, "another namespace": replay}
	for name, other := range others {
		switch name {
		case "another group of resources":
			other.Group = ""
		case "another subresource":
			other.Resource = "webhookdeliveries/cancel"
		default:
			other.Namespace = "clinic-b"
		}
		var denied *ForbiddenError
		if err := k.AuthorizeUser(t.Context(), user(), other); !errors.As(err, &denied) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	before := server.accessCount.Load()
	promoted := user()
	promoted.Groups = append(promoted.Groups, "doctors")
	if err := k.AuthorizeUser(t.Context(), promoted, replay); err != nil || server.accessCount.Load() != before+1 {
		t.Errorf("in another group: %v, asked %d times", err, server.accessCount.Load()-before)
	}
	for _, nobody := range []*authenticationv1.UserInfo{nil, {}} {
		if err := k.AuthorizeUser(t.Context(), nobody, replay); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("nobody: got %v", err)
		}
	}
}
