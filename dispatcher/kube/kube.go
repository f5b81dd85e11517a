package kube

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// Getter gets one object. An error is one of apimachinery's API errors if the API server answered.
type Getter[T any] interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (T, error)
}

// Creator creates one object, and returns what became of it. An error is one of apimachinery's API errors if the API server
// answered.
type Creator[T any] interface {
	Create(ctx context.Context, object T, options metav1.CreateOptions) (T, error)
}

// Reviews are what the API server decides about a client.
type Reviews struct {
	Tokens   Creator[*authenticationv1.TokenReview]
	Accesses Creator[*authorizationv1.SubjectAccessReview]
}

// Clients are the clients of one API server. They share its connections and one rate limit.
type Clients struct {
	Namespaces Getter[*corev1.Namespace]
	Reviews    Reviews

	core rest.Interface
}

var (
	scheme = newScheme()
	codecs = serializer.NewCodecFactory(scheme)
	params = runtime.NewParameterCodec(scheme)
)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, authenticationv1.AddToScheme, authorizationv1.AddToScheme} {
		utilruntime.Must(add(s))
	}
	return s
}

// New returns the clients of the API server that config names, whose rate limit they have.
func New(config *rest.Config) (*Clients, error) {
	c := rest.CopyConfig(config)
	if c.UserAgent == "" {
		c.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	if c.RateLimiter == nil && c.QPS > 0 { // one for all
		c.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(c.QPS, c.Burst)
	}
	shared, err := rest.HTTPClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	var groups [3]rest.Interface
	for i, version := range []schema.GroupVersion{corev1.SchemeGroupVersion, authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion} {
		of := rest.CopyConfig(c)
		of.GroupVersion, of.APIPath, of.NegotiatedSerializer = &version, "/apis", codecs.WithoutConversion()
		if version.Group == "" {
			of.APIPath = "/api"
		}
		if groups[i], err = rest.RESTClientForConfigAndClient(of, shared); err != nil {
			return nil, fmt.Errorf("make a client of the cluster: %w", err)
		}
	}
	return &Clients{
		core:       groups[0],
		Namespaces: &resource[corev1.Namespace, *corev1.Namespace]{groups[0], "", "namespaces"},
		Reviews: Reviews{
			Tokens:   &resource[authenticationv1.TokenReview, *authenticationv1.TokenReview]{groups[1], "", "tokenreviews"},
			Accesses: &resource[authorizationv1.SubjectAccessReview, *authorizationv1.SubjectAccessReview]{groups[2], "", "subjectaccessreviews"},
		},
	}, nil
}

// ConfigMaps are those of a namespace.
func (c *Clients) ConfigMaps(namespace string) Getter[*corev1.ConfigMap] {
	return &resource[corev1.ConfigMap, *corev1.ConfigMap]{c.core, namespace, "configmaps"}
}

// Secrets are those of a namespace.
func (c *Clients) Secrets(namespace string) *Secrets {
	return &Secrets{resource[corev1.Secret, *corev1.Secret]{c.core, namespace, "secrets"}}
}

// object is a pointer to a T.
type object[T any] interface {
	*T
	runtime.Object
}

// resource is a kind of objects: of a namespace, or of the cluster if that is empty.
type resource[T any, P object[T]] struct {
	client    rest.Interface
	namespace string
	plural    string
}

// to completes a request: the objects are sent and asked for as Protobuf unless the config has another content type.
func (r *resource[T, P]) to(request *rest.Request) *rest.Request {
	return request.UseProtobufAsDefaultIfPreferred(true).NamespaceIfScoped(r.namespace, r.namespace != "").Resource(r.plural)
}

// Get implements Getter.
func (r *resource[T, P]) Get(ctx context.Context, name string, options metav1.GetOptions) (P, error) {
	found := P(new(T))
	err := r.to(r.client.Get()).Name(name).VersionedParams(&options, params).Do(ctx).Into(found)
	return found, err
}

// Create implements Creator.
func (r *resource[T, P]) Create(ctx context.Context, object P, options metav1.CreateOptions) (P, error) {
	made := P(new(T))
	err := r.to(r.client.Post()).VersionedParams(&options, params).Body(object).Do(ctx).Into(made)
	return made, err
}

// Secrets are the Secrets of a namespace. The options' TimeoutSeconds bound a request on both sides.
type Secrets struct {
	resource[corev1.Secret, *corev1.Secret]
}

// List lists those that the options select.
func (s *Secrets) List(ctx context.Context, options metav1.ListOptions) (*corev1.SecretList, error) {
	found := &corev1.SecretList{}
	err := s.to(s.client.Get()).VersionedParams(&options, params).Timeout(timeoutOf(&options)).Do(ctx).Into(found)
	return found, err
}

// Watch watches those that the options select.
func (s *Secrets) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	return s.to(s.client.Get()).VersionedParams(&options, params).Timeout(timeoutOf(&options)).Watch(ctx)
}

// Patch changes one, and returns what it is now.
func (s *Secrets) Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, options metav1.PatchOptions, subresources ...string) (*corev1.Secret, error) {
	patched := &corev1.Secret{}
	err := s.to(s.client.Patch(kind)).Name(name).SubResource(subresources...).VersionedParams(&options, params).Body(patch).Do(ctx).Into(patched)
	return patched, err
}

func timeoutOf(options *metav1.ListOptions) time.Duration {
	if options.TimeoutSeconds == nil {
		return 0
	}
	return time.Duration(*options.TimeoutSeconds) * time.Second
}
