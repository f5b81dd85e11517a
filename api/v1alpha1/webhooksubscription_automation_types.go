package v1alpha1

// Schedule delivers later than the event comes. Its expressions are CEL over event and subscription, as spec.filter is.
type Schedule struct {
	// at is a CEL expression that results in the time at which the delivery is due: a timestamp, or a text in RFC 3339. It is
	// evaluated when the event is published. A time more than 400 days ahead is not planned.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	At string `json:"at,omitempty"`

	// ifPast is what becomes of a delivery whose time has passed when the event is published: Skip lists it as Cancelled,
	// Deliver delivers it at once.
	// +optional
	// +kubebuilder:default=Skip
	IfPast IfPast `json:"ifPast,omitempty"`

	// key is a CEL expression that results in a text or a number. A later event with the same key replaces the delivery that
	// is planned; one with an older timestamp changes nothing. Without, it is data.resourceId, or the id of a FHIR resource. An
	// event without a key replaces nothing and is not replaced.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Key string `json:"key,omitempty"`

	// window is the part of the day in which deliveries may go.
	// +optional
	Window *Window `json:"window,omitempty"`

	// cancelOn are events that cancel the delivery planned for the same key. They need not be among spec.events. An event that
	// both plans and cancels, cancels.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	CancelOn []CancelRule `json:"cancelOn,omitempty"`

	// recheck is a CEL expression, with now beside event and subscription, that is evaluated just before each attempt. If it is
	// false, the delivery is Cancelled.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Recheck string `json:"recheck,omitempty"`
}

// IfPast is what becomes of a delivery whose planned time has passed.
// +kubebuilder:validation:Enum=Skip;Deliver
type IfPast string

// What becomes of a delivery whose planned time has passed.
const (
	IfPastSkip    IfPast = "Skip"
	IfPastDeliver IfPast = "Deliver"
)

// Window is the part of each day in which deliveries may go. A local time that a change of the clocks skips means the first
// instant after it, one that comes twice means the first.
//
// +kubebuilder:validation:XValidation:rule="self.from != self.until",message="a window that ends when it begins is empty; for a whole day, write 00:00 until 24:00"
type Window struct {
	// timeZone is the name of a zone of the IANA database, such as America/New_York, or a CEL expression that results in one.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	TimeZone string `json:"timeZone,omitempty"`

	// from is the time of day at which the window opens, such as 09:00.
	// +required
	// +kubebuilder:validation:MinLength=5
	// +kubebuilder:validation:MaxLength=5
	// +kubebuilder:validation:XValidation:rule="self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')",message="must be a time of day from 00:00 to 23:59"
	From string `json:"from,omitempty"`

	// until is the time of day at which it closes, 24:00 at the latest. One that is not after from is on the next day.
	// +required
	// +kubebuilder:validation:MinLength=5
	// +kubebuilder:validation:MaxLength=5
	// +kubebuilder:validation:XValidation:rule="self.matches('^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$')",message="must be a time of day from 00:00 to 24:00"
	Until string `json:"until,omitempty"`

	// days are the days of the week on which the window opens; without, every day.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=7
	Days []Day `json:"days,omitempty"`

	// outside is what becomes of a time outside of the window: Later moves it to the next time in it, Earlier to the last
	// before, Skip lists the delivery as Cancelled.
	// +optional
	// +kubebuilder:default=Later
	Outside Outside `json:"outside,omitempty"`
}

// Day is a day of the week.
// +kubebuilder:validation:Enum=Monday;Tuesday;Wednesday;Thursday;Friday;Saturday;Sunday
type Day string

// Outside is what becomes of a time outside of a window.
// +kubebuilder:validation:Enum=Later;Earlier;Skip
type Outside string

// What becomes of a time outside of a window.
const (
	OutsideLater   Outside = "Later"
	OutsideEarlier Outside = "Earlier"
	OutsideSkip    Outside = "Skip"
)

// CancelRule names events that cancel what is planned.
type CancelRule struct {
	// events are patterns, as in spec.events.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=72
	// +kubebuilder:validation:items:XValidation:rule="self.startsWith('eventflow.') ? self.matches('^eventflow[.]([*]|endpoint[.](failing|recovered|gone)|delivery[.]failed|key[.]rotated)$') : self == '*' || self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?[.]([*]|created|updated|deleted)$')",message="must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types"
	Events []string `json:"events,omitempty"`

	// filter is a CEL expression as spec.filter. An event for which it is false, or fails, cancels nothing.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Filter string `json:"filter,omitempty"`

	// key is a CEL expression as spec.schedule.key, for the cancelling event; without, spec.schedule.key itself.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Key string `json:"key,omitempty"`
}

// Lookup reads a document before each attempt.
type Lookup struct {
	// url is a CEL expression over event and subscription that results in an absolute https URL. It is read with GET. Its
	// answer, JSON of at most 1 MiB, is the variable lookup of the transform. A lookup that fails is a failed attempt.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	URL string `json:"url,omitempty"`

	// auth authenticates the lookup; without, spec.auth does. Credentials go only to a host that stands in url itself, before
	// anything that comes from the event, and those of spec.auth also to the host of the subscription's URL.
	// +optional
	Auth *Auth `json:"auth,omitempty"`
}

// Handshake is an endpoint's consent (CloudEvents HTTP 1.1 Web Hooks 1.0.2, section 4).
type Handshake struct {
	// origin is a DNS name, in lower case, that stands for the sender, such as eventflow.clinic.example. The request for consent and
	// every delivery carry it as WebHook-Request-Origin.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be a DNS name in lower case, such as eventflow.clinic.example"
	Origin string `json:"origin,omitempty"`
}

// Transform makes a request. Its expressions are CEL over event, subscription, lookup and delivery (id, attempt, planned).
// event.data is what spec.payload.redact leaves of it. One that fails is a failed attempt with the reason TransformFailed;
// nothing is sent.
//
// +kubebuilder:validation:XValidation:rule="has(self.body) || !has(self.contentType) || self.contentType == 'application/json'",message="a contentType other than application/json needs a body"
type Transform struct {
	// contentType of the body.
	// +optional
	// +kubebuilder:default="application/json"
	ContentType ContentType `json:"contentType,omitempty"`

	// body is a CEL expression. A map or a list becomes JSON, or a form by contentType; a text goes as it is. Without, the body
	// is as spec.payload says.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	Body string `json:"body,omitempty"`

	// method of the request.
	// +optional
	// +kubebuilder:default=POST
	Method Method `json:"method,omitempty"`

	// urlSuffix is a CEL expression that results in a text, which is appended to the subscription's URL: a path that begins with
	// a slash, a query, or both.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	URLSuffix string `json:"urlSuffix,omitempty"`

	// headers are added to those of spec.headers.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Headers []TransformHeader `json:"headers,omitempty"`
}

// ContentType is the media type of a transformed body.
// +kubebuilder:validation:Enum=application/json;application/x-www-form-urlencoded;text/plain;application/fhir+json
type ContentType string

// The media types of a transformed body.
const (
	ContentTypeJSON ContentType = "application/json"
	ContentTypeForm ContentType = "application/x-www-form-urlencoded"
	ContentTypeText ContentType = "text/plain"
	ContentTypeFHIR ContentType = "application/fhir+json"
)

// Method is the method of a transformed request.
// +kubebuilder:validation:Enum=POST;PUT;PATCH
type Method string

// TransformHeader is a header that an expression makes.
type TransformHeader struct {
	// name of the header, as in spec.headers.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-!#$%&\\'*+.^_`|~0-9A-Za-z]+$')",message="must be an HTTP header name, such as X-Team"
	// +kubebuilder:validation:XValidation:rule="!self.lowerAscii().replace('_', '-').matches('^(host|authorization|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|http2-settings|keep-alive|proxy-.*|accept-encoding|x-clinik-.*|x-clinikapi-.*|webhook-.*|ce-.*)$')",message="must not be a header that Event Flow, spec.auth or HTTP itself sets"
	Name string `json:"name,omitempty"`

	// value is a CEL expression that results in a text.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value,omitempty"`
}

// Auth authenticates requests to the endpoint. Every secret comes from a Secret of the subscription's namespace.
//
// +kubebuilder:validation:ExactlyOneOf=basic;bearer;apiKey;oauth2ClientCredentials
type Auth struct {
	// basic sends a user name and a password (RFC 7617).
	// +optional
	Basic *BasicAuth `json:"basic,omitempty"`

	// bearer sends a token (RFC 6750).
	// +optional
	Bearer *BearerAuth `json:"bearer,omitempty"`

	// apiKey sends a key in a header of its own.
	// +optional
	APIKey *APIKeyAuth `json:"apiKey,omitempty"`

	// oauth2ClientCredentials fetches a token with a client's id and secret (RFC 6749, section 4.4), and sends it as a bearer
	// token until it expires, or the endpoint answers 401.
	// +optional
	OAuth2ClientCredentials *OAuth2ClientCredentials `json:"oauth2ClientCredentials,omitempty"`
}

// SecretReference names a Secret in the same namespace.
type SecretReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a Secret: lower-case letters, digits, dashes and dots"
	Name string `json:"name,omitempty"`
}

// BasicAuth is a user name and a password.
type BasicAuth struct {
	// secretRef names a Secret with the keys username and password, as a Secret of type kubernetes.io/basic-auth has.
	// +required
	SecretRef SecretReference `json:"secretRef,omitzero"`
}

// BearerAuth is a token.
type BearerAuth struct {
	// secretKeyRef names the token.
	// +required
	SecretKeyRef SecretKeyReference `json:"secretKeyRef,omitzero"`
}

// APIKeyAuth is a key in a header.
type APIKeyAuth struct {
	// header that carries the key, such as X-Api-Key.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-!#$%&\\'*+.^_`|~0-9A-Za-z]+$')",message="must be an HTTP header name, such as X-Api-Key"
	// +kubebuilder:validation:XValidation:rule="!self.lowerAscii().replace('_', '-').matches('^(host|connection|content-.*|transfer-encoding|te|trailer|upgrade|expect|http2-settings|keep-alive|proxy-.*|accept-encoding|x-clinik-.*|x-clinikapi-.*|webhook-.*|ce-.*)$')",message="must not be a header that Event Flow or HTTP itself sets"
	Header string `json:"header,omitempty"`

	// secretKeyRef names the key.
	// +required
	SecretKeyRef SecretKeyReference `json:"secretKeyRef,omitzero"`
}

// OAuth2ClientCredentials fetches tokens with the client credentials grant (RFC 6749, section 4.4).
type OAuth2ClientCredentials struct {
	// tokenURL is the absolute https URL of the token endpoint.
	// +required
	// +kubebuilder:validation:MinLength=9
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",message="must be an absolute https URL, such as https://example.com/oauth2/token"
	TokenURL string `json:"tokenURL,omitempty"`

	// secretRef names a Secret with the keys clientID and clientSecret.
	// +required
	SecretRef SecretReference `json:"secretRef,omitzero"`

	// scopes to ask for.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[\\\\x21\\\\x23-\\\\x5B\\\\x5D-\\\\x7E]+$')",message="must be a scope: printable characters without space, quote and backslash"
	Scopes []string `json:"scopes,omitempty"`

	// audience to ask for, where the token endpoint wants one.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Audience string `json:"audience,omitempty"`

	// credentialsIn is where the client's id and secret stand in the request for a token: Header (RFC 6749, section 2.3.1) or
	// Body.
	// +optional
	// +kubebuilder:default=Header
	CredentialsIn CredentialsIn `json:"credentialsIn,omitempty"`
}

// CredentialsIn is a part of a request for a token.
// +kubebuilder:validation:Enum=Header;Body
type CredentialsIn string

// The parts of a request for a token that may hold the client's credentials.
const (
	CredentialsInHeader CredentialsIn = "Header"
	CredentialsInBody   CredentialsIn = "Body"
)

// Outcome decides by the answer what became of a delivery. Its expressions are CEL over response (status, headers, body).
// response.body is the answer's JSON, read up to 64 KiB and never kept, or null.
//
// +kubebuilder:validation:AtLeastOneOf=success;giveUp
type Outcome struct {
	// success is true if the endpoint took the delivery, such as "response.status == 200 && response.body.ok == true". Without,
	// an answer of 2xx is a success.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Success string `json:"success,omitempty"`

	// giveUp is true if an answer that is no success will never become one, such as "response.status == 400". The delivery is
	// Failed at once.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	GiveUp string `json:"giveUp,omitempty"`
}
