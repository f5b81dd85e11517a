package egress

import (
	"net/http"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/signature"
)

// Target is where a subscription's deliveries go, and what they carry beside the event. It is immutable once made.
type Target struct {
	// URL is absolute, http or https. It may carry tokens and is never logged.
	URL string
	// Header is added to every delivery; its keys are canonical.
	Header http.Header
	// Keys sign, the current one first; there is at least one.
	Keys signature.Keys
	// Timeout bounds one attempt, from dialling to the last byte read of the response.
	Timeout time.Duration
	// Thin delivers which resource changed and nothing of what it holds.
	Thin bool
}

// Request is one attempt to be made.
type Request struct {
	Target   *Target
	Delivery event.DeliveryID
	Type     event.Type
	// Number counts the delivery's attempts: 1, 2, 3, …
	Number int
	// Body is the event's full body, as event.AppendBody wrote it.
	Body []byte
}

// Reason says in one CamelCase word why an attempt failed; it is safe to show to anyone who may see the subscription.
type Reason string

// The reasons. An attempt that succeeded has none.
const (
	ReasonStatusCode         Reason = "StatusCode" // an answer other than 2xx
	ReasonTimeout            Reason = "Timeout"
	ReasonConnectionRefused  Reason = "ConnectionRefused"
	ReasonConnectionReset    Reason = "ConnectionReset"
	ReasonNameNotFound       Reason = "NameNotFound"
	ReasonAddressNotAllowed  Reason = "AddressNotAllowed"
	ReasonCertificateInvalid Reason = "CertificateInvalid"
	ReasonTLSFailed          Reason = "TLSFailed"
	ReasonResponseInvalid    Reason = "ResponseInvalid" // not HTTP, or headers beyond the bound
	ReasonUnreachable        Reason = "Unreachable"     // no route, and what else keeps a connection from being made
	ReasonInterrupted        Reason = "Interrupted"     // the dispatcher stopped before an answer came
)

// Result is what came of one attempt.
type Result struct {
	// StatusCode that the endpoint answered, 0 if it gave no answer.
	StatusCode int
	// Reason is empty if the attempt succeeded.
	Reason Reason
	// RetryAfter is how long the endpoint asked to wait, with 429 or 503 (RFC 9110, section 10.2.3); 0 if it did not.
	RetryAfter time.Duration
	// Started is when the attempt was sent; its seconds are X-Clinik-Timestamp.
	Started time.Time
	// Duration until the answer was read, or until the attempt failed.
	Duration time.Duration
}

// Delivered tells whether the endpoint has taken the delivery.
func (r Result) Delivered() bool { return r.Reason == "" }
