package dispatcher

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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
	fixed      string                        // what it said to a change of the claim that it will not take
	version    string                        // of Event Flow that the pods are to run; "" if that is not known
	grant      string                        // how to let the manager make dispatchers here, "" if it may
	settings   int64                         // the generation that the settings of now came with; 0 if that is the dispatcher's
	// certificateMissing keeps the pods as they are: they could not start.
	certificateMissing    bool
	publishURL, publishCA string // of the publish API; "" as long as that is not known
	kept                  bool   // plain http goes on beside https, because it was there before
	renewing              bool   // the volume, which never held an event, is being replaced
}

// decided are the types of the conditions that decide returns. Those that it leaves out are to be removed.
var decided = []string{
	v1alpha1.ConditionAccepted, v1alpha1.ConditionAvailable, v1alpha1.ConditionStoreReady, v1alpha1.ConditionReady,
	v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled,
}

// decide is the one place that decides the conditions of a dispatcher.
func decide(o observation) []metav1.Condition {
	accepted, store := accepted(o), storeReady(o)
	available := available(o, store)
	ready, progress := ready(o, accepted, store)
	conditions := []metav1.Condition{accepted, available, store, ready}
	if progress != "" {
		conditions = append(conditions, condition(progress, metav1.ConditionTrue, ready.Reason, ready.Message))
	}
	return conditions
}

// accepted reports whether the spec can be carried out. What a store cannot become is ignored, and said.
func accepted(o observation) metav1.Condition {
	for _, check := range []func(observation) (reason, message string, failed bool){
		namespaceNotGranted, resourcesAreInvalid, settingsAreInvalid, selectorIsInvalid, storeKindChanged, connectionMissing,
	} {
		if reason, message, failed := check(o); failed {
			return condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, reason, message)
		}
	}
	reason, message := v1alpha1.ReasonAccepted, "the spec is valid"
	if ignored := storeIgnores(o); len(ignored) > 0 {
		reason, message = v1alpha1.ReasonStoreImmutable, "the spec is valid, but for what is ignored: "+strings.Join(ignored, "; ")
	}
	if len(o.dispatcher.Spec.Egress.AllowedCIDRs) > 0 {
		message += "; spec.egress.allowedCIDRs opens its ranges to every tenant: use spec.egress.rules to open them to some namespaces"
	}
	if o.kept {
		message += "; producers may still publish without TLS, on port 80, as they could before: let them use https, and set spec.ingest.tls.mode to Required"
	}
	return condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, reason, message)
}

// ready reports whether the dispatcher runs as its spec says. The second result is the condition that tells one in
// progress from one that failed, "" if it is True.
func ready(o observation, accepted, store metav1.Condition) (metav1.Condition, string) {
	is := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return condition(v1alpha1.ConditionReady, status, reason, message)
	}
	if accepted.Status != metav1.ConditionTrue {
		return is(metav1.ConditionFalse, accepted.Reason, accepted.Message), progressOf(accepted.Reason)
	}
	if reason, message, failed := storeBeingRenewed(o); failed {
		return is(metav1.ConditionFalse, reason, message), v1alpha1.ConditionReconciling
	}
	if reason, message, failed := somethingRefused(o); failed {
		return is(metav1.ConditionFalse, reason, message), v1alpha1.ConditionStalled
	}
	if isSuspended(o) {
		return is(metav1.ConditionTrue, v1alpha1.ReasonSuspended, suspendedMessage), ""
	}
	if store.Status == metav1.ConditionFalse { // before what keeps the pods from becoming ready: it is the cause
		return is(metav1.ConditionFalse, store.Reason, "the store is not ready: "+store.Message), progressOf(store.Reason)
	}
	for _, check := range []struct {
		failed   func(observation) (reason, message string, failed bool)
		progress string
	}{
		{deploymentMissing, v1alpha1.ConditionReconciling},
		{podsRefused, v1alpha1.ConditionStalled},
		{rolloutStuck, v1alpha1.ConditionStalled},
		{rolloutUnderWay, v1alpha1.ConditionReconciling},
		{settingsBehind, v1alpha1.ConditionReconciling},
		{otherVersion, v1alpha1.ConditionReconciling},
	} {
		if reason, message, failed := check.failed(o); failed {
			return is(metav1.ConditionFalse, reason, message), check.progress
		}
	}
	return is(metav1.ConditionTrue, v1alpha1.ReasonReady, "the dispatcher's pods are up"), ""
}

// progressOf is Reconciling for what passes by itself or with another object, Stalled for what waits for someone.
func progressOf(reason string) string {
	switch reason {
	case v1alpha1.ReasonSecretNotFound, v1alpha1.ReasonSecretKeyMissing,
		v1alpha1.ReasonDatabaseUnreachable, v1alpha1.ReasonStoreReadOnly, v1alpha1.ReasonStoreLocked:
		return v1alpha1.ConditionReconciling
	default:
		return v1alpha1.ConditionStalled
	}
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

// settingsAreInvalid is a spec by which no pod could work: it passed a schema of another version.
func settingsAreInvalid(o observation) (string, string, bool) {
	if err := settingsOf(o.dispatcher).Check(); err != nil {
		return v1alpha1.ReasonInvalidSpec, fmt.Sprintf("the spec cannot be worked by: %v", err), true
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

// storeIgnores says what of spec.store an existing claim cannot become.
func storeIgnores(o observation) (ignored []string) {
	if o.claim == nil {
		return nil
	}
	size, class := wantedStore(o.dispatcher)
	if current := claimSize(o.claim); size.Cmp(current) < 0 {
		ignored = append(ignored, fmt.Sprintf("spec.store.embedded.size is %s, but PersistentVolumeClaim %s has %s, and a volume cannot shrink: set the size to %s",
			size.String(), o.claim.Name, current.String(), current.String()))
	}
	if existing := o.claim.Spec.StorageClassName; class != "" && (existing == nil || *existing != class) {
		ignored = append(ignored, fmt.Sprintf("spec.store.embedded.storageClassName is %q, but PersistentVolumeClaim %s has another class, which cannot be changed: set it back, or delete the claim and the events on it",
			class, o.claim.Name))
	}
	if mode, existing := accessMode(o.dispatcher), accessModeOf(o.claim); mode != existing {
		ignored = append(ignored, fmt.Sprintf("spec.store.embedded.accessMode is %s, but PersistentVolumeClaim %s has %s, which cannot be changed: set it to %s",
			mode, o.claim.Name, existing, existing))
	}
	if o.fixed != "" {
		ignored = append(ignored, "spec.store.embedded.size, because the API server does not let the claim grow: "+o.fixed)
	}
	return ignored
}

func connectionMissing(o observation) (string, string, bool) {
	return o.connection.reason, o.connection.message, o.connection.reason != ""
}

func somethingRefused(o observation) (string, string, bool) {
	return v1alpha1.ReasonNotReady, o.refused, o.refused != ""
}

const suspendedMessage = "spec.replicas is 0: no events are accepted or delivered"

func isSuspended(o observation) bool { return replicas(o.dispatcher) == 0 }

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

// otherVersion is so after an upgrade of the manager, until the pods that run it have said so.
func otherVersion(o observation) (string, string, bool) {
	runs := o.dispatcher.Status.Version
	if o.version == "" || runs == "" || runs == o.version {
		return "", "", false
	}
	return v1alpha1.ReasonProgressing, fmt.Sprintf("the pods run version %s, and are being replaced with version %s", runs, o.version), true
}

// settingsBehind is a change of the spec that the pods have not taken over yet. Pods that never said what they took over
// are of an earlier version, and about to be replaced.
func settingsBehind(o observation) (string, string, bool) {
	inForce := o.dispatcher.Status.SettingsGeneration
	return v1alpha1.ReasonPending, "waiting for the pods to take the change over: " + inspect(o.dispatcher), inForce != 0 && inForce < cmp.Or(o.settings, o.dispatcher.Generation)
}

// inspect is how to see what keeps the pods.
func inspect(d *v1alpha1.WebhookDispatcher) string {
	return "see kubectl describe deployment,pods --namespace " + d.Namespace + " --selector " + names.InstanceLabel + "=" + d.Name
}
