package view

import (
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/kube"
)

// stateWords name the states of subscriptions.
var stateWords = map[string]string{
	kube.StateFailing:     "Failing",
	kube.StateNotAccepted: "Not accepted",
	kube.StatePending:     "Pending",
	kube.StateSuspended:   "Suspended",
	kube.StateReady:       "Ready",
}

// tones are the colours of states, of subscriptions and of deliveries.
var tones = map[string]string{
	kube.StateFailing: "bad", kube.StateNotAccepted: "bad", kube.StatePending: "wait", kube.StateSuspended: "off", kube.StateReady: "good",
	deliveries.Failed: "bad", deliveries.Pending: "wait", deliveries.Scheduled: "plan", deliveries.Delivered: "good", deliveries.Cancelled: "off",
}

func tone(state string) string {
	if t := tones[state]; t != "" {
		return t
	}
	return "off"
}

func word(state string) string {
	if w := stateWords[state]; w != "" {
		return w
	}
	return Shown(state)
}

// reasonWords say in a sentence what a condition's reason means for a user, and what to do.
var reasonWords = map[string]string{
	v1alpha1.ReasonAccepted:              "The spec is valid and everything that it names was found.",
	v1alpha1.ReasonProgrammed:            "Every pod of the dispatcher delivers by this version of the spec.",
	v1alpha1.ReasonReady:                 "An event published now is delivered.",
	v1alpha1.ReasonDelivering:            "The endpoint takes deliveries.",
	v1alpha1.ReasonNoAttempts:            "Nothing was sent yet. Send a test event to see the endpoint's answer.",
	v1alpha1.ReasonLastFailed:            "The last attempt failed. It is repeated by the retry policy.",
	v1alpha1.ReasonCircuitOpen:           "Ten or more attempts in a row failed. Deliveries go one at a time until one succeeds.",
	v1alpha1.ReasonGone:                  "The endpoint answered 410 Gone, and deliveries stopped. Change the URL or the spec to go on.",
	v1alpha1.ReasonSuspended:             "It is suspended: events still match, and their deliveries wait and age.",
	v1alpha1.ReasonPending:               "The dispatcher has not said yet that it delivers by this version.",
	v1alpha1.ReasonWaiting:               "Deliveries wait until the spec is accepted. Events go on matching by the last valid spec.",
	v1alpha1.ReasonSecretNotFound:        "A Secret that the spec names does not exist. Create it, and delivery goes on by itself.",
	v1alpha1.ReasonSecretKeyMissing:      "A Secret lacks the key that the spec names.",
	v1alpha1.ReasonSecretKeyInvalid:      "A signing key cannot be used: it has 24 to 512 bytes, without white space around it.",
	v1alpha1.ReasonInvalidURL:            "The URL cannot be used.",
	v1alpha1.ReasonInvalidFilter:         "The filter does not compile.",
	v1alpha1.ReasonInvalidSchedule:       "The schedule does not compile.",
	v1alpha1.ReasonInvalidTransform:      "The transform does not compile.",
	v1alpha1.ReasonHTTPNotAllowed:        "The dispatcher allows https only.",
	v1alpha1.ReasonDispatcherNotFound:    "There is no dispatcher of that name.",
	v1alpha1.ReasonDispatcherUnavailable: "The dispatcher takes and delivers nothing right now.",
	v1alpha1.ReasonDispatcherSuspended:   "The dispatcher is scaled to zero.",
	v1alpha1.ReasonEvaluated:             "No evaluation failed lately.",
	v1alpha1.ReasonStoreReady:            "The store takes events.",
	v1alpha1.ReasonAvailable:             "Events are taken and delivered.",
	v1alpha1.ReasonNoPodReady:            "No pod is ready: nothing is taken or delivered.",
}

// attemptWords say why an attempt failed, or a delivery ended.
var attemptWords = map[string]string{
	"StatusCode":           "the endpoint answered something other than 2xx",
	"Timeout":              "no answer in time",
	"ConnectionRefused":    "nobody listens at the address",
	"ConnectionReset":      "the connection broke",
	"Unreachable":          "there is no way to the address",
	"NameNotFound":         "DNS has no such name",
	"AddressNotAllowed":    "the dispatcher's egress rules do not allow the address",
	"PortNotAllowed":       "the dispatcher's egress rules do not allow the port",
	"HostNotAllowed":       "the dispatcher's egress rules do not allow the host",
	"HTTPNotAllowed":       "the dispatcher allows https only",
	"CertificateExpired":   "the endpoint's certificate has expired",
	"CertificateWrongHost": "the certificate does not name the host",
	"CertificateUntrusted": "no trusted authority signed the certificate",
	"ProxyUnreachable":     "nobody answers at the dispatcher's proxy",
	"ProxyRefused":         "the dispatcher's proxy refused",
	"TLSFailed":            "the TLS handshake failed",
	"TransformFailed":      "the request could not be made of the event",
	"LookupFailed":         "the lookup's document could not be read",
	"AuthFailed":           "no access token could be had",
	"NotSuccess":           "the subscription's outcome rule says no",
	"Interrupted":          "the dispatcher stopped first",
	"SubscriptionDeleted":  "the subscription was deleted",
	"Replaced":             "a later event replaced it",
	"CancelledByEvent":     "a later event cancelled it",
	"Past":                 "its planned time had passed",
	"Recheck":              "the check just before sending said no",
	"ByUser":               "a user cancelled it",
	"Erased":               "its data was erased",
}

func meaning(reason string) string {
	if w := reasonWords[reason]; w != "" {
		return w
	}
	return attemptWords[reason]
}

// conditionWords name the conditions as questions that a user has.
var conditionWords = map[string]string{
	v1alpha1.ConditionReady:            "Delivers",
	v1alpha1.ConditionAccepted:         "Spec",
	v1alpha1.ConditionProgrammed:       "Dispatcher",
	v1alpha1.ConditionEndpointHealthy:  "Endpoint",
	v1alpha1.ConditionFilterHealthy:    "Filter",
	v1alpha1.ConditionScheduleHealthy:  "Schedule",
	v1alpha1.ConditionTransformHealthy: "Transform",
	v1alpha1.ConditionAvailable:        "Serves",
	v1alpha1.ConditionStoreReady:       "Store",
}

func conditionTone(status string) string {
	switch status {
	case "True":
		return "good"
	case "False":
		return "bad"
	}
	return "wait"
}
