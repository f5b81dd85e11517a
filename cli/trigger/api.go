package trigger

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	kubeclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/client"
	"github.com/clinikapi/eventflow/api/event/sample"
	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// api is a dispatcher's API in a namespace. Its errors say what to do.
type api struct {
	base      string
	namespace string
	client    *client.Client
	// found is the WebhookDispatcher that base comes from; nil if the user named it.
	found *v1alpha1.WebhookDispatcher
	// kube is the cluster that the dispatcher is in, most likely; nil if there is none.
	kube kubeclient.Client
}

// clusterPatience bounds the question which subscriptions are pulled: an answer is of use, and not needed.
const clusterPatience = 5 * time.Second

// pulled returns the subscriptions of the namespace, or the one with a name, whose consumers ask for their deliveries. It
// returns none if the cluster does not say.
func (a *api) pulled(ctx context.Context, name string) map[string]bool {
	if a.kube == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	var all v1alpha1.WebhookSubscriptionList
	if name != "" {
		all.Items = make([]v1alpha1.WebhookSubscription, 1)
		if err := a.kube.Get(ctx, kubeclient.ObjectKey{Namespace: a.namespace, Name: name}, &all.Items[0]); err != nil {
			return nil
		}
	} else if err := a.kube.List(ctx, &all, kubeclient.InNamespace(a.namespace)); err != nil {
		return nil
	}
	found := map[string]bool{}
	for i := range all.Items {
		if sub := &all.Items[i]; sub.Spec.Delivery.Mode == v1alpha1.DeliveryPull {
			found[sub.Name] = true
		}
	}
	return found
}

// publish publishes an event, and returns how many deliveries it has.
func (a *api) publish(ctx context.Context, e sample.Event) (int, error) {
	at, err := time.Parse(time.RFC3339, e.Timestamp)
	if err != nil {
		return 0, fmt.Errorf("read the event's timestamp: %w", err)
	}
	accepted, err := a.client.Publish(ctx, a.namespace, client.Event{ID: e.ID, Type: e.Type, Timestamp: at, Data: e.Data, Previous: e.Previous})
	return accepted.Deliveries, a.explained(err)
}

func (a *api) get(ctx context.Context, id string) (client.Delivery, error) {
	d, err := a.client.Delivery(ctx, a.namespace, id)
	return d, a.explained(err)
}

// explained says what to do about an error of the client.
func (a *api) explained(err error) error {
	if failed, ok := errors.AsType[*client.UnreachableError](err); ok {
		return a.unreachable(failed.Err)
	}
	if p, ok := errors.AsType[*client.Problem](err); ok {
		return refused(p)
	}
	return err
}

// unreachable says what to do where the dispatcher cannot be reached: its Service is for pods of the cluster.
func (a *api) unreachable(err error) error {
	if a.found == nil {
		return fmt.Errorf("the dispatcher cannot be reached: %w; see whether --server is right", err)
	}
	port := "80"
	if u, parsed := url.Parse(a.base); parsed == nil {
		port = u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
	}
	scheme, _, _ := strings.Cut(a.base, "://")
	host := "127.0.0.1"
	if scheme == "https" {
		host = "localhost" // a name in the certificate
	}
	return fmt.Errorf("the dispatcher's Service cannot be reached from here (%w): run \"kubectl -n %s port-forward service/eventflow-dispatcher-%s 8080:%s\", and add --server %s://%s:8080",
		err, a.found.Namespace, a.found.Name, port, scheme, host)
}

// refused says why the dispatcher refused a request, as its problem document has it.
func refused(p *client.Problem) error {
	if p.Title == "" {
		return fmt.Errorf("the server answered with %d, and no dispatcher's problem document: see whether --server is right", p.Status)
	}
	message := fmt.Sprintf("the dispatcher refuses it (%d): %s", p.Status, p.Title)
	if p.Detail != "" {
		message += ": " + p.Detail
	}
	if p.Status == http.StatusUnauthorized {
		message += "; give a token with --token-file, or a ServiceAccount that may publish with --service-account"
	}
	return errors.New(message)
}
