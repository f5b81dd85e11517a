package simulation

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/clinikapi/eventflow/dispatcher/ingest"
)

const clusterAddress = "10.0.0.2:6443"

// apiServer says whose token it is, and what a user may do: each tenant's producer publishes and reads in its own namespace.
type apiServer struct {
	world  *world
	server *http.Server
	codecs serializer.CodecFactory

	mu     sync.Mutex
	tokens []token // the newest of each tenant
	old    []token
	broken time.Time // until when it answers 500
}

// token is a producer's.
type token struct {
	tenant  int
	number  int
	revoked time.Time
}

func (t token) String() string { return fmt.Sprintf("token-%d-%d", t.tenant, t.number) }

func (w *world) newAPIServer() (*apiServer, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{authenticationv1.AddToScheme, authorizationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	a := &apiServer{world: w, codecs: serializer.NewCodecFactory(scheme)}
	for i := range w.history.tenants {
		a.tokens = append(a.tokens, token{tenant: i})
	}
	l, err := w.network.listen("cluster", clusterAddress)
	if err != nil {
		return nil, err
	}
	a.server = &http.Server{Handler: a, ReadHeaderTimeout: time.Minute, IdleTimeout: 2 * time.Minute}
	w.serving.Go(func() { _ = a.server.Serve(l) })
	return a, nil
}

// kubeconfig writes a file that names the API server.
func kubeconfig(folder string) (string, error) {
	name := filepath.Join(folder, "kubeconfig")
	return name, os.WriteFile(name, []byte(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
users: [{name: u}], clusters: [{name: c, cluster: {server: "http://`+clusterAddress+`"}}]}`), 0o600)
}

// current is the token of a tenant's producer.
func (a *apiServer) current(tenant int) token {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tokens[tenant]
}

// revoke ends the token of a tenant's producer, which gets another.
func (a *apiServer) revoke(tenant int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	gone := a.tokens[tenant]
	gone.revoked = time.Now()
	a.old = append(a.old, gone)
	a.tokens[tenant] = token{tenant: tenant, number: gone.number + 1}
}

// stolen is a token that was revoked, or another tenant's: one that a publish to the tenant's namespace must not pass with.
// since is from when on.
func (a *apiServer) stolen(tenant, n int) (text string, since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.old {
		if t.tenant == tenant && n%2 == 0 {
			return t.String(), t.revoked
		}
	}
	return a.tokens[(tenant+1+n%(len(a.tokens)-1))%len(a.tokens)].String(), a.world.begin
}

// fail makes it answer 500 for a while.
func (a *apiServer) fail(lasts time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.broken = time.Now().Add(lasts)
}

// holder is the tenant whose token it is, and false if nobody's.
func (a *apiServer) holder(text string) (int, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, t := range a.tokens {
		if t.String() == text {
			return i, true
		}
	}
	return 0, false
}

// ServeHTTP answers a review.
func (a *apiServer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	broken := time.Now().Before(a.broken)
	a.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if broken {
		http.Error(rw, "etcd is down", http.StatusInternalServerError)
		return
	}
	object, _, err := a.codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	switch review := object.(type) {
	case *authenticationv1.TokenReview:
		if tenant, ok := a.holder(review.Spec.Token); ok {
			review.Status.Authenticated = true
			review.Status.User.Username = "system:serviceaccount:" + a.world.history.tenants[tenant].name + ":producer"
		}
	case *authorizationv1.SubjectAccessReview:
		namespace := review.Spec.ResourceAttributes.Namespace
		review.Status.Allowed = a.world.planted == openDoor || strings.HasPrefix(review.Spec.User, "system:serviceaccount:"+namespace+":")
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(http.StatusCreated)
	encoder := a.codecs.LegacyCodec(authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion)
	_ = encoder.Encode(object, rw)
}

// trespass publishes with a token that does not allow it.
func (w *world) trespass(s step) {
	text, since := w.cluster.stolen(s.tenant, s.n)
	body := fmt.Sprintf(`{"type":"patient.created","data":{"tenantId":%q}}`, w.history.tenants[s.tenant].name)
	status := w.post((s.tenant+1)%len(w.history.tenants), s.tenant, text, body)
	// Until it is asked again, a yes holds 10 s, and as long as the outage grace while nobody can be asked.
	const kept = ingest.MaxOutageGrace + 30*time.Second
	if (status == http.StatusAccepted || status == http.StatusOK) && time.Since(since) > kept {
		w.violated("trespassed: with %s, which does not allow it since %v, a publish to %s was answered with %d", text, since, w.history.tenants[s.tenant].name, status)
	}
}
