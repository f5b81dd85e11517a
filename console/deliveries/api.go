package deliveries

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
)

const (
	// apiTimeout bounds each request.
	apiTimeout = 20 * time.Second
	// apiPage is what the API lists at once at most, and maxSkipped how many newer deliveries are passed over to reach Until.
	apiPage    = 1000
	maxSkipped = 20 * apiPage
	// A step of a replay of many ends at the end of a page of apiStep, after apiStepTime.
	apiStep     = 100
	apiStepTime = 5 * time.Second
)

// API is a Source over the aggregated API of deliveries, with the user's own client of the API server.
type API struct {
	rest *rest.RESTClient
	// dispatcher does what the API has no resource for: it publishes.
	dispatcher Source
	now        func() time.Time
}

var _ Source = (*API)(nil)

// codecs encode and decode the API's types.
var codecs = func() runtime.NegotiatedSerializer {
	scheme := runtime.NewScheme()
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return serializer.NewCodecFactory(scheme).WithoutConversion()
}()

// NewAPI returns a client that acts as config and base say. dispatcher publishes, and may be None.
func NewAPI(config *rest.Config, base *http.Client, dispatcher Source) (*API, error) {
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion, c.NegotiatedSerializer = "/apis", &v1alpha1.GroupVersion, codecs
	c.QPS = -1 // the API server's own fairness decides
	client, err := rest.RESTClientForConfigAndClient(c, base)
	if err != nil {
		return nil, fmt.Errorf("make a client of the deliveries API: %w", err)
	}
	return &API{rest: client, dispatcher: dispatcher, now: time.Now}, nil
}

// Served reports whether the cluster's discovery has the API. An error says that this could not be found out.
func (a *API) Served(ctx context.Context) (bool, error) {
	err := a.rest.Get().AbsPath("/apis", v1alpha1.GroupVersion.Group, v1alpha1.GroupVersion.Version).MaxRetries(0).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, withoutURL(err)
}

// List asks for one page. The API selects by no times, and lists the newest first: what is newer than Until is passed over.
func (a *API) List(ctx context.Context, namespace string, query Query) (List, error) {
	limit := query.Limit
	if limit == 0 {
		limit = 100
	}
	for skipped := 0; skipped < maxSkipped; {
		ask := limit
		if !query.Until.IsZero() {
			ask = apiPage
		}
		page, err := a.page(ctx, namespace, &query, ask)
		if err != nil {
			return List{}, err
		}
		newer := 0
		for newer < len(page.Items) && !query.Until.IsZero() && page.Items[newer].Created.After(query.Until) {
			newer++
		}
		switch {
		case newer == len(page.Items) && page.Continue != "":
			skipped += newer
			query.Continue = page.Continue
			continue
		case len(page.Items)-newer > limit: // so that the token goes on behind the last one shown
			if page, err = a.page(ctx, namespace, &query, newer+limit); err != nil {
				return List{}, err
			}
		}
		return since(page, min(newer, len(page.Items)), query.Since), nil
	}
	return List{}, &Refused{Status: http.StatusUnprocessableEntity, Message: fmt.Sprintf("more than %d deliveries are newer than that time: choose a later one", maxSkipped)}
}

// since cuts off the newer ones at the beginning, and at the end those that are older than a time.
func since(page List, newer int, from time.Time) List {
	page.Items = page.Items[newer:]
	for i := range page.Items {
		if page.Items[i].Created.Before(from) {
			return List{Items: page.Items[:i]}
		}
	}
	return page
}

// page asks for deliveries of a namespace by what the API selects by.
func (a *API) page(ctx context.Context, namespace string, query *Query, limit int) (List, error) {
	selected := fields.Set{}
	for field, value := range map[string]string{
		v1alpha1.FieldSubscription: query.Subscription, v1alpha1.FieldState: query.State, v1alpha1.FieldScheduledKey: query.Key,
	} {
		if value != "" {
			selected[field] = value
		}
	}
	options := map[string]string{"limit": strconv.Itoa(limit), "continue": query.Continue, "fieldSelector": selected.AsSelector().String()}
	request := a.rest.Get().Namespace(namespace).Resource(v1alpha1.ResourceDeliveries)
	for name, value := range options {
		if value != "" {
			request = request.Param(name, value)
		}
	}
	var answer v1alpha1.WebhookDeliveryList
	if err := a.do(ctx, request, &answer, "list", v1alpha1.ResourceDeliveries, namespace); err != nil {
		return List{}, err
	}
	list := List{Continue: answer.Continue, Items: make([]Delivery, 0, len(answer.Items))}
	for i := range answer.Items {
		list.Items = append(list.Items, deliveryOf(&answer.Items[i]))
	}
	return list, nil
}

// deliveryOf reads the API's object.
func deliveryOf(o *v1alpha1.WebhookDelivery) Delivery {
	s := &o.Status
	d := Delivery{
		ID: o.Name, Namespace: o.Namespace, Subscription: s.Subscription, EventID: s.Event.ID, EventType: s.Event.Type, State: string(s.State),
		ReplayOf: s.ReplayOf, AttemptCount: int(s.AttemptCount), Created: s.Event.Time.Time, Next: timeOf(s.NextAttemptTime), Planned: timeOf(s.ScheduledTime),
	}
	if d.State == Failed || d.State == Cancelled { // of a pending one it is that of the newest attempt
		d.Reason = s.Reason
	}
	for _, attempt := range s.Attempts {
		d.Attempts = append(d.Attempts, Attempt{
			Number: int(attempt.Number), Started: attempt.Time.Time, Duration: attempt.Duration.Duration, StatusCode: int(attempt.Status), Error: attempt.Reason,
		})
	}
	return d
}

func timeOf(t *metav1.MicroTime) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}

// Get asks for one delivery with its attempts.
func (a *API) Get(ctx context.Context, namespace, id string) (Delivery, error) {
	var answer v1alpha1.WebhookDelivery
	request := a.rest.Get().Namespace(namespace).Resource(v1alpha1.ResourceDeliveries).Name(id)
	if err := a.do(ctx, request, &answer, "get", v1alpha1.ResourceDeliveries, namespace); err != nil {
		return Delivery{}, err
	}
	return deliveryOf(&answer), nil
}

// Replay delivers one again.
func (a *API) Replay(ctx context.Context, namespace, id string) (Delivery, error) {
	return a.change(ctx, namespace, id, v1alpha1.SubresourceReplay, &v1alpha1.ReplayOptions{})
}

// Cancel ends a pending one.
func (a *API) Cancel(ctx context.Context, namespace, id string) (Delivery, error) {
	return a.change(ctx, namespace, id, v1alpha1.SubresourceCancel, &v1alpha1.CancelOptions{})
}

// SendNow makes a planned one due.
func (a *API) SendNow(ctx context.Context, namespace, id string) (Delivery, error) {
	return a.change(ctx, namespace, id, v1alpha1.SubresourceSendNow, &v1alpha1.SendNowOptions{})
}

func (a *API) change(ctx context.Context, namespace, id, subresource string, options runtime.Object) (Delivery, error) {
	var answer v1alpha1.WebhookDelivery
	request := a.rest.Post().Namespace(namespace).Resource(v1alpha1.ResourceDeliveries).Name(id).SubResource(subresource).Body(options)
	if err := a.do(ctx, request, &answer, "create", v1alpha1.ResourceDeliveries+"/"+subresource, namespace); err != nil {
		return Delivery{}, err
	}
	return deliveryOf(&answer), nil
}

// Payload returns an event's envelope. It needs the right to get webhookevents/payload.
func (a *API) Payload(ctx context.Context, namespace, eventID string) ([]byte, error) {
	var answer v1alpha1.WebhookEventPayload
	request := a.rest.Get().Namespace(namespace).Resource(v1alpha1.ResourceEvents).Name(eventID).SubResource(v1alpha1.SubresourcePayload)
	if err := a.do(ctx, request, &answer, "get", v1alpha1.ResourceEvents+"/"+v1alpha1.SubresourcePayload, namespace); err != nil {
		return nil, err
	}
	return answer.Body.Raw, nil
}

// Publish publishes by the dispatcher: the API has no resource for it.
func (a *API) Publish(ctx context.Context, namespace, eventType string, data []byte) (id string, caused int, err error) {
	id, caused, err = a.dispatcher.Publish(ctx, namespace, eventType, data)
	if errors.Is(err, ErrUnavailable) {
		err = &Refused{Status: http.StatusServiceUnavailable, Message: "the deliveries API publishes no events: start the console with --dispatcher to send test events"}
	}
	return id, caused, err
}

// ReplayMany replays whole pages one by one until some seconds have passed. What cannot be replayed any more, or is on its way
// already, is passed over.
func (a *API) ReplayMany(ctx context.Context, namespace string, query Query) (Progress, error) {
	progress, end := Progress{Continue: query.Continue}, a.now().Add(apiStepTime)
	query.Limit = apiStep
	done := map[string]bool{}
	for {
		query.Continue = progress.Continue
		page, err := a.List(ctx, namespace, query)
		if err != nil {
			return progress, err
		}
		for i := range page.Items {
			d := &page.Items[i]
			if done[d.ReplayOf] { // it is what this step made
				continue
			}
			switch _, err := a.Replay(ctx, namespace, d.ID); {
			case passed(err):
			case err != nil:
				return progress, err
			default:
				done[d.ID] = true
				progress.Replayed++
			}
		}
		progress.Continue = page.Continue
		if page.Continue == "" || !a.now().Before(end) {
			return progress, nil
		}
	}
}

// passed reports whether a delivery is one that a replay of many passes over.
func passed(err error) bool {
	refused, ok := errors.AsType[*Refused](err)
	return errors.Is(err, ErrNotFound) || ok && refused.Status == http.StatusConflict
}

// do sends a request, and makes errors that pages understand. verb and resource are the right that it needs.
func (a *API) do(ctx context.Context, request *rest.Request, answer runtime.Object, verb, resource, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	err := request.MaxRetries(0).Do(ctx).Into(answer)
	if err == nil {
		return nil
	}
	status, ok := errors.AsType[*apierrors.StatusError](err)
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return &Forbidden{Verb: verb, Group: v1alpha1.GroupVersion.Group, Resource: resource, Namespace: namespace}
	case apierrors.IsNotFound(err) && verb != "list":
		return ErrNotFound
	case ok && status.ErrStatus.Code/100 == 4:
		return &Refused{Status: int(status.ErrStatus.Code), Message: status.ErrStatus.Message}
	}
	return fmt.Errorf("ask the deliveries API: %w", withoutURL(err))
}
