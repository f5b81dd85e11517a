package subscription

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhookdestinations,verbs=list;watch

// approvals adds to the terms of a namespace with the given labels that its hosts have to be approved, if a dispatcher asks so.
func (r *Reconciler) approvals(ctx context.Context, d *v1alpha1.WebhookDispatcher, set labels.Set, t *terms) error {
	if d.Spec.Egress.Approval != v1alpha1.ApprovalRequired {
		return nil
	}
	bound := routing.Bound{Reason: v1alpha1.ReasonNotApproved, Mend: "a WebhookDestination that selects the namespace has to name it"}
	if r.alone() { // a Role cannot allow it to see what is in no namespace, so no approval would be waited for with success
		bound.Reason = v1alpha1.ReasonHostNotAllowed
		bound.Mend = "the manager works with Roles alone, and sees no WebhookDestination: use the hosts of spec.egress.rules of the WebhookDispatcher in place of spec.egress.approval"
	} else {
		list := &v1alpha1.WebhookDestinationList{}
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("list what is approved: %w", err)
		}
		bound.Hosts = approvedHosts(list.Items, set)
	}
	t.bounds = append(t.bounds, bound)
	return nil
}

// approvedHosts returns the hosts that are approved for a namespace with the given labels. A selector that is none approves
// nothing.
func approvedHosts(destinations []v1alpha1.WebhookDestination, set labels.Set) (hosts []string) {
	for i := range destinations {
		if spec := &destinations[i].Spec; spec.NamespaceSelector != nil && selects(spec.NamespaceSelector, set) {
			hosts = append(hosts, spec.Hosts...)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// alone reports whether the manager has Roles alone.
func (r *Reconciler) alone() bool {
	_, polled := r.Namespaces.(*PolledNamespaces)
	return polled
}

// approving finds the subscriptions that a WebhookDestination may approve.
func (r *Reconciler) approving(ctx context.Context, _ client.Object) (requests []reconcile.Request) {
	list := &v1alpha1.WebhookDispatcherList{}
	if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "could not list the dispatchers that an approval concerns")
		return nil
	}
	for i := range list.Items {
		if list.Items[i].Spec.Egress.Approval == v1alpha1.ApprovalRequired {
			requests = append(requests, r.deliveredBy(ctx, &list.Items[i])...)
		}
	}
	return requests
}
