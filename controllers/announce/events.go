package announce

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// The reasons of Events.
const (
	ReasonAccepted          = "Accepted"
	ReasonNotAccepted       = "NotAccepted"
	ReasonEndpointFailing   = "EndpointFailing"
	ReasonEndpointRecovered = "EndpointRecovered"
	ReasonEndpointGone      = "EndpointGone"
	ReasonAvailable         = "Available"
	ReasonUnavailable       = "Unavailable"
	ReasonStoreReady        = "StoreReady"
	ReasonStoreNotReady     = "StoreNotReady"
	ReasonSpecIgnored       = "SpecIgnored"
	ReasonStalled           = "Stalled"
	ReasonVersionChanged    = "VersionChanged"
)

// Event is something to be said of an object.
type Event struct {
	// Type is Normal or Warning.
	Type string
	// Reason in one CamelCase word.
	Reason string
	// Note is a sentence, at most maxNote bytes.
	Note string
}

// maxNote is what events.k8s.io/v1 allows for a note.
const maxNote = 1024

func normal(reason, note string) Event {
	return Event{Type: corev1.EventTypeNormal, Reason: reason, Note: note}
}

func warning(reason string, c metav1.Condition) Event {
	note := c.Reason + ": " + c.Message
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote], "")
	}
	return Event{Type: corev1.EventTypeWarning, Reason: reason, Note: note}
}

// OfSubscription returns what is to be said of a WebhookSubscription that changed.
func OfSubscription(before, after *v1alpha1.WebhookSubscription) []Event {
	old, now := before.Status.Conditions, after.Status.Conditions
	return append(acceptance(old, now), health(get(old, v1alpha1.ConditionEndpointHealthy), get(now, v1alpha1.ConditionEndpointHealthy))...)
}

// OfDispatcher returns what is to be said of a WebhookDispatcher that changed.
func OfDispatcher(before, after *v1alpha1.WebhookDispatcher) []Event {
	old, now := before.Status.Conditions, after.Status.Conditions
	events := acceptance(old, now)
	if was, is := get(old, v1alpha1.ConditionAccepted), get(now, v1alpha1.ConditionAccepted); is.Reason == v1alpha1.ReasonStoreImmutable && was.Reason != is.Reason {
		events = append(events, warning(ReasonSpecIgnored, is))
	}
	switch was, is := get(old, v1alpha1.ConditionStoreReady), get(now, v1alpha1.ConditionStoreReady); {
	case is.Status == metav1.ConditionFalse && is.Reason != was.Reason:
		events = append(events, warning(ReasonStoreNotReady, is))
	case is.Status == metav1.ConditionTrue && was.Status == metav1.ConditionFalse:
		events = append(events, normal(ReasonStoreReady, "the store takes events again"))
	}
	switch was, is := get(old, v1alpha1.ConditionAvailable), get(now, v1alpha1.ConditionAvailable); {
	case is.Status == metav1.ConditionFalse && was.Status == metav1.ConditionTrue:
		events = append(events, warning(ReasonUnavailable, is))
	case is.Status == metav1.ConditionTrue && was.Status == metav1.ConditionFalse:
		events = append(events, normal(ReasonAvailable, "events are accepted and delivered"))
	}
	if was, is := get(old, v1alpha1.ConditionStalled), get(now, v1alpha1.ConditionStalled); is.Status == metav1.ConditionTrue && is.Reason != was.Reason && is.Reason != get(now, v1alpha1.ConditionStoreReady).Reason {
		events = append(events, warning(ReasonStalled, is))
	}
	if was, is := before.Status.Version, after.Status.Version; is != was && was != "" {
		events = append(events, normal(ReasonVersionChanged, "version "+is+" runs, after version "+was))
	}
	return events
}

// acceptance is said of both kinds.
func acceptance(old, now []metav1.Condition) []Event {
	was, is := get(old, v1alpha1.ConditionAccepted), get(now, v1alpha1.ConditionAccepted)
	switch {
	case is.Status == metav1.ConditionFalse && is.Reason != was.Reason:
		return []Event{warning(ReasonNotAccepted, is)}
	case is.Status == metav1.ConditionTrue && was.Status == metav1.ConditionFalse:
		return []Event{normal(ReasonAccepted, "the spec is accepted")}
	default:
		return nil
	}
}

// health is said of an endpoint.
func health(was, is metav1.Condition) []Event {
	switch {
	case is.Reason == was.Reason:
		return nil
	case is.Reason == v1alpha1.ReasonGone:
		return []Event{warning(ReasonEndpointGone, is)}
	case is.Reason == v1alpha1.ReasonCircuitOpen:
		return []Event{warning(ReasonEndpointFailing, is)}
	case is.Status == metav1.ConditionTrue && (was.Reason == v1alpha1.ReasonGone || was.Reason == v1alpha1.ReasonCircuitOpen):
		return []Event{normal(ReasonEndpointRecovered, "the endpoint took a delivery again")}
	default:
		return nil
	}
}

// get returns the condition, or one with nothing in it.
func get(conditions []metav1.Condition, kind string) metav1.Condition {
	if c := meta.FindStatusCondition(conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}
