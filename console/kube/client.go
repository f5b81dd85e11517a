package kube

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// FieldManager is the console's name in managedFields.
const FieldManager = "eventflow-console"

const (
	subscriptions = "webhooksubscriptions"
	dispatchers   = "webhookdispatchers"
)

// Client is a cluster with one user's rights. It is made for one request.
type Client struct {
	webhooks, core *rest.RESTClient
	user           [sha256.Size]byte
	lists          *Lists
}

var _ Objects = (*Client)(nil)

// NewClient returns a client that acts as config says. user is a hash of the credentials, and base the connections to the API
// server, which carry none.
func NewClient(config *rest.Config, base *http.Client, user [sha256.Size]byte, lists *Lists) (*Client, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	client := func(path string, version schema.GroupVersion) (*rest.RESTClient, error) {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer = path, &version, codecs
		c.QPS = -1 // the API server's own fairness decides
		return rest.RESTClientForConfigAndClient(c, base)
	}
	webhooks, err := client("/apis", v1alpha1.GroupVersion)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	core, err := client("/api", corev1.SchemeGroupVersion)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return &Client{webhooks: webhooks, core: core, user: user, lists: lists}, nil
}

// ReadOnly returns "": the API server decides.
func (c *Client) ReadOnly() string { return "" }

// Namespaces lists the names of all namespaces.
func (c *Client) Namespaces(ctx context.Context) ([]string, error) {
	list := corev1.NamespaceList{}
	if err := c.core.Get().Resource("namespaces").Param("resourceVersion", "0").Do(ctx).Into(&list); err != nil {
		return nil, failed(err, "list", "", "namespaces", "")
	}
	names := make([]string, 0, len(list.Items))
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	slices.Sort(names)
	return names, nil
}

// Subscriptions lists, or returns what this user listed within the last seconds.
func (c *Client) Subscriptions(ctx context.Context, namespace string, fresh bool) (*Snapshot, error) {
	return c.lists.get(ctx, listKey{c.user, namespace}, fresh, func(ctx context.Context) ([]Row, error) {
		body, err := c.webhooks.Get().NamespaceIfScoped(namespace, namespace != "").Resource(subscriptions).
			Param("resourceVersion", "0").SetHeader("Accept", "application/json").Stream(ctx)
		if err != nil {
			return nil, failed(err, "list", v1alpha1.GroupVersion.Group, subscriptions, namespace)
		}
		defer func() { _ = body.Close() }()
		return decodeRows(body)
	})
}

// Subscription gets one.
func (c *Client) Subscription(ctx context.Context, namespace, name string) (*v1alpha1.WebhookSubscription, error) {
	sub := &v1alpha1.WebhookSubscription{}
	err := c.webhooks.Get().Namespace(namespace).Resource(subscriptions).Name(name).Do(ctx).Into(sub)
	return sub, failed(err, "get", v1alpha1.GroupVersion.Group, subscriptions, namespace)
}

// Specs lists whole subscriptions, and keeps none of them.
func (c *Client) Specs(ctx context.Context, namespace string) (subs []v1alpha1.WebhookSubscription, more bool, err error) {
	list := v1alpha1.WebhookSubscriptionList{}
	err = c.webhooks.Get().Namespace(namespace).Resource(subscriptions).Param("limit", strconv.Itoa(MaxSpecs)).Do(ctx).Into(&list)
	return list.Items, list.Continue != "", failed(err, "list", v1alpha1.GroupVersion.Group, subscriptions, namespace)
}

// Check saves without an effect: schema, admission and rights are asked.
func (c *Client) Check(ctx context.Context, sub *v1alpha1.WebhookSubscription) error {
	return c.save(ctx, sub, metav1.DryRunAll)
}

// Save creates a subscription that has no resourceVersion, and updates one that has, if it is still at that version.
func (c *Client) Save(ctx context.Context, sub *v1alpha1.WebhookSubscription) error {
	defer c.lists.forget(c.user)
	return c.save(ctx, sub, "")
}

func (c *Client) save(ctx context.Context, sub *v1alpha1.WebhookSubscription, dryRun string) error {
	request, verb := c.webhooks.Post().Namespace(sub.Namespace).Resource(subscriptions), "create"
	if sub.ResourceVersion != "" {
		request, verb = c.webhooks.Put().Namespace(sub.Namespace).Resource(subscriptions).Name(sub.Name), "update"
	}
	request = request.Param("fieldManager", FieldManager).Param("fieldValidation", "Strict").Body(sub)
	if dryRun != "" {
		request = request.Param("dryRun", dryRun)
	}
	return failed(request.Do(ctx).Error(), verb, v1alpha1.GroupVersion.Group, subscriptions, sub.Namespace)
}

// Patch merges into a subscription.
func (c *Client) Patch(ctx context.Context, namespace, name string, patch []byte) error {
	defer c.lists.forget(c.user)
	return c.patch(ctx, namespace, name, patch, "")
}

// CheckPatch merges without an effect: schema, admission, rights and the version are asked.
func (c *Client) CheckPatch(ctx context.Context, namespace, name string, patch []byte) error {
	return c.patch(ctx, namespace, name, patch, metav1.DryRunAll)
}

func (c *Client) patch(ctx context.Context, namespace, name string, patch []byte, dryRun string) error {
	request := c.webhooks.Patch(types.MergePatchType).Namespace(namespace).Resource(subscriptions).Name(name).
		Param("fieldManager", FieldManager).Body(patch)
	if dryRun != "" {
		request = request.Param("dryRun", dryRun)
	}
	return failed(request.Do(ctx).Error(), "patch", v1alpha1.GroupVersion.Group, subscriptions, namespace)
}

// Dispatchers lists those of all namespaces.
func (c *Client) Dispatchers(ctx context.Context) ([]v1alpha1.WebhookDispatcher, error) {
	list := v1alpha1.WebhookDispatcherList{}
	err := c.webhooks.Get().Resource(dispatchers).Param("resourceVersion", "0").Do(ctx).Into(&list)
	return list.Items, failed(err, "list", v1alpha1.GroupVersion.Group, dispatchers, "")
}

// CreateSecret makes a Secret with one key.
func (c *Client) CreateSecret(ctx context.Context, namespace, name, key string, value []byte) error {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Data:       map[string][]byte{key: value},
	}
	err := c.core.Post().Namespace(namespace).Resource("secrets").Param("fieldManager", FieldManager).Body(secret).Do(ctx).Error()
	return failed(err, "create", "", "secrets", namespace)
}

// failed makes errors that pages understand of those of client-go.
func failed(err error, verb, group, resource, namespace string) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return &Forbidden{Verb: verb, Group: group, Resource: resource, Namespace: namespace, Message: err.Error()}
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return fmt.Errorf("%s %s: %w", verb, resource, err)
}
