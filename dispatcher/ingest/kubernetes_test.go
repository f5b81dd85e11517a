package ingest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// apiServer answers reviews: token "good-x" belongs to user x, who may do what allow lists.
type apiServer struct {
	*fake.Clientset
	mu                        sync.Mutex
	allow                     map[Access]bool
	audiences                 []string // that tokens are meant for
	down                      error
	tokenReviews, accessCount atomic.Int32
	lastAccess                *authorizationv1.SubjectAccessReviewSpec
}

func newAPIServer(allow ...Access) *apiServer {
	s := &apiServer{Clientset: fake.NewClientset(), allow: make(map[Access]bool)}
	for _, a := range allow {
		s.allow[a] = true
	}
	s.PrependReactor("create", "tokenreviews", s.reviewToken)
	s.PrependReactor("create", "subjectaccessreviews", s.reviewAccess)
	return s
}

func (s *apiServer) reviewToken(action clienttesting.Action) (bool, runtime.Object, error) {
	s.tokenReviews.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return true, nil, s.down
	}
	review := action.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
	name, good := strings.CutPrefix(review.Spec.Token, "good-")
	review.Status = authenticationv1.TokenReviewStatus{Authenticated: good, Audiences: s.audiences}
	if good {
		review.Status.User = authenticationv1.UserInfo{Username: name, UID: "u", Groups: []string{"g"}, Extra: map[string]authenticationv1.ExtraValue{"k": {"v"}}}
	}
	return true, review, nil
}

func (s *apiServer) reviewAccess(action clienttesting.Action) (bool, runtime.Object, error) {
	s.accessCount.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return true, nil, s.down
	}
	review := action.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
	s.lastAccess = &review.Spec
	a := review.Spec.ResourceAttributes
	review.Status.Allowed = a.Group == apiGroup && s.allow[Access{Verb: a.Verb, Resource: a.Resource, Namespace: a.Namespace}]
	return true, review, nil
}

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
	k := NewKubernetes(server)
	if err := k.Authorize(t.Context(), "Bearer good-ehr", publishA); err != nil {
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
		if err := k.Authorize(t.Context(), authorization, publishA); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, denied := range []Access{
		{Verb: "create", Resource: ResourceEvents, Namespace: "clinic-b"},
		{Verb: "create", Resource: ResourceDeliveries, Namespace: "clinic-a"},
		{Verb: "list", Resource: ResourceEvents, Namespace: "clinic-a"},
	} {
		err := k.Authorize(t.Context(), "bearer good-ehr", denied)
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
			if err := NewKubernetes(server, tc.wanted...).Authorize(t.Context(), "Bearer good-ehr", publishA); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestKubernetesCaches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer(publishA)
		k := NewKubernetes(server)
		ask := func(token string) error { return k.Authorize(t.Context(), "Bearer "+token, publishA) }
		for range 10 {
			if err := ask("good-ehr"); err != nil {
				t.Fatal(err)
			}
		}
		if tokens, accesses := server.tokenReviews.Load(), server.accessCount.Load(); tokens != 1 || accesses != 1 {
			t.Errorf("%d and %d reviews for one question", tokens, accesses)
		}

		// What is known holds while the server is away, until it is too old; what is not known never passes.
		server.set(func() { server.down = errors.New("connection refused") })
		<-time.After(allowedTTL - time.Millisecond)
		if err := ask("good-ehr"); err != nil {
			t.Errorf("known, server away: %v", err)
		}
		if err := ask("good-other"); err == nil || errors.Is(err, ErrUnauthenticated) {
			t.Errorf("unknown, server away: %v", err)
		}
		for range int(outageTTL/allowedTTL) - 1 {
			if err := ask("good-ehr"); err != nil {
				t.Errorf("known, server away for a while: %v", err)
			}
			<-time.After(allowedTTL)
		}
		<-time.After(2 * time.Millisecond)
		if err := ask("good-ehr"); err == nil || errors.Is(err, ErrUnauthenticated) {
			t.Errorf("too old, server away: %v", err)
		}

		// A denial is forgotten sooner.
		server.set(func() { server.down, server.allow = nil, nil })
		if _, ok := errors.AsType[*ForbiddenError](ask("good-ehr")); !ok {
			t.Error("revoked, but not denied")
		}
		server.set(func() { server.allow = map[Access]bool{publishA: true} })
		if _, ok := errors.AsType[*ForbiddenError](ask("good-ehr")); !ok {
			t.Error("a denial was not kept")
		}
		<-time.After(deniedTTL + time.Millisecond)
		if err := ask("good-ehr"); err != nil {
			t.Errorf("granted again: %v", err)
		}
	})
}

func TestKubernetesAsksOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer(publishA)
		k := NewKubernetes(server)
		if !k.slots.TryAcquire(maxReviews) { // so that the review waits
			t.Fatal("no slots")
		}
		first, leave := context.WithCancel(t.Context())
		results := make(chan error, 100)
		go func() { results <- k.Authorize(first, "Bearer good-ehr", publishA) }()
		synctest.Wait()
		for range cap(results) - 1 {
			go func() { results <- k.Authorize(t.Context(), "Bearer good-ehr", publishA) }()
		}
		synctest.Wait()
		leave() // who asked first does not wait for the answer
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("who left got %v", err)
		}
		synctest.Wait()
		k.slots.Release(maxReviews)
		for range cap(results) - 1 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if tokens, accesses := server.tokenReviews.Load(), server.accessCount.Load(); tokens != 1 || accesses != 1 {
			t.Errorf("%d and %d reviews for one question", tokens, accesses)
		}
	})
}

func TestKubernetesReviewTimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer(publishA)
		k := NewKubernetes(server)
		if !k.slots.TryAcquire(maxReviews) { // as reviews that hang would
			t.Fatal("no slots")
		}
		started := time.Now()
		err := k.Authorize(t.Context(), "Bearer good-ehr", publishA)
		if err == nil || time.Since(started) != reviewTimeout {
			t.Errorf("got %v after %v", err, time.Since(started))
		}
	})
}

func TestKubernetesKeepsNoToken(t *testing.T) {
	t.Parallel()
	k := NewKubernetes(newAPIServer(publishA))
	_ = k.Authorize(t.Context(), "Bearer good-ehr", publishA)
	for _, key := range k.users.Keys() {
		if _, ok := key.(tokenHash); !ok {
			t.Errorf("a key is a %T", key)
		}
	}
	for i := range maxCachedReviews + 100 {
		k.users.Add(tokenHash{byte(i), byte(i >> 8)}, nil, time.Minute)
	}
	if kept := len(k.users.Keys()); kept > maxCachedReviews {
		t.Errorf("%d answers are kept", kept)
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
		"list":        {"GET /deliveries", Access{"list", ResourceDeliveries, "clinic-a"}},
		"get":         {"GET " + delivery, Access{"get", ResourceDeliveries, "clinic-a"}},
		"replay":      {"POST " + delivery + "/replay", Access{"update", ResourceDeliveries, "clinic-a"}},
		"replay many": {"POST /deliveries/replay", Access{"update", ResourceDeliveries, "clinic-a"}},
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
			f := newFixture(t, func(o *Options) { o.Authorizer = NewKubernetes(server) })
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
			server.set(func() { server.down = errors.New("down") })
			w = f.do(method, path, body, "Authorization: Bearer good-else")
			wantProblem(t, w, unavailable)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("server away: got %d %v", w.Code, w.Header())
			}
		})
	}
}
