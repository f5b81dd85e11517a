package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// FieldOwner begins the names by which dispatchers write their entries. Each has one of its own: an apply removes what its owner
// leaves out.
const FieldOwner = "eventflow-dispatcher"

// callTimeout bounds one request, with its wait for the limit.
const callTimeout = 30 * time.Second

// callsPerSecond and callBurst bound what the replays of all tenants ask of the API server. A tenant has one replay under way, and
// that one request: the more run, the longer each waits.
const (
	callsPerSecond = 10
	callBurst      = 20
)

// Client is what a Runner needs of the API server. Errors are apimachinery's if it answered.
type Client interface {
	// List lists the WebhookReplays of a namespace, "" for all.
	List(ctx context.Context, namespace string, options metav1.ListOptions) (*v1alpha1.WebhookReplayList, error)
	// Watch watches those of all namespaces.
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
	// Get gets one.
	Get(ctx context.Context, namespace, name string) (*v1alpha1.WebhookReplay, error)
	// Apply makes progress the dispatcher's entry in the status of a replay, and returns what is then there. An object with another uid
	// is a conflict.
	Apply(ctx context.Context, of *v1alpha1.WebhookReplay, progress v1alpha1.ReplayProgress) (*v1alpha1.WebhookReplay, error)
}

type apiClient struct {
	plain rest.Interface
	owner string
}

var scheme = func() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}()

var params = runtime.NewParameterCodec(scheme)

const resource = "webhookreplays"

// NewClient returns the Client of a dispatcher, namespace/name, that speaks to the API server.
func NewClient(config *rest.Config, dispatcher string) (Client, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst, config.RateLimiter = callsPerSecond, callBurst, nil
	config.GroupVersion, config.APIPath = &v1alpha1.GroupVersion, "/apis"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	plain, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for replays: %w", err)
	}
	return &apiClient{plain, FieldOwner + "/" + dispatcher}, nil
}

func (c *apiClient) List(ctx context.Context, namespace string, options metav1.ListOptions) (*v1alpha1.WebhookReplayList, error) {
	found := &v1alpha1.WebhookReplayList{}
	err := c.plain.Get().NamespaceIfScoped(namespace, namespace != "").Resource(resource).VersionedParams(&options, params).
		Timeout(callTimeout).Do(ctx).Into(found)
	return found, err
}

func (c *apiClient) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	return c.plain.Get().Resource(resource).VersionedParams(&options, params).
		Timeout(time.Duration(*options.TimeoutSeconds)*time.Second + callTimeout).Watch(ctx)
}

func (c *apiClient) Get(ctx context.Context, namespace, name string) (*v1alpha1.WebhookReplay, error) {
	found := &v1alpha1.WebhookReplay{}
	err := c.plain.Get().Namespace(namespace).Resource(resource).Name(name).SubResource("status").Timeout(callTimeout).Do(ctx).Into(found)
	return found, err
}

func (c *apiClient) Apply(ctx context.Context, of *v1alpha1.WebhookReplay, progress v1alpha1.ReplayProgress) (*v1alpha1.WebhookReplay, error) {
	patch, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "WebhookReplay",
		"metadata": map[string]any{"name": of.Name, "namespace": of.Namespace, "uid": of.UID},
		"status":   map[string]any{"dispatchers": []v1alpha1.ReplayProgress{progress}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the progress of a replay: %w", err)
	}
	force, found := true, &v1alpha1.WebhookReplay{}
	err = c.plain.Patch(types.ApplyPatchType).Namespace(of.Namespace).Resource(resource).Name(of.Name).SubResource("status").
		VersionedParams(&metav1.PatchOptions{FieldManager: c.owner, Force: &force}, params).
		Body(patch).Timeout(callTimeout).Do(ctx).Into(found)
	return found, err
}
