package subscription

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// verdict is what was decided about a subscription.
type verdict struct {
	rejection *routing.Rejection // nil if it is accepted
	endpoint  string             // scheme, host and port; "" if it cannot be told
	hint      string             // when its client certificate ends, and what it still lacks to be delivered, as far as known
	keys      []v1alpha1.SigningKey
}

// service is what a subscription's dispatcher does for it.
type service uint8

const (
	serving   service = iota // it takes events and delivers them, or nobody knows better
	down                     // it takes and delivers nothing, for longer than the hold-off
	stopped                  // spec.replicas is 0
	unsettled                // it changed within the hold-off
	missing                  // there is none
)

// HoldOff is how long a dispatcher is available, or is not, before its subscriptions say so: a restart that ends sooner
// costs no write of a subscription. See docs/adr/0006.
const HoldOff = 30 * time.Second

// serviceOf is what a dispatcher, nil if there is none, does at the given time. The second result is how long that holds if
// nothing changes, 0 if for good.
func serviceOf(d *v1alpha1.WebhookDispatcher, now time.Time) (service, time.Duration) {
	if d == nil || !d.DeletionTimestamp.IsZero() {
		return missing, 0
	}
	available := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionAvailable)
	if available == nil || available.Status == metav1.ConditionUnknown {
		return serving, 0
	}
	if available.Reason == v1alpha1.ReasonSuspended { // somebody wanted it, and it is no blink
		return stopped, 0
	}
	if left := HoldOff - now.Sub(available.LastTransitionTime.Time); left > 0 {
		return unsettled, min(left, HoldOff)
	}
	if available.Status == metav1.ConditionTrue {
		return serving, 0
	}
	return down, 0
}

// observation is all that the conditions of a subscription follow from.
type observation struct {
	verdict    verdict
	dispatcher v1alpha1.DispatcherReference
	service    service
	suspended  bool
	pull       bool
	generation int64
	awaited    bool // the dispatcher has yet to take over what its table has of the subscription
	gone       bool // the endpoint of this generation answered 410
	marked     bool // the status says already that the dispatcher is not available
}

// observe puts together what is seen of a subscription. d is nil if there is none.
func observe(sub *v1alpha1.WebhookSubscription, v verdict, d *v1alpha1.WebhookDispatcher, awaited bool, now time.Time) observation {
	o := observation{
		verdict: v, dispatcher: sub.Spec.DispatcherRef, generation: sub.Generation,
		awaited:   awaited,
		suspended: sub.Spec.Suspend != nil && *sub.Spec.Suspend,
		pull:      sub.Spec.Delivery.Mode == v1alpha1.DeliveryPull,
		marked:    marked(sub),
	}
	o.service, _ = serviceOf(d, now)
	healthy := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionEndpointHealthy)
	o.gone = healthy != nil && healthy.ObservedGeneration == sub.Generation &&
		healthy.Status != metav1.ConditionTrue && healthy.Reason == v1alpha1.ReasonGone
	return o
}

// unavailable are the reasons of Ready that follow from the dispatcher alone.
var unavailable = []string{v1alpha1.ReasonDispatcherUnavailable, v1alpha1.ReasonDispatcherSuspended}

// marked reports whether a subscription's status says that its dispatcher is not available.
func marked(sub *v1alpha1.WebhookSubscription) bool {
	ready := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && slices.Contains(unavailable, ready.Reason)
}

// decided are the types of the conditions that decide returns. Those that it leaves out are to be removed.
var decided = []string{
	v1alpha1.ConditionAccepted, v1alpha1.ConditionProgrammed, v1alpha1.ConditionReady,
	v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled,
}

// decide is the one place that decides the conditions of a subscription, but for EndpointHealthy, which its dispatcher
// knows. Messages hold nothing that changes while the state does not.
func decide(o observation) []metav1.Condition {
	conditions := []metav1.Condition{accepted(o), programmed(o)}
	ready, progress := ready(o, conditions[1])
	conditions = append(conditions, ready)
	if progress != "" {
		conditions = append(conditions, condition(progress, metav1.ConditionTrue, ready.Reason, ready.Message))
	}
	return conditions
}

func accepted(o observation) metav1.Condition {
	if r := o.verdict.rejection; r != nil {
		return condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, r.Reason, r.Message)
	}
	message := "the spec is valid and its Secrets were found"
	if o.verdict.hint != "" {
		message += "; " + o.verdict.hint
	}
	return condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted, message)
}

// programmed is True if the dispatcher works by this generation, and is there to do so.
func programmed(o observation) metav1.Condition {
	is := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return condition(v1alpha1.ConditionProgrammed, status, reason, message)
	}
	switch {
	case o.service == missing:
		return is(metav1.ConditionFalse, v1alpha1.ReasonDispatcherNotFound, fmt.Sprintf("there is no %s", named(o)))
	case o.verdict.rejection != nil && o.awaited: // it is delivered as before until the dispatcher says otherwise
		return is(metav1.ConditionUnknown, v1alpha1.ReasonPending, fmt.Sprintf("not accepted; waiting for %s to hold the deliveries", named(o)))
	case o.verdict.rejection != nil:
		return is(metav1.ConditionFalse, v1alpha1.ReasonWaiting, "not accepted: events go on matching by the last valid spec, and their deliveries wait")
	case o.service == stopped:
		return is(metav1.ConditionFalse, v1alpha1.ReasonDispatcherSuspended, fmt.Sprintf("%s is suspended: its spec.replicas is 0", named(o)))
	case o.awaited:
		return is(metav1.ConditionUnknown, v1alpha1.ReasonPending, fmt.Sprintf("waiting for %s to take up this generation; see its condition Available", named(o)))
	case isDown(o):
		return is(metav1.ConditionFalse, v1alpha1.ReasonDispatcherUnavailable, fmt.Sprintf("%s is not available; see its condition Available", named(o)))
	default:
		return is(metav1.ConditionTrue, v1alpha1.ReasonProgrammed, "every live pod of the dispatcher works by this generation")
	}
}

// isDown reports whether the dispatcher is to be called unavailable. Within the hold-off, what was said stands.
func isDown(o observation) bool {
	return o.service == down || o.service == unsettled && o.marked
}

func named(o observation) string {
	return fmt.Sprintf("WebhookDispatcher %s in namespace %s", o.dispatcher.Name, o.dispatcher.Namespace)
}

// ready sums up: True means that an event published now would be delivered, or kept until spec.suspend ends. The second
// result is the condition that tells one in progress from one that failed, "" if it is True.
func ready(o observation, programmed metav1.Condition) (metav1.Condition, string) {
	is := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return condition(v1alpha1.ConditionReady, status, reason, message)
	}
	switch r := o.verdict.rejection; {
	case r != nil && passes(r.Reason):
		return is(metav1.ConditionFalse, r.Reason, r.Message), v1alpha1.ConditionReconciling
	case r != nil:
		return is(metav1.ConditionFalse, r.Reason, r.Message), v1alpha1.ConditionStalled
	case programmed.Status != metav1.ConditionTrue:
		return is(programmed.Status, programmed.Reason, programmed.Message), v1alpha1.ConditionReconciling
	case o.gone && !o.pull:
		return is(metav1.ConditionFalse, v1alpha1.ReasonGone, "the endpoint answered 410 Gone: deliveries wait until the spec is changed, or a value that it takes from a Secret"), v1alpha1.ConditionStalled
	case o.suspended:
		return is(metav1.ConditionTrue, v1alpha1.ReasonSuspended, "events match, and their deliveries wait until spec.suspend is false"), ""
	case o.pull:
		return is(metav1.ConditionTrue, v1alpha1.ReasonReady, "events are kept until the consumer pulls and acknowledges them"), ""
	default:
		return is(metav1.ConditionTrue, v1alpha1.ReasonReady, "events are delivered"), ""
	}
}

// passes reports whether a rejection is for another object that is not there yet: GitOps tools apply, and operators create,
// Secrets, Services and approvals after what names them. Every other one waits for someone.
func passes(reason string) bool {
	switch reason {
	case v1alpha1.ReasonSecretNotFound, v1alpha1.ReasonSecretKeyMissing,
		v1alpha1.ReasonConfigMapNotFound, v1alpha1.ReasonConfigMapKeyMissing, v1alpha1.ReasonDispatcherNotFound,
		v1alpha1.ReasonServiceNotFound, v1alpha1.ReasonServicePortMissing, v1alpha1.ReasonNotApproved:
		return true
	default:
		return false
	}
}

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}
