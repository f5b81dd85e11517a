package replay

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// awaited is how long after its creation a replay waits for a subscription: both may be applied at once.
const awaited = time.Minute

// observation is all that the status of a replay follows from.
type observation struct {
	replay *v1alpha1.WebhookReplay
	// subscriptions are those that are selected, now if nothing was selected before.
	subscriptions []v1alpha1.ReplaySubscription
	// tooMany is set if more are selected than there may be.
	tooMany bool
	// missing are the dispatchers of them that do not exist.
	missing []string
	now     time.Time
}

// decided are the types of the conditions that decide returns. Those that it leaves out are to be removed.
var decided = []string{
	v1alpha1.ConditionReady, v1alpha1.ConditionComplete, v1alpha1.ConditionSuspended, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled,
}

// decide is the one place that decides the conditions of a replay.
func decide(o *observation) []metav1.Condition {
	is, reason, message, progress := ready(o)
	complete := metav1.ConditionFalse
	if reason == v1alpha1.ReasonCompleted {
		complete = metav1.ConditionTrue
	}
	suspended, why, how := metav1.ConditionFalse, v1alpha1.ReasonNotSuspended, "spec.suspend is not true"
	if reason == v1alpha1.ReasonSuspended {
		suspended, why, how = metav1.ConditionTrue, reason, message
	}
	conditions := []metav1.Condition{
		{Type: v1alpha1.ConditionReady, Status: is, Reason: reason, Message: message},
		{Type: v1alpha1.ConditionComplete, Status: complete, Reason: reason, Message: message},
		{Type: v1alpha1.ConditionSuspended, Status: suspended, Reason: why, Message: how},
	}
	if progress != "" {
		conditions = append(conditions, metav1.Condition{Type: progress, Status: metav1.ConditionTrue, Reason: reason, Message: message})
	}
	return conditions
}

// ready reports whether nothing is left to do, or to be done now, and why. progress is the condition that tells what is in progress
// from what cannot go on, "" if it is True.
func ready(o *observation) (is metav1.ConditionStatus, reason, message, progress string) {
	yes, no := metav1.ConditionTrue, metav1.ConditionFalse
	r := o.replay
	switch {
	case finished(o):
		return yes, v1alpha1.ReasonCompleted, "all that was selected is done", ""
	case ptr.Deref(r.Spec.Suspend, false):
		return yes, v1alpha1.ReasonSuspended, "spec.suspend is true: it goes on where it stopped once that is false", ""
	case o.tooMany:
		return no, v1alpha1.ReasonTooManySubscriptions, fmt.Sprintf("spec.selector selects more than %d subscriptions: create several WebhookReplays", maxSubscriptions), v1alpha1.ConditionStalled
	case len(o.subscriptions) == 0:
		progress = v1alpha1.ConditionReconciling
		if !o.now.Before(r.CreationTimestamp.Add(awaited)) {
			progress = v1alpha1.ConditionStalled
		}
		return no, v1alpha1.ReasonSubscriptionNotFound, "no WebhookSubscription of this namespace is selected", progress
	case len(o.missing) > 0:
		return no, v1alpha1.ReasonDispatcherNotFound, fmt.Sprintf("there is no WebhookDispatcher %s, which delivers to a selected subscription", o.missing[0]), v1alpha1.ConditionStalled
	}
	reason, message = works(o)
	return no, reason, message, v1alpha1.ConditionReconciling
}

// works returns what the dispatchers do, of which the first that waits is named.
func works(o *observation) (reason, message string) {
	reason, message = v1alpha1.ReasonReplaying, "deliveries are made pending again"
	if o.replay.Spec.Action == v1alpha1.ActionCancel {
		reason, message = v1alpha1.ReasonCancelling, "planned deliveries are cancelled"
	}
	for _, name := range dispatchersOf(o.subscriptions) {
		p := progressOf(&o.replay.Status, name)
		switch {
		case p == nil:
			return v1alpha1.ReasonPending, "dispatcher " + name + " has not begun: a namespace's replays run one after the other"
		case p.State == v1alpha1.ReplaySuspended:
			return v1alpha1.ReasonPending, "dispatcher " + name + " is about to go on"
		case p.State == v1alpha1.ReplayWaiting && p.Reason == v1alpha1.ReasonQuotaExceeded:
			return p.Reason, "dispatcher " + name + " waits until the namespace's quota of pending deliveries has room"
		case p.State == v1alpha1.ReplayWaiting:
			return v1alpha1.ReasonStoreUnavailable, "dispatcher " + name + " waits for its store: see its condition StoreReady"
		case p.State == v1alpha1.ReplayCounting:
			reason, message = v1alpha1.ReasonCounting, "what is selected is counted"
		}
	}
	return reason, message
}

// finished reports whether every dispatcher is. It stays so.
func finished(o *observation) bool {
	if meta.IsStatusConditionTrue(o.replay.Status.Conditions, v1alpha1.ConditionComplete) {
		return true
	}
	for _, name := range dispatchersOf(o.replay.Status.Subscriptions) {
		if p := progressOf(&o.replay.Status, name); p == nil || p.State != v1alpha1.ReplayFinished {
			return false
		}
	}
	return len(o.replay.Status.Subscriptions) > 0
}

// dispatchersOf are the dispatchers of subscriptions, each once.
func dispatchersOf(subscriptions []v1alpha1.ReplaySubscription) (all []string) {
	for i := range subscriptions {
		if name := subscriptions[i].Dispatcher; !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// progressOf is what a dispatcher says; nil if it said nothing yet.
func progressOf(status *v1alpha1.WebhookReplayStatus, name string) *v1alpha1.ReplayProgress {
	for i := range status.Dispatchers {
		if status.Dispatchers[i].Name == name {
			return &status.Dispatchers[i]
		}
	}
	return nil
}

// fields are those of the status that are the manager's. Dispatchers write the others.
type fields struct {
	ObservedGeneration int64                         `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition            `json:"conditions,omitempty"`
	Subscriptions      []v1alpha1.ReplaySubscription `json:"subscriptions,omitempty"`
	Selected           *int64                        `json:"selected,omitempty"`
	Done               *int64                        `json:"done,omitempty"`
	PassedOver         *int64                        `json:"passedOver,omitempty"`
	Remaining          *int64                        `json:"remaining,omitempty"`
	StartTime          *metav1.Time                  `json:"startTime,omitempty"`
	CompletionTime     *metav1.Time                  `json:"completionTime,omitempty"`
}

// sum returns what the dispatchers counted, nil before the first has counted.
func sum(status *v1alpha1.WebhookReplayStatus, subscriptions []v1alpha1.ReplaySubscription) (selected, done, passedOver, remaining *int64) {
	for _, name := range dispatchersOf(subscriptions) {
		p := progressOf(status, name)
		if p == nil || p.Selected == nil {
			continue
		}
		if selected == nil {
			selected, done, passedOver, remaining = new(int64), new(int64), new(int64), new(int64)
		}
		n, did, passed := *p.Selected, ptr.Deref(p.Done, 0), ptr.Deref(p.PassedOver, 0)
		*selected += n
		*done += did
		*passedOver += passed
		*remaining += max(0, n-did-passed)
	}
	return selected, done, passedOver, remaining
}
