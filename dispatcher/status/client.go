package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// FieldOwner is the dispatcher's name among the writers of a subscription's status.
const FieldOwner = "eventflow-dispatcher"

// errAnother: the subscription was deleted, and another one bears its name.
var errAnother = errors.New("another subscription bears this name")

// listPage is how many subscriptions are listed with one request.
const listPage = 1000

type apiClient struct {
	subscriptions dynamic.NamespaceableResourceInterface
	plain         rest.Interface // for what is decoded here, because little of it is kept
}

// codecs decode the API server's errors.
var codecs = func() runtime.NegotiatedSerializer {
	scheme := runtime.NewScheme()
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return serializer.NewCodecFactory(scheme).WithoutConversion()
}()

// NewClient returns a Client that speaks to the API server.
func NewClient(config *rest.Config) (Client, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = -1, 0 // the Writer keeps a budget of its own
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for statuses: %w", err)
	}
	config.GroupVersion, config.APIPath, config.NegotiatedSerializer = &v1alpha1.GroupVersion, "/apis", codecs
	plain, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for lists of statuses: %w", err)
	}
	return apiClient{client.Resource(v1alpha1.GroupVersion.WithResource("webhooksubscriptions")), plain}, nil
}

// listed is what is looked at of a subscription in a list.
type listed struct {
	Metadata struct {
		UID string `json:"uid"`
	} `json:"metadata"`
	Status v1alpha1.WebhookSubscriptionStatus `json:"status"`
}

func (c apiClient) List(ctx context.Context, each func(identity string, status v1alpha1.WebhookSubscriptionStatus)) error {
	next := ""
	for {
		stream, err := c.plain.Get().Resource("webhooksubscriptions").
			Param("limit", strconv.Itoa(listPage)).Param("continue", next).Stream(ctx)
		if err != nil {
			return fmt.Errorf("list the statuses: %w", err)
		}
		next, err = decodePage(stream, each)
		if err := errors.Join(err, stream.Close()); err != nil {
			return fmt.Errorf("decode a list of subscriptions: %w", err)
		}
		if next == "" {
			return nil
		}
	}
}

// decodePage calls each with what a list holds, and returns where the next page begins. It holds one subscription at a time,
// however large the page is.
func decodePage(page io.Reader, each func(identity string, status v1alpha1.WebhookSubscriptionStatus)) (next string, err error) {
	decoder := json.NewDecoder(page)
	if err := enter(decoder, '{'); err != nil {
		return "", err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return "", err
		}
		switch key {
		case "items":
			err = decodeItems(decoder, each)
		case "metadata":
			var meta metav1.ListMeta
			err = decoder.Decode(&meta)
			next = meta.Continue
		default:
			var skipped json.RawMessage
			err = decoder.Decode(&skipped)
		}
		if err != nil {
			return "", err
		}
	}
	_, err = decoder.Token() // the end, which a page that was cut off does not have
	return next, err
}

func decodeItems(decoder *json.Decoder, each func(identity string, status v1alpha1.WebhookSubscriptionStatus)) error {
	if err := enter(decoder, '['); err != nil {
		return err
	}
	for decoder.More() {
		var item listed
		if err := decoder.Decode(&item); err != nil {
			return err
		}
		each(item.Metadata.UID, item.Status)
	}
	_, err := decoder.Token()
	return err
}

func enter(decoder *json.Decoder, delimiter json.Delim) error {
	token, err := decoder.Token()
	if err == nil && token != delimiter {
		err = fmt.Errorf("%v where %v has to be", token, delimiter)
	}
	return err
}

func (c apiClient) Get(ctx context.Context, route *routing.Route) (v1alpha1.WebhookSubscriptionStatus, error) {
	object, err := c.subscriptions.Namespace(route.Namespace).Get(ctx, route.Name, metav1.GetOptions{}, "status")
	if err != nil {
		return v1alpha1.WebhookSubscriptionStatus{}, err
	}
	var subscription v1alpha1.WebhookSubscription
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &subscription); err != nil {
		return v1alpha1.WebhookSubscriptionStatus{}, fmt.Errorf("decode the subscription: %w", err)
	}
	return subscription.Status, nil
}

func (c apiClient) Apply(ctx context.Context, route *routing.Route, status v1alpha1.WebhookSubscriptionStatus) error {
	patch, err := json.Marshal(v1alpha1.WebhookSubscription{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "WebhookSubscription"},
		// The uid keeps the status of one subscription from another that took its name.
		ObjectMeta: metav1.ObjectMeta{Namespace: route.Namespace, Name: route.Name, UID: types.UID(route.Identity)},
		Status:     status,
	})
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	force := true
	_, err = c.subscriptions.Namespace(route.Namespace).Patch(ctx, route.Name, types.ApplyPatchType, patch,
		metav1.PatchOptions{FieldManager: FieldOwner, Force: &force}, "status")
	if apierrors.IsConflict(err) { // forced, so only the uid can conflict
		return errAnother
	}
	return err
}
