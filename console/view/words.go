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
	v1alpha1.ReasonAccepted:                 "The spec is valid and everything that it names was found.",
	v1alpha1.ReasonInvalidSpec:              "The spec cannot be carried out.",
	v1alpha1.ReasonInvalidURL:               "The URL cannot be used.",
	v1alpha1.ReasonHTTPNotAllowed:           "The dispatcher allows https only.",
	v1alpha1.ReasonUnknownResource:          "The dispatcher knows no such resource. It may be a typo.",
	v1alpha1.ReasonInvalidPattern:           "A pattern of the events cannot be used.",
	v1alpha1.ReasonInvalidHeader:            "A header cannot be used.",
	v1alpha1.ReasonInvalidFilter:            "The filter does not compile.",
	v1alpha1.ReasonInvalidSchedule:          "The schedule does not compile.",
	v1alpha1.ReasonInvalidLookup:            "The lookup cannot be used.",
	v1alpha1.ReasonInvalidTransform:         "The transform does not compile.",
	v1alpha1.ReasonInvalidAuth:              "The authentication cannot be used.",
	v1alpha1.ReasonInvalidOutcome:           "The outcome rule does not compile.",
	v1alpha1.ReasonSecretNotFound:           "A Secret that the spec names does not exist. Create it, and delivery goes on by itself.",
	v1alpha1.ReasonSecretKeyMissing:         "A Secret lacks the key that the spec names.",
	v1alpha1.ReasonSecretKeyInvalid:         "A value of a Secret cannot be used. A signing key has 24 to 512 bytes, without white space around it.",
	v1alpha1.ReasonConfigMapNotFound:        "A ConfigMap that the spec names does not exist. Create it, and delivery goes on by itself.",
	v1alpha1.ReasonConfigMapKeyMissing:      "A ConfigMap lacks the key that the spec names.",
	v1alpha1.ReasonCertificatesInvalid:      "The certificates to trust cannot be read: they must be in PEM.",
	v1alpha1.ReasonClientCertificateInvalid: "The client certificate or its key cannot be used.",
	v1alpha1.ReasonServiceNotFound:          "The namespace has no Service of that name. Create it, and delivery goes on by itself.",
	v1alpha1.ReasonServicePortMissing:       "The Service has no such port of TCP.",
	v1alpha1.ReasonServiceWithoutAddress:    "The Service is headless. Name one that has a cluster IP.",
	v1alpha1.ReasonServiceNotAllowed:        "The Service leads out of its namespace, or may. Name another, or write a URL.",
	v1alpha1.ReasonHostNotAllowed:           "The dispatcher allows this namespace other hosts only. Name one of them, or have the host allowed.",
	v1alpha1.ReasonNotApproved:              "Nobody has approved the host for this namespace. A WebhookDestination that names it does.",
	v1alpha1.ReasonDispatcherNotFound:       "There is no dispatcher of that name.",
	v1alpha1.ReasonNamespaceNotSelected:     "The dispatcher does not serve this namespace.",
	v1alpha1.ReasonNamespaceNotGranted:      "The manager may not make dispatchers in this namespace.",
	v1alpha1.ReasonSecretNotAllowed:         "A Secret lacks the label that the manager demands.",
	v1alpha1.ReasonRoutingTableFull:         "The dispatcher's routing table is full.",
	v1alpha1.ReasonQuotaExceeded:            "The namespace has as much as its quota allows.",
	v1alpha1.ReasonStoreImmutable:           "The spec of the store names something that cannot be changed.",

	v1alpha1.ReasonProgrammed:            "Every pod of the dispatcher delivers by this version of the spec.",
	v1alpha1.ReasonPending:               "The dispatcher has not said yet that it delivers by this version.",
	v1alpha1.ReasonNoAttempts:            "Nothing was sent yet. Send a test event to see the endpoint's answer.",
	v1alpha1.ReasonPulled:                "The consumer pulls: there is no endpoint to check.",
	v1alpha1.ReasonEvaluated:             "No evaluation failed lately.",
	v1alpha1.ReasonDelivering:            "The endpoint takes deliveries.",
	v1alpha1.ReasonLastFailed:            "The last attempt failed. It is repeated by the retry policy.",
	v1alpha1.ReasonCircuitOpen:           "Ten or more attempts in a row failed. Deliveries go one at a time until one succeeds.",
	v1alpha1.ReasonGone:                  "The endpoint answered 410 Gone, and deliveries stopped. Change the URL or the spec to go on.",
	v1alpha1.ReasonSuspended:             "It is suspended: events still match, and their deliveries wait and age.",
	v1alpha1.ReasonReady:                 "An event published now is delivered.",
	v1alpha1.ReasonNotReady:              "It is not ready.",
	v1alpha1.ReasonWaiting:               "Deliveries wait until the spec is accepted. Events go on matching by the last valid spec.",
	v1alpha1.ReasonAvailable:             "Events are taken and delivered.",
	v1alpha1.ReasonNoPodReady:            "No pod is ready: nothing is taken or delivered.",
	v1alpha1.ReasonProgressing:           "Pods of another version are being replaced.",
	v1alpha1.ReasonDispatcherUnavailable: "The dispatcher takes and delivers nothing right now.",
	v1alpha1.ReasonDispatcherSuspended:   "The dispatcher is scaled to zero.",

	v1alpha1.ReasonStoreReady:          "The store takes events.",
	v1alpha1.ReasonDatabaseUnreachable: "The database does not answer, or refuses the user.",
	v1alpha1.ReasonDatabaseTooOld:      "The database's server is too old.",
	v1alpha1.ReasonSchemaNewer:         "A newer version has migrated the database. Upgrade the dispatcher.",
	v1alpha1.ReasonSchemaNotMigrated:   "The database's schema could not be made or brought up to date.",
	v1alpha1.ReasonStoreFull:           "The store is full: events are refused until there is space.",
	v1alpha1.ReasonStoreReadOnly:       "The database takes no writes, as a standby does.",
	v1alpha1.ReasonStoreLocked:         "Another process has the volume's store open.",
	v1alpha1.ReasonStoreDamaged:        "A file of the store cannot be read. Restore the volume.",
	v1alpha1.ReasonStoreNewer:          "A newer version wrote the store. Upgrade the dispatcher.",
	v1alpha1.ReasonStoreNotOpen:        "The store cannot be opened. The dispatcher's log says why.",

	v1alpha1.ReasonServed:               "The cluster serves the deliveries.",
	v1alpha1.ReasonRegistering:          "The API server does not reach the deliveries API yet.",
	v1alpha1.ReasonDeliveriesAPIOff:     "The manager runs without the deliveries API.",
	v1alpha1.ReasonRightsMissing:        "The manager lacks the rights for the deliveries API.",
	v1alpha1.ReasonServedByAnother:      "An older dispatcher serves the deliveries API.",
	v1alpha1.ReasonRegisteredByOthers:   "Somebody else registered the deliveries API.",
	v1alpha1.ReasonCertificatePending:   "The certificate of the deliveries API is not made yet.",
	v1alpha1.ReasonUnreachable:          "The API server does not reach the dispatcher's pods.",
	v1alpha1.ReasonCertificateNotServed: "The pods do not serve the manager's certificate yet.",
	v1alpha1.ReasonTerminating:          "The namespace is being deleted.",

	v1alpha1.ReasonCompleted:            "All was done.",
	v1alpha1.ReasonReplaying:            "Deliveries are made pending again.",
	v1alpha1.ReasonCancelling:           "Planned deliveries are cancelled.",
	v1alpha1.ReasonCounting:             "The deliveries are counted.",
	v1alpha1.ReasonNotSuspended:         "It is not suspended.",
	v1alpha1.ReasonSubscriptionNotFound: "There is no such subscription.",
	v1alpha1.ReasonTooManySubscriptions: "More subscriptions are selected than one replay may have.",
	v1alpha1.ReasonStoreUnavailable:     "The dispatcher's store takes nothing now.",
}

// attemptWords say why an attempt failed, or a delivery ended.
var attemptWords = map[string]string{
	"StatusCode":             "the endpoint answered something other than 2xx",
	"Timeout":                "no answer in time",
	"ConnectionRefused":      "nobody listens at the address",
	"ConnectionReset":        "the connection broke",
	"Unreachable":            "there is no way to the address",
	"NameNotFound":           "DNS has no such name",
	"AddressNotAllowed":      "the dispatcher's egress rules do not allow the address",
	"PortNotAllowed":         "the dispatcher's egress rules do not allow the port",
	"HostNotAllowed":         "the dispatcher's egress rules do not allow the host",
	"HTTPNotAllowed":         "the dispatcher allows https only",
	"CertificateExpired":     "the endpoint's certificate has expired",
	"CertificateWrongHost":   "the certificate does not name the host",
	"CertificateUntrusted":   "no trusted authority signed the certificate",
	"ProxyUnreachable":       "nobody answers at the dispatcher's proxy",
	"ProxyRefused":           "the dispatcher's proxy refused",
	"TLSFailed":              "the TLS handshake failed",
	"RequestInvalid":         "the request cannot be sent as it is",
	"ResponseInvalid":        "the answer is no HTTP, or has too many headers",
	"CertificateNotYetValid": "the endpoint's certificate is not valid yet",
	"CertificateWeak":        "the certificate's key or signature is too weak",
	"CertificateInvalid":     "the endpoint's certificate cannot be used",
	"HandshakeRefused":       "the endpoint did not agree to deliveries",
	"TransformFailed":        "the request could not be made of the event",
	"LookupFailed":           "the lookup's document could not be read",
	"AuthFailed":             "no access token could be had",
	"NotSuccess":             "the subscription's outcome rule says no",
	"Interrupted":            "the dispatcher stopped first",
	"SubscriptionDeleted":    "the subscription was deleted",
	"Replaced":               "a later event replaced it",
	"CancelledByEvent":       "a later event cancelled it",
	"Past":                   "its planned time had passed",
	"OutsideWindow":          "its planned time is outside of the window",
	"TooFarAhead":            "its planned time is too far ahead",
	"ScheduleFailed":         "the schedule had no time or no key for it",
	"Recheck":                "the check just before sending said no",
	"ByUser":                 "a user cancelled it",
	"Erased":                 "its data was erased",
}

// meaning says what a condition's reason means.
func meaning(reason string) string { return reasonWords[reason] }

// attemptMeaning says why an attempt failed, or a delivery ended. Some reasons are a condition's as well, and mean another thing.
func attemptMeaning(reason string) string { return attemptWords[reason] }

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
