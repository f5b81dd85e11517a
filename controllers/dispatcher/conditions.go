package dispatcher

import (
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// observation is what conditions follow from.
type observation struct {
	dispatcher *v1alpha1.WebhookDispatcher
	claim      *corev1.PersistentVolumeClaim // as it was before this round, nil if there was none, or none is wanted
	connection connection                    // what the Secrets of a database's connection amount to
	deployment *appsv1.Deployment            // nil if there is none yet
	refused    string                        // what the API server said to something that it will not take
}

// accepted tells whether the spec can be carried out.
func accepted(o observation) metav1.Condition {
	for _, check := range []func(observation) (reason, message string, failed bool){
		resourcesAreInvalid, selectorIsInvalid, storeWouldShrink, storageClassChanged, connectionMissing,
	} {
		if reason, message, failed := check(o); failed {
			return condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, reason, message)
		}
	}
	message := "the spec is valid"
	if len(o.dispatcher.Spec.Egress.AllowedCIDRs) > 0 {
		message += "; spec.egress.allowedCIDRs opens its ranges to every tenant: use spec.egress.rules to open them to some namespaces"
	}
	return condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted, message)
}

// ready tells whether the dispatcher runs as its spec says: events are accepted and delivered.
func ready(o observation, accepted metav1.Condition) metav1.Condition {
	if accepted.Status != metav1.ConditionTrue {
		return condition(v1alpha1.ConditionReady, metav1.ConditionFalse, accepted.Reason, accepted.Message)
	}
	for _, check := range []func(observation) (reason, message string, failed bool){
		somethingRefused, noReplicas, storeNotReady, deploymentMissing, podsRefused, rolloutStuck, rolloutUnderWay,
	} {
		if reason, message, failed := check(o); failed {
			return condition(v1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
		}
	}
	return condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "the dispatcher's pods are up")
}

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

func resourcesAreInvalid(o observation) (string, string, bool) {
	if _, err := event.NewCatalog(o.dispatcher.Spec.EventResources...); err != nil {
		return v1alpha1.ReasonInvalidSpec, fmt.Sprintf("spec.eventResources: %v", err), true
	}
	return "", "", false
}

func selectorIsInvalid(o observation) (string, string, bool) {
	spec := &o.dispatcher.Spec
	selectors := map[string]*metav1.LabelSelector{"spec.subscriptions": &spec.Subscriptions.NamespaceSelector}
	for i := range spec.Quotas.Overrides {
		selectors[fmt.Sprintf("spec.quotas.overrides[%d]", i)] = spec.Quotas.Overrides[i].NamespaceSelector
	}
	for i := range spec.Egress.Rules {
		selectors[fmt.Sprintf("spec.egress.rules[%d]", i)] = spec.Egress.Rules[i].NamespaceSelector
	}
	for _, where := range slices.Sorted(maps.Keys(selectors)) {
		if _, err := metav1.LabelSelectorAsSelector(selectors[where]); err != nil {
			return v1alpha1.ReasonInvalidSpec, fmt.Sprintf("%s.namespaceSelector: %v", where, err), true
		}
	}
	return "", "", false
}

func storeWouldShrink(o observation) (string, string, bool) {
	if o.claim == nil {
		return "", "", false
	}
	size, _ := wantedStore(o.dispatcher)
	current := claimSize(o.claim)
	if size.Cmp(current) >= 0 {
		return "", "", false
	}
	return v1alpha1.ReasonStoreImmutable, fmt.Sprintf("spec.store.embedded.size is %s, but PersistentVolumeClaim %s has %s, and a volume cannot shrink: set the size back to %s",
		size.String(), o.claim.Name, current.String(), current.String()), true
}

func storageClassChanged(o observation) (string, string, bool) {
	_, class := wantedStore(o.dispatcher)
	if o.claim == nil || class == "" {
		return "", "", false
	}
	if existing := o.claim.Spec.StorageClassName; existing != nil && *existing == class {
		return "", "", false
	}
	return v1alpha1.ReasonStoreImmutable, fmt.Sprintf("spec.store.embedded.storageClassName is %q, but PersistentVolumeClaim %s has another class, which cannot be changed: set it back, or delete the claim and the events on it",
		class, o.claim.Name), true
}

func connectionMissing(o observation) (string, string, bool) {
	return o.connection.reason, o.connection.message, o.connection.reason != ""
}

func somethingRefused(o observation) (string, string, bool) {
	return v1alpha1.ReasonNotReady, o.refused, o.refused != ""
}

func noReplicas(o observation) (string, string, bool) {
	return v1alpha1.ReasonSuspended, "spec.replicas is 0: no events are accepted or delivered", replicas(o.dispatcher) == 0
}

// storeNotReady is what the pods have to say. They go before what keeps them from becoming ready: it is the cause.
func storeNotReady(o observation) (string, string, bool) {
	store := meta.FindStatusCondition(o.dispatcher.Status.Conditions, v1alpha1.ConditionStoreReady)
	if store == nil || store.Status != metav1.ConditionFalse {
		return "", "", false
	}
	return store.Reason, "the store is not ready: " + store.Message, true
}

func deploymentMissing(o observation) (string, string, bool) {
	return v1alpha1.ReasonPending, "the Deployment is being created", o.deployment == nil
}

func podsRefused(o observation) (string, string, bool) {
	for _, c := range o.deployment.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return v1alpha1.ReasonNotReady, "no pod can be created: " + c.Message, true
		}
	}
	return "", "", false
}

func rolloutStuck(o observation) (string, string, bool) {
	for _, c := range o.deployment.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse {
			return v1alpha1.ReasonNotReady, "the pods do not become ready: " + inspect(o.dispatcher), true
		}
	}
	return "", "", false
}

func rolloutUnderWay(o observation) (string, string, bool) {
	wanted, status := replicas(o.dispatcher), o.deployment.Status
	if status.ObservedGeneration >= o.deployment.Generation && status.UpdatedReplicas >= wanted && status.AvailableReplicas >= wanted && status.Replicas <= wanted {
		return "", "", false
	}
	return v1alpha1.ReasonPending, "waiting for the pods to become ready: " + inspect(o.dispatcher), true
}

// inspect is how to see what keeps the pods.
func inspect(d *v1alpha1.WebhookDispatcher) string {
	return "see kubectl describe deployment,pods --namespace " + d.Namespace + " --selector " + names.InstanceLabel + "=" + d.Name
}
