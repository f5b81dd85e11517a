package kube

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// apiServer notes what it is asked, and answers with status and body.
func apiServer(t *testing.T, status int, contentType, body string) (host string, asked func() string) {
	t.Helper()
	var last string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		last = fmt.Sprintf("%s %s\n%s", r.Method, r.URL, text)
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			last += "\n" + name + ": " + strings.Join(r.Header[name], ", ")
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() string { return last }
}

// TestSameRequests: each request is that of client-go's clientset, to the last header, with the same answer.
func TestSameRequests(t *testing.T) {
	t.Parallel()
	seconds, ctx := int64(7), t.Context()
	list := metav1.ListOptions{FieldSelector: "metadata.name=x", ResourceVersion: "5", TimeoutSeconds: &seconds, AllowWatchBookmarks: true}
	token := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "t", Audiences: []string{"a"}}}
	access := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "u", ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get"}}}
	patch := metav1.PatchOptions{FieldManager: "m"}
	for name, test := range map[string]struct {
		body string
		ours func(*Clients) (any, error)
		them func(*kubernetes.Clientset) (any, error)
	}{
		"namespace": {`{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"n","uid":"1"}}`,
			func(c *Clients) (any, error) { return c.Namespaces.Get(ctx, "n", metav1.GetOptions{}) },
			func(c *kubernetes.Clientset) (any, error) {
				return c.CoreV1().Namespaces().Get(ctx, "n", metav1.GetOptions{})
			}},
		"config map": {`{"kind":"ConfigMap","apiVersion":"v1","data":{"a":"b"}}`,
			func(c *Clients) (any, error) { return c.ConfigMaps("n").Get(ctx, "x", metav1.GetOptions{}) },
			func(c *kubernetes.Clientset) (any, error) {
				return c.CoreV1().ConfigMaps("n").Get(ctx, "x", metav1.GetOptions{})
			}},
		"secret": {`{"kind":"Secret","apiVersion":"v1","data":{"a":"Yg=="}}`,
			func(c *Clients) (any, error) {
				return c.Secrets("n").Get(ctx, "x", metav1.GetOptions{ResourceVersion: "0"})
			},
			func(c *kubernetes.Clientset) (any, error) {
				return c.CoreV1().Secrets("n").Get(ctx, "x", metav1.GetOptions{ResourceVersion: "0"})
			}},
		"secrets": {`{"kind":"SecretList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[{"metadata":{"name":"x"}}]}`,
			func(c *Clients) (any, error) { return c.Secrets("n").List(ctx, list) },
			func(c *kubernetes.Clientset) (any, error) { return c.CoreV1().Secrets("n").List(ctx, list) }},
		"patch": {`{"kind":"Secret","apiVersion":"v1"}`,
			func(c *Clients) (any, error) {
				return c.Secrets("n").Patch(ctx, "x", types.MergePatchType, []byte(`{"a":1}`), patch, "status")
			},
			func(c *kubernetes.Clientset) (any, error) {
				return c.CoreV1().Secrets("n").Patch(ctx, "x", types.MergePatchType, []byte(`{"a":1}`), patch, "status")
			}},
		"watch": {`{"type":"MODIFIED","object":{"kind":"Secret","apiVersion":"v1","metadata":{"name":"x"}}}`,
			func(c *Clients) (any, error) { w, err := c.Secrets("n").Watch(ctx, list); return first(w, err) },
			func(c *kubernetes.Clientset) (any, error) {
				w, err := c.CoreV1().Secrets("n").Watch(ctx, list)
				return first(w, err)
			}},
		"token": {`{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":true}}`,
			func(c *Clients) (any, error) { return c.Reviews.Tokens.Create(ctx, token, metav1.CreateOptions{}) },
			func(c *kubernetes.Clientset) (any, error) {
				return c.AuthenticationV1().TokenReviews().Create(ctx, token, metav1.CreateOptions{})
			}},
		"access": {`{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":true}}`,
			func(c *Clients) (any, error) { return c.Reviews.Accesses.Create(ctx, access, metav1.CreateOptions{}) },
			func(c *kubernetes.Clientset) (any, error) {
				return c.AuthorizationV1().SubjectAccessReviews().Create(ctx, access, metav1.CreateOptions{})
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, asked := apiServer(t, 200, "application/json", test.body)
			ours, them := clientsOf(t, host)
			got, err := test.ours(ours)
			if err != nil {
				t.Fatal(err)
			}
			request := asked()
			want, err := test.them(them)
			if err != nil {
				t.Fatal(err)
			}
			if request != asked() {
				t.Errorf("it asks\n%q\nand the clientset\n%q", request, asked())
			}
			if got, want := fmt.Sprintf("%T %+v", got, got), fmt.Sprintf("%T %+v", want, want); got != want {
				t.Errorf("it returns\n%s\nand the clientset\n%s", got, want)
			}
		})
	}
}

func clientsOf(t *testing.T, host string) (*Clients, *kubernetes.Clientset) {
	t.Helper()
	config := &rest.Config{Host: host, QPS: 200, Burst: 400}
	ours, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	them, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return ours, them
}

// first is the first event of a watch.
func first(w watch.Interface, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	event := <-w.ResultChan()
	return event.Object, nil
}

// TestErrors are those of apimachinery, also as Protobuf.
func TestErrors(t *testing.T) {
	t.Parallel()
	status := apierrors.NewNotFound(corev1.Resource("secrets"), "x").Status()
	for contentType, accepts := range map[string]string{"application/json": "json", "application/vnd.kubernetes.protobuf": "protobuf"} {
		info := slices.IndexFunc(clientgoscheme.Codecs.SupportedMediaTypes(), func(i runtime.SerializerInfo) bool { return i.MediaType == contentType })
		var body strings.Builder
		status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		if err := clientgoscheme.Codecs.SupportedMediaTypes()[info].Serializer.Encode(&status, &body); err != nil {
			t.Fatal(err)
		}
		host, _ := apiServer(t, 404, contentType, body.String())
		ours, _ := clientsOf(t, host)
		_, err := ours.Secrets("n").Get(t.Context(), "x", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), `secrets "x" not found`) {
			t.Errorf("%s: %v", accepts, err)
		}
	}
}

// TestOneRateLimit for all clients, and none without a rate.
func TestOneRateLimit(t *testing.T) {
	t.Parallel()
	host, _ := apiServer(t, 200, "application/json", `{}`)
	for qps, wantLimit := range map[float32]bool{0.001: true, -1: false} {
		clients, err := New(&rest.Config{Host: host, QPS: qps, Burst: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := clients.Namespaces.Get(t.Context(), "n", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = clients.Reviews.Tokens.Create(ctx, &authenticationv1.TokenReview{}, metav1.CreateOptions{})
		cancel()
		if limited := err != nil && strings.Contains(err.Error(), "rate limiter"); limited != wantLimit {
			t.Errorf("with a rate of %v: %v", qps, err)
		}
	}
}
