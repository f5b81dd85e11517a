package egress

import (
	"time"

	"github.com/clinikapi/eventflow/api/event"
)

// Request is one attempt to be made.
type Request struct {
	Target   *Target
	Delivery event.DeliveryID
	Type     event.Type
	// Number counts the delivery's attempts: 1, 2, 3, …
	Number int
	// Body is the event's full body, as event.AppendBody wrote it. It is read, and never written, until shortly after
	// Send returned (a write that an early answer overtook is still being cut off), so its bytes must not be reused.
	Body []byte
	// Tenant of the subscription. Its connections are used for no other.
	Tenant string
	// Fresh makes the attempt on a new connection: a kept one has just turned out to be closed.
	Fresh bool
	// Written is called once, when the request was written and Body is not read any more; nil for nobody.
	Written func()
}

// Reason says in one CamelCase word why an attempt failed; it is safe to show to anyone who may see the subscription.
type Reason string

// The reasons. An attempt that succeeded has none.
const (
	ReasonStatusCode         Reason = "StatusCode" // an answer other than 2xx
	ReasonTimeout            Reason = "Timeout"
	ReasonConnectionRefused  Reason = "ConnectionRefused"
	ReasonConnectionReset    Reason = "ConnectionReset" // closed or reset before a whole answer came
	ReasonNameNotFound       Reason = "NameNotFound"
	ReasonAddressNotAllowed  Reason = "AddressNotAllowed"
	ReasonHTTPNotAllowed     Reason = "HTTPNotAllowed" // an http URL where only https may be used
	ReasonCertificateInvalid Reason = "CertificateInvalid"
	ReasonTLSFailed          Reason = "TLSFailed"
	ReasonRequestInvalid     Reason = "RequestInvalid"  // the target or the body cannot be sent as it is; see Target.Check
	ReasonResponseInvalid    Reason = "ResponseInvalid" // not HTTP, or headers beyond the bound
	ReasonUnreachable        Reason = "Unreachable"     // no route, and what else keeps a connection from being made
	ReasonInterrupted        Reason = "Interrupted"     // the dispatcher stopped before an answer came
	// ReasonStale is never recorded: a kept connection broke before a byte of an answer came, so the endpoint most likely
	// closed it while it was idle. The caller sends the same request again, with Fresh.
	ReasonStale Reason = "Stale"
)

// Result is what came of one attempt.
type Result struct {
	// StatusCode that the endpoint answered, 0 if it gave no answer.
	StatusCode int
	// Reason is empty if the attempt succeeded.
	Reason Reason
	// RetryAfter is how long the endpoint asked to wait, with 429 or 503 (RFC 9110, section 10.2.3), at most 30 days;
	// 0 if it did not.
	RetryAfter time.Duration
	// Started is when the attempt was sent; its seconds are X-Clinik-Timestamp.
	Started time.Time
	// Duration until the answer's headers were read, or until the attempt failed.
	Duration time.Duration
}

// Delivered tells whether the endpoint has taken the delivery.
func (r Result) Delivered() bool { return r.Reason == "" }
