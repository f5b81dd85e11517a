package v1alpha1

import (
	"crypto/tls"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WebhookSubscriptionSpec is the wanted state of a WebhookSubscription.
//
// +kubebuilder:validation:XValidation:rule="has(self.delivery.mode) && self.delivery.mode == 'Pull' || [has(self.url), has(self.urlFrom), has(self.serviceRef)].exists_one(set, set)",message="exactly one of url, urlFrom and serviceRef must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.delivery.mode) || self.delivery.mode != 'Pull' || !has(self.url) && !has(self.urlFrom) && !has(self.serviceRef)",message="url, urlFrom and serviceRef do not go with delivery.mode Pull: the consumer asks for its deliveries"
// +kubebuilder:validation:XValidation:rule="!has(self.delivery.mode) || self.delivery.mode != 'Pull' || !has(self.auth) && !has(self.tls) && !has(self.handshake) && !has(self.outcome) && !has(self.lookup)",message="auth, tls, handshake, outcome and lookup are about an endpoint: they do not go with delivery.mode Pull"
// +kubebuilder:validation:XValidation:rule="!has(self.delivery.mode) || self.delivery.mode != 'Pull' || !has(self.transform) || !has(self.transform.urlSuffix) && (!has(self.transform.method) || self.transform.method == 'POST')",message="transform.method and transform.urlSuffix are about an endpoint: they do not go with delivery.mode Pull"
// +kubebuilder:validation:XValidation:rule="!has(self.schedule) || !has(self.delivery.ordering) || self.delivery.ordering == 'None'",message="schedule and delivery.ordering ByResource exclude each other: a schedule decides when each delivery goes"
// +kubebuilder:validation:XValidation:rule="!has(self.auth) || has(self.auth.apiKey) || !has(self.headers) || !self.headers.exists(h, h.name.lowerAscii() == 'authorization')",message="auth and a header Authorization exclude each other"
// +kubebuilder:validation:XValidation:rule="self.dispatcherRef == oldSelf.dispatcherRef",message="dispatcherRef is immutable: deliveries wait at the dispatcher they were accepted by; create a new subscription instead"
type WebhookSubscriptionSpec struct {
	// dispatcherRef names the WebhookDispatcher that delivers to this subscription. It cannot be changed.
	// +optional
	// +kubebuilder:default={}
	DispatcherRef DispatcherReference `json:"dispatcherRef,omitzero"`

	// url is the absolute http or https URL that deliveries are posted to. It may be read by anyone who may read the
	// subscription; one that carries a token belongs into a Secret, see urlFrom.
	// +optional
	// +kubebuilder:validation:MinLength=8
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",message="must be an absolute http or https URL, such as https://example.com/hooks"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[a-zA-Z]+://[^/?#]*:(0+|0*(6553[6-9]|655[4-9][0-9]|65[6-9][0-9]{2}|6[6-9][0-9]{3}|[7-9][0-9]{4}|[1-9][0-9]{5,}))([/?#]|$)')",message="must have a port from 1 to 65535, or none"
	// +kubebuilder:validation:XValidation:rule="!self.contains('#')",message="must not have a fragment"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[a-zA-Z]+://[^/?#]*@')",message="must not hold a user name or password: put the URL into a Secret and name it in urlFrom"
	URL string `json:"url,omitempty"`

	// urlFrom takes the URL from a Secret.
	// +optional
	URLFrom *ValueSource `json:"urlFrom,omitempty"`

	// serviceRef names a Service of the subscription's namespace in place of a URL. No rule has to open its addresses.
	// +optional
	ServiceRef ServiceReference `json:"serviceRef,omitzero"`

	// events are the patterns of the event types to deliver: "*" for all that are published, "patient.*" for a family,
	// "patient.created" for one. "eventflow.*" and its types say what happens to the namespace's other subscriptions.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=72
	// +kubebuilder:validation:items:XValidation:rule="self.startsWith('eventflow.') ? self.matches('^eventflow[.]([*]|endpoint[.](failing|recovered|gone)|delivery[.]failed|key[.]rotated)$') : self == '*' || self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?[.]([*]|created|updated|deleted)$')",message="must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types"
	Events []string `json:"events,omitempty"`

	// filter is a CEL expression over event (id, type, timestamp, data, previous) and subscription (name, namespace,
	// labels). An event of spec.events for which it is false causes no delivery. A field that is not there reads as null.
	// An error in it is shown with its line and column by the condition Accepted. See docs/filters.md.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Filter string `json:"filter,omitempty"`

	// filterErrors is what becomes of an event for which the filter fails, because a value is of another type than it
	// expects: Deliver, or Skip.
	// +optional
	// +kubebuilder:default=Deliver
	FilterErrors FilterErrors `json:"filterErrors,omitempty"`

	// schedule delivers later than the event comes, and lets later events move or cancel what it has planned. Without,
	// deliveries are due at once. See docs/automations.md.
	// +optional
	Schedule *Schedule `json:"schedule,omitempty"`

	// lookup reads a document before each attempt, for the transform.
	// +optional
	Lookup *Lookup `json:"lookup,omitempty"`

	// transform makes the request that the endpoint expects. Without, it gets the payload as spec.payload says.
	// +optional
	Transform *Transform `json:"transform,omitempty"`

	// auth authenticates deliveries to the endpoint, and the lookup unless that has its own.
	// +optional
	Auth *Auth `json:"auth,omitempty"`

	// handshake asks the endpoint whether it takes deliveries, before the first one and once a day after, as CloudEvents'
	// HTTP 1.1 Web Hooks (section 4) says. Until it agrees, attempts fail with the reason HandshakeRefused.
	// +optional
	Handshake *Handshake `json:"handshake,omitempty"`

	// outcome decides by the answer whether a delivery succeeded. Without, an answer of 2xx is a success, and nothing is given
	// up before its time.
	// +optional
	Outcome *Outcome `json:"outcome,omitempty"`

	// signing holds the keys that deliveries are signed with.
	// +required
	Signing Signing `json:"signing,omitzero"`

	// headers are added to every delivery. The names that Event Flow and HTTP itself set (Content-Type, Host,
	// X-Clinik-…, webhook-…, ce-… and the like) are refused. Names and values, those from Secrets included, have 16 KiB
	// together at most.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:XValidation:rule="self.all(h, self.exists_one(other, other.name.lowerAscii() == h.name.lowerAscii()))",message="must not name a header twice: upper and lower case are the same"
	// +kubebuilder:validation:XValidation:rule="self.map(h, size(h.name) + (has(h.value) ? size(h.value) : 0)).sum() <= 16384",message="the names and values of all headers must have 16384 characters at most"
	Headers []Header `json:"headers,omitempty"`

	// tls is how the endpoint's certificate is verified; without, by the public authorities.
	// +optional
	TLS SubscriptionTLS `json:"tls,omitzero"`

	// timeout bounds one attempt, from dialling to the end of the response's headers.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('60s')",message="must be a duration from 1s to 60s, written like 45s"
	Timeout metav1.Duration `json:"timeout,omitzero"`

	// retry is when a failed delivery is attempted again.
	// +optional
	// +kubebuilder:default={}
	Retry Retry `json:"retry,omitzero"`

	// delivery is how deliveries reach their consumer.
	// +optional
	// +kubebuilder:default={}
	Delivery Delivery `json:"delivery,omitzero"`

	// payload is what a delivery's body holds.
	// +optional
	// +kubebuilder:default={}
	Payload Payload `json:"payload,omitzero"`

	// suspend holds deliveries back while it is true. Events still match, and their deliveries wait and age.
	// +optional
	// +kubebuilder:default=false
	Suspend *bool `json:"suspend,omitempty"`
}

// FilterErrors is what becomes of an event for which a filter fails.
// +kubebuilder:validation:Enum=Deliver;Skip
type FilterErrors string

// What becomes of an event for which a filter fails.
const (
	// FilterErrorsDeliver delivers it.
	FilterErrorsDeliver FilterErrors = "Deliver"
	// FilterErrorsSkip does not.
	FilterErrorsSkip FilterErrors = "Skip"
)

// DispatcherReference names a WebhookDispatcher.
type DispatcherReference struct {
	// name of the WebhookDispatcher.
	// +optional
	// +kubebuilder:default="default"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",message="must be a DNS label, such as default"
	Name string `json:"name,omitempty"`

	// namespace of the WebhookDispatcher; without, the one that the manager is installed in.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",message="must be a DNS label, such as eventflow-system"
	Namespace string `json:"namespace,omitempty"`
}

// ValueSource is where a value that must not stand in a spec comes from.
type ValueSource struct {
	// secretKeyRef names a key of a Secret in the subscription's namespace.
	// +required
	SecretKeyRef SecretKeyReference `json:"secretKeyRef,omitzero"`
}

// SecretKeyReference names one key of a Secret in the same namespace.
type SecretKeyReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a Secret: lower-case letters, digits, dashes and dots"
	Name string `json:"name,omitempty"`

	// key within the Secret's data.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$')",message="must be a key of a Secret: letters, digits, dashes, dots and underscores"
	Key string `json:"key,omitempty"`
}

// TLSVersion is a version of TLS.
// +kubebuilder:validation:Enum=VersionTLS12;VersionTLS13
type TLSVersion string

// The versions.
const (
	TLS12 TLSVersion = "VersionTLS12"
	TLS13 TLSVersion = "VersionTLS13"
)

// Number is the version as package crypto/tls has it; 0 for none that is known.
func (v TLSVersion) Number() uint16 {
	switch v {
	case TLS12:
		return tls.VersionTLS12
	case TLS13:
		return tls.VersionTLS13
	}
	return 0
}

// SubscriptionTLS is how an endpoint's certificate is verified, and what is shown to it.
//
// +kubebuilder:validation:XValidation:rule="has(self.caSecretRef) || has(self.caConfigMapRef) || has(self.clientCertificateSecretRef) || has(self.serverName) || has(self.minVersion)",message="at least one field must be set"
// +kubebuilder:validation:AtMostOneOf=caSecretRef;caConfigMapRef
type SubscriptionTLS struct {
	// caSecretRef names the key of a Secret that holds certificates in PEM, 64 KiB at most. The endpoint's own must be signed
	// by one of them, or by a public authority.
	// +optional
	CASecretRef *SecretKeyReference `json:"caSecretRef,omitempty"`

	// caConfigMapRef names the key of a ConfigMap that holds them. A change of it takes effect within minutes.
	// +optional
	CAConfigMapRef *ConfigMapKeyReference `json:"caConfigMapRef,omitempty"`

	// clientCertificateSecretRef names a Secret with the keys tls.crt and tls.key, as a Secret of type kubernetes.io/tls has:
	// the certificate, and those between it and its authority, that is shown if the endpoint asks for one. A renewed one is
	// taken up within seconds. The condition Accepted says when it ends.
	// +optional
	ClientCertificateSecretRef SecretReference `json:"clientCertificateSecretRef,omitzero"`

	// serverName is the DNS name that the endpoint's certificate must have, and that is asked for; without, the URL's host.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be a DNS name, such as hooks.example.com"
	ServerName string `json:"serverName,omitempty"`

	// minVersion is the least version of TLS that the endpoint must speak: VersionTLS12 or VersionTLS13. One that is less than
	// the dispatcher's has no effect.
	// +optional
	MinVersion TLSVersion `json:"minVersion,omitempty"`
}

// ConfigMapKeyReference names one key of a ConfigMap in the same namespace.
type ConfigMapKeyReference struct {
	// name of the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a ConfigMap: lower-case letters, digits, dashes and dots"
	Name string `json:"name,omitempty"`

	// key within the ConfigMap's data.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$')",message="must be a key of a ConfigMap: letters, digits, dashes, dots and underscores"
	Key string `json:"key,omitempty"`
}

// Signing names the keys that sign a delivery. A key that starts with "whsec_" is base64 behind the prefix, padded or not
// (Standard Webhooks 1.0); one that starts with "whsk_" is the private half of an ed25519 pair, in base64; any other key is its
// raw bytes. A key that is not one of a pair has 24 to 512 bytes. Every key signs webhook-signature. The first that is not one of
// a pair, in the order current, previous, next, makes X-Clinik-Signature.
type Signing struct {
	// secretRef names the current key: its signature comes first.
	// +required
	SecretRef SecretKeyReference `json:"secretRef,omitzero"`

	// nextSecretRef names the key that is to become the current one: it signs webhook-signature already, so that receivers can
	// be given it before anything depends on it.
	// +optional
	NextSecretRef *SecretKeyReference `json:"nextSecretRef,omitempty"`

	// previousSecretRef names the key that signed before: it goes on signing webhook-signature, so that receivers can
	// change over in their own time.
	// +optional
	PreviousSecretRef *SecretKeyReference `json:"previousSecretRef,omitempty"`
}

// Header is one HTTP header of a delivery.
//
// +kubebuilder:validation:XValidation:rule="has(self.value) != has(self.valueFrom)",message="exactly one of value and valueFrom must be set"
type Header struct {
	// name of the header, an HTTP token (RFC 9110, section 5.1).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-!#$%&\\'*+.^_`|~0-9A-Za-z]+$')",message="must be an HTTP header name, such as X-Team"
	// +kubebuilder:validation:XValidation:rule="!self.lowerAscii().replace('_', '-').matches('^(host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|http2-settings|keep-alive|proxy-.*|accept-encoding|x-clinik-.*|x-clinikapi-.*|webhook-.*|ce-.*)$')",message="must not be a header that Event Flow or HTTP itself sets"
	Name string `json:"name,omitempty"`

	// value of the header, visible to anyone who may read the subscription.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="!self.matches('[\\\\x00-\\\\x08\\\\x0a-\\\\x1f\\\\x7f]')",message="must not contain control characters such as a newline or NUL"
	Value string `json:"value,omitempty"`

	// valueFrom takes the value from a Secret.
	// +optional
	ValueFrom *ValueSource `json:"valueFrom,omitempty"`
}

// Retry is when a failed delivery is attempted again: after initialDelay, then after factor times the delay before, at
// most maxDelay, until maxAge after the event was accepted.
//
// +kubebuilder:validation:XValidation:rule="!has(self.initialDelay) || !has(self.maxDelay) || duration(self.initialDelay) <= duration(self.maxDelay)",message="initialDelay must not be longer than maxDelay"
type Retry struct {
	// initialDelay is the wait after the first failed attempt.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="must be a duration from 1s to 24h, written like 1m30s"
	InitialDelay metav1.Duration `json:"initialDelay,omitzero"`

	// factor multiplies the wait after each further failed attempt.
	// +optional
	// +kubebuilder:default=4
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Factor int32 `json:"factor,omitempty"`

	// maxDelay bounds the wait between two attempts.
	// +optional
	// +kubebuilder:default="2h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="must be a duration from 1s to 24h, written like 1m30s"
	MaxDelay metav1.Duration `json:"maxDelay,omitzero"`

	// maxAge is how long after its acceptance an event is given up; the delivery is then Failed, kept and replayable.
	// +optional
	// +kubebuilder:default="72h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('168h')",message="must be a duration from 1s to 168h, written like 36h"
	MaxAge metav1.Duration `json:"maxAge,omitzero"`

	// maxAttempts gives a delivery up after that many attempts. Unset, only maxAge does.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxAttempts *int32 `json:"maxAttempts,omitempty"`
}

// Delivery is how a subscription's deliveries reach their consumer.
//
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || self.mode != 'Pull' || (!has(self.ordering) || self.ordering == 'None') && !has(self.rateLimit)",message="ordering ByResource and rateLimit do not go with mode Pull: the consumer gets all deliveries in order, at its own pace"
type Delivery struct {
	// mode is Push for deliveries that are posted to the endpoint, or Pull for a consumer without one: deliveries wait until
	// it asks for them, and until it acknowledges them. A Pull subscription has no URL. It can be changed: what is pending
	// then goes the other way. See docs/pull.md.
	// +optional
	// +kubebuilder:default=Push
	Mode DeliveryMode `json:"mode,omitempty"`

	// maxInFlight bounds the attempts that are under way at once.
	// +optional
	// +kubebuilder:default=32
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	MaxInFlight int32 `json:"maxInFlight,omitempty"`

	// ordering is None, or ByResource for one delivery at a time about each resource (the same resource type and
	// data.resourceId), in the order in which the events were accepted. A failing delivery then holds back those about
	// its own resource, and no others. It holds for events that are published after it was set.
	// +optional
	// +kubebuilder:default=None
	Ordering Ordering `json:"ordering,omitempty"`

	// rateLimit bounds how many attempts start in a second. Deliveries beyond it wait; none is lost.
	// +optional
	RateLimit *RateLimit `json:"rateLimit,omitempty"`
}

// DeliveryMode is which side begins a delivery.
// +kubebuilder:validation:Enum=Push;Pull
type DeliveryMode string

// The modes.
const (
	// DeliveryPush posts deliveries to the endpoint.
	DeliveryPush DeliveryMode = "Push"
	// DeliveryPull keeps them until the consumer asks for them.
	DeliveryPull DeliveryMode = "Pull"
)

// Ordering is what deliveries are ordered by.
// +kubebuilder:validation:Enum=None;ByResource
type Ordering string

// The orderings.
const (
	// OrderingNone delivers whatever is due.
	OrderingNone Ordering = "None"
	// OrderingByResource delivers what happened to one resource one after the other.
	OrderingByResource Ordering = "ByResource"
)

// RateLimit bounds a rate.
type RateLimit struct {
	// requestsPerSecond that start at most.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	RequestsPerSecond int32 `json:"requestsPerSecond,omitempty"`
}

// PayloadMode is how much of an event a delivery carries.
// +kubebuilder:validation:Enum=Full;Thin
type PayloadMode string

// The payload modes.
const (
	// PayloadFull delivers data as the producer sent it.
	PayloadFull PayloadMode = "Full"
	// PayloadThin delivers only which resource changed: data's resourceType, resourceId, action and tenantId.
	PayloadThin PayloadMode = "Thin"
)

// Payload is what a delivery's body holds.
type Payload struct {
	// mode is Full for data as the producer sent it, or Thin for only which resource changed, so that no health
	// information leaves the cluster and the receiver reads it back with its own rights.
	// +optional
	// +kubebuilder:default=Full
	Mode PayloadMode `json:"mode,omitempty"`

	// redact are the paths within data that are removed before anything else is made of it: keys joined by dots, with [*]
	// for each element of a list, such as patient.name or contacts[*].phone. A delivery from which a path cannot be removed,
	// because data is no JSON that can be read, fails with the reason TransformFailed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[^.\\\\[\\\\]]+([[][*][\\\\]])*([.][^.\\\\[\\\\]]+([[][*][\\\\]])*)*$')",message="must be keys joined by dots, with [*] for each element of a list, such as contacts[*].phone"
	Redact []string `json:"redact,omitempty"`

	// format is Standard for Event Flow's own envelope, CloudEvents for one JSON document of CloudEvents 1.0 (structured
	// mode), or CloudEventsBinary for its attributes in headers and data as the body.
	// +optional
	// +kubebuilder:default=Standard
	Format PayloadFormat `json:"format,omitempty"`
}

// PayloadFormat is the envelope of a delivery.
// +kubebuilder:validation:Enum=Standard;CloudEvents;CloudEventsBinary
type PayloadFormat string

// The formats.
const (
	FormatStandard          PayloadFormat = "Standard"
	FormatCloudEvents       PayloadFormat = "CloudEvents"
	FormatCloudEventsBinary PayloadFormat = "CloudEventsBinary"
)

// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=whsub,categories=eventflow
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.status.conditions[?(@.type=="EndpointHealthy")].status`
// +kubebuilder:printcolumn:name="Pending",type=integer,JSONPath=`.status.deliveries.pending`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.deliveries.failed`
// +kubebuilder:printcolumn:name="Last Delivery",type=date,JSONPath=`.status.deliveries.lastDeliveredTime`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Health",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="EndpointHealthy")].reason`
// +kubebuilder:printcolumn:name="Last Failure",type=string,priority=1,JSONPath=`.status.deliveries.lastFailure.reason`
// +kubebuilder:printcolumn:name="Delivered",type=integer,priority=1,JSONPath=`.status.deliveries.delivered`
// +kubebuilder:printcolumn:name="Retrying",type=integer,priority=1,JSONPath=`.status.deliveries.retrying`
// +kubebuilder:printcolumn:name="URL",type=string,priority=1,JSONPath=`.status.endpoint`
// +kubebuilder:printcolumn:name="Events",type=string,priority=1,JSONPath=`.spec.events`

// WebhookSubscription is one endpoint and the events it receives. Its namespace is the tenant: only events published
// into the same namespace are ever delivered to it.
type WebhookSubscription struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is the wanted state.
	// +required
	Spec WebhookSubscriptionSpec `json:"spec,omitzero"`

	// status is the observed state.
	// +optional
	// +kubebuilder:default={}
	Status WebhookSubscriptionStatus `json:"status,omitzero"`
}

// +kubebuilder:object:root=true

// WebhookSubscriptionList is a list of WebhookSubscriptions.
type WebhookSubscriptionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`

	Items []WebhookSubscription `json:"items"`
}
