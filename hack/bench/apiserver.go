package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// junkReview is how long the API server takes for a token that it does not know: webhook authenticators are slow.
const junkReview = time.Second

// apiServer is as much of a Kubernetes API server as a dispatcher asks that checks tokens: TokenReview, which is slow for
// unknown ones, SubjectAccessReview, which allows each service account its own namespace, and the issuer's discovery.
type apiServer struct {
	server   *http.Server
	address  string
	mu       sync.Mutex
	issued   map[string]string // user by token
	junk     atomic.Int64      // reviews of unknown tokens
	asked    atomic.Int64      // reviews of tokens
	slowness time.Duration
}

func startAPIServer(ctx context.Context, slowness time.Duration) (*apiServer, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &apiServer{address: listener.Addr().String(), issued: map[string]string{}, slowness: slowness}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", a.reviewToken)
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", a.reviewAccess)
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, map[string]any{
			"issuer": issuer, "jwks_uri": "http://" + a.address + "/openid/v1/jwks", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	a.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = a.server.Serve(listener) }()
	return a, nil
}

func (a *apiServer) close() { _ = a.server.Close() }

// kubeconfig writes a file that names the server, and returns its path.
func (a *apiServer) kubeconfig(path string) error {
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: bench,
clusters: [{name: bench, cluster: {server: "http://%s"}}],
users: [{name: bench, user: {}}],
contexts: [{name: bench, context: {cluster: bench, user: bench}}]}
`, a.address)
	return os.WriteFile(path, []byte(text), 0o600)
}

// issue returns a valid token of a service account in a namespace; n tells its tokens apart.
func (a *apiServer) issue(namespace string, n int) string {
	token := shapeToken(namespace, "publisher", fmt.Sprint("valid-", n))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issued[token] = "system:serviceaccount:" + namespace + ":publisher"
	return token
}

const issuer = "https://kubernetes.default.svc.cluster.local"

// shapeToken returns what looks like a service account's token to all who cannot check its signature: only the API server
// knows that a flood of them is junk.
func shapeToken(namespace, account, unique string) string {
	encode := base64.RawURLEncoding.EncodeToString
	now := time.Now().Truncate(time.Hour) // the same within a run, so that a token can be made again
	claims := fmt.Sprintf(`{"aud":[%q],"exp":%d,"iat":%d,"iss":%q,"jti":%q,"kubernetes.io":{"namespace":%q,"serviceaccount":{"name":%q,"uid":"bench"}},"nbf":%d,"sub":"system:serviceaccount:%s:%s"}`,
		issuer, now.Add(24*time.Hour).Unix(), now.Unix(), issuer, unique, namespace, account, now.Unix(), namespace, account)
	signature := make([]byte, 256)
	copy(signature, unique)
	return encode([]byte(`{"alg":"RS256","kid":"bench","typ":"JWT"}`)) + "." + encode([]byte(claims)) + "." + encode(signature)
}

func answerJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

// decodeReview reads a review in JSON or, as client-go prefers, in protobuf.
func decodeReview(r *http.Request, into runtime.Object) error {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		_, _, err = scheme.Codecs.UniversalDeserializer().Decode(body, nil, into)
	}
	return err
}

func (a *apiServer) reviewToken(w http.ResponseWriter, r *http.Request) {
	var review authenticationv1.TokenReview
	if err := decodeReview(r, &review); err != nil {
		http.Error(w, "not a TokenReview", http.StatusBadRequest)
		return
	}
	a.asked.Add(1)
	a.mu.Lock()
	user, known := a.issued[review.Spec.Token]
	a.mu.Unlock()
	if known {
		audiences := review.Spec.Audiences
		if len(audiences) == 0 {
			audiences = []string{issuer}
		}
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: user, UID: "bench"}, Audiences: audiences}
	} else {
		a.junk.Add(1)
		if pause(r.Context(), a.slowness) != nil {
			return
		}
		review.Status.Error = "the token is not of this cluster"
	}
	review.APIVersion, review.Kind = "authentication.k8s.io/v1", "TokenReview"
	answerJSON(w, http.StatusCreated, review)
}

func (a *apiServer) reviewAccess(w http.ResponseWriter, r *http.Request) {
	var review authorizationv1.SubjectAccessReview
	if err := decodeReview(r, &review); err != nil || review.Spec.ResourceAttributes == nil {
		http.Error(w, "not a SubjectAccessReview", http.StatusBadRequest)
		return
	}
	review.Status.Allowed = strings.HasPrefix(review.Spec.User, "system:serviceaccount:"+review.Spec.ResourceAttributes.Namespace+":")
	review.APIVersion, review.Kind = "authorization.k8s.io/v1", "SubjectAccessReview"
	answerJSON(w, http.StatusCreated, review)
}
