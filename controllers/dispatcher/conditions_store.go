package dispatcher

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// storeMessages say what each reason that pods report of their store means, and what to do.
var storeMessages = map[string]string{
	v1alpha1.ReasonStoreReady:          "the store takes events",
	v1alpha1.ReasonStoreFull:           "too little space is left; events are refused until there is more: grow the volume, or shorten the retention",
	v1alpha1.ReasonStoreReadOnly:       "the database takes no writes: it is a standby, or was made read-only; events are refused until it takes them",
	v1alpha1.ReasonDatabaseTooOld:      "the database server is too old: want PostgreSQL 15 or newer",
	v1alpha1.ReasonSchemaNewer:         "a newer Event Flow has migrated the database: run that version",
	v1alpha1.ReasonSchemaNotMigrated:   "the database's schema could not be made or brought up to date; its user may lack the right to create tables: see the dispatcher's log",
	v1alpha1.ReasonDatabaseUnreachable: "the database does not answer; publishes get 503 until it does: see the dispatcher's log",
	v1alpha1.ReasonStoreLocked:         "another process has the store on the volume open: find the other pod that uses the claim, and stop it",
	v1alpha1.ReasonStoreDamaged:        "a file of the store on the volume cannot be read: see the dispatcher's log, and restore the volume from a snapshot",
	v1alpha1.ReasonStoreNewer:          "a newer Event Flow wrote the store on the volume: run that version",
	v1alpha1.ReasonStoreNotOpen:        "the store on the volume cannot be opened; its files may belong to another user: see the dispatcher's log",
}

// storeReady follows what the pods said of their store last, while there are pods to stand by it.
func storeReady(o observation) metav1.Condition {
	is := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return condition(v1alpha1.ConditionStoreReady, status, reason, message)
	}
	reported := o.dispatcher.Status.Store.Reason
	message := storeMessages[reported]
	if message == "" { // of a newer or an older version
		message = "see the dispatcher's log"
	}
	switch {
	case isSuspended(o):
		return is(metav1.ConditionUnknown, v1alpha1.ReasonSuspended, "spec.replicas is 0: no pod has the store open")
	case reported == "":
		return is(metav1.ConditionUnknown, v1alpha1.ReasonPending, "no pod has said anything of its store yet")
	case reported != v1alpha1.ReasonStoreReady:
		return is(metav1.ConditionFalse, reported, message)
	case isObserved(o) && o.deployment.Status.ReadyReplicas == 0:
		return is(metav1.ConditionUnknown, v1alpha1.ReasonNoPodReady, "the store took events, but no pod is ready now that could say so")
	default:
		return is(metav1.ConditionTrue, v1alpha1.ReasonStoreReady, message)
	}
}

// available reports whether events are taken and delivered now, by whatever pods there are.
func available(o observation, store metav1.Condition) metav1.Condition {
	is := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return condition(v1alpha1.ConditionAvailable, status, reason, message)
	}
	switch {
	case isSuspended(o):
		return is(metav1.ConditionFalse, v1alpha1.ReasonSuspended, suspendedMessage)
	case store.Status == metav1.ConditionFalse:
		return is(metav1.ConditionFalse, store.Reason, "the store is not ready: "+store.Message)
	case isObserved(o) && o.deployment.Status.ReadyReplicas == 0:
		return is(metav1.ConditionFalse, v1alpha1.ReasonNoPodReady, "no pod is ready: "+inspect(o.dispatcher))
	case !isObserved(o) && store.Status != metav1.ConditionTrue:
		return is(metav1.ConditionUnknown, v1alpha1.ReasonPending, "no pod has said anything yet")
	default:
		return is(metav1.ConditionTrue, v1alpha1.ReasonAvailable, "events are accepted and delivered")
	}
}

// isObserved reports whether Kubernetes has looked at the Deployment. Where nothing does, as in make run, what the
// dispatcher says is all there is to know.
func isObserved(o observation) bool {
	return o.deployment != nil && o.deployment.Status.ObservedGeneration > 0
}
