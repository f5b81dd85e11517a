package deliveriesapi

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/dispatcher"
)

// asking are the dispatchers whose spec asks for the API, the oldest first. One that is being deleted does not ask.
func asking(all []v1alpha1.WebhookDispatcher) (asks []*v1alpha1.WebhookDispatcher) {
	for i := range all {
		if d := &all[i]; d.DeletionTimestamp.IsZero() && dispatcher.AsksForDeliveries(d) {
			asks = append(asks, d)
		}
	}
	slices.SortFunc(asks, func(a, b *v1alpha1.WebhookDispatcher) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return asks
}

// answer is what a dispatcher's condition says.
type answer struct {
	status          metav1.ConditionStatus
	reason, message string
}

func no(reason, message string) answer { return answer{metav1.ConditionFalse, reason, message} }

// choose returns the dispatcher whose API is to be registered, nil if that is none, and says to the others why it is not theirs.
// allowed reports whether the manager may at all; ending, whether a namespace is being deleted.
func choose(asks []*v1alpha1.WebhookDispatcher, allowed bool, ending func(namespace string) bool) (chosen *v1alpha1.WebhookDispatcher, others map[client.ObjectKey]answer) {
	others = make(map[client.ObjectKey]answer)
	for _, d := range asks {
		a, refused := refuse(d, allowed, ending)
		switch {
		case refused:
		case chosen == nil:
			chosen = d
			continue
		default:
			a = no(v1alpha1.ReasonServedByAnother, "the cluster has one deliveries API, and WebhookDispatcher "+client.ObjectKeyFromObject(chosen).String()+" is older and asks for it, too")
		}
		others[client.ObjectKeyFromObject(d)] = a
	}
	return chosen, others
}

// refuse reports whether a dispatcher cannot have the API, whoever else asks.
func refuse(d *v1alpha1.WebhookDispatcher, allowed bool, ending func(namespace string) bool) (answer, bool) {
	accepted := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionAccepted)
	switch {
	case !allowed:
		return no(v1alpha1.ReasonDeliveriesAPIOff, "the manager runs without --deliveries-api: apply config/components/deliveries-api"), true
	case ending(d.Namespace):
		return no(v1alpha1.ReasonTerminating, "its namespace, or the manager's, is being deleted"), true
	case accepted == nil:
		return no(v1alpha1.ReasonPending, "nothing was made of the dispatcher yet"), true
	case accepted.Reason == v1alpha1.ReasonNamespaceNotGranted: // any other reason leaves the pods as they are
		return no(accepted.Reason, "the manager may not make dispatchers in this namespace: see the condition Accepted"), true
	case ptr.Deref(d.Spec.Replicas, 1) == 0:
		return no(v1alpha1.ReasonSuspended, "spec.replicas is 0"), true
	}
	return answer{}, false
}
