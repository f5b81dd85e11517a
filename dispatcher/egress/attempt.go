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
	// Body is the event's full body, as event.AppendBody wrote it. It is read, and never written, until Written is called
	// or Send returns, whichever comes first.
	Body []byte
	// Tenant is the subscription's. Its connections and TLS sessions are used for no other.
	Tenant string
	// Fresh makes the attempt on a new connection: a kept one has just turned out to be closed.
	Fresh bool
	// Written is called at most once, when the whole request was handed to the system and nothing reads Body any more;
	// nil for nobody. From then on the attempt costs WaitingCost. It is never called after Send has returned, and not at
	// all if the request was not written as a whole; with ReasonStale it may have been called. It must not block, and
	// may be called by another goroutine than the caller's.
	Written func()
}

// Reason says in one CamelCase word why an attempt failed; it is safe to show to anyone who may see the subscription.
type Reason string

// The reasons. An attempt that succeeded has none.
const (
	ReasonStatusCode        Reason = "StatusCode" // an answer other than 2xx
	ReasonTimeout           Reason = "Timeout"
	ReasonConnectionRefused Reason = "ConnectionRefused"
	ReasonConnectionReset   Reason = "ConnectionReset" // closed or reset before a whole answer came
	ReasonNameNotFound      Reason = "NameNotFound"
	ReasonAddressNotAllowed Reason = "AddressNotAllowed"
	ReasonPortNotAllowed    Reason = "PortNotAllowed"
	ReasonHTTPNotAllowed    Reason = "HTTPNotAllowed" // an http URL where only https may be used
	ReasonTLSFailed         Reason = "TLSFailed"
	ReasonRequestInvalid    Reason = "RequestInvalid"  // the target or the body cannot be sent as it is; see Target.Check
	ReasonResponseInvalid   Reason = "ResponseInvalid" // not HTTP, or headers beyond the bound
	ReasonUnreachable       Reason = "Unreachable"     // no route, and what else keeps a connection from being made
	ReasonInterrupted       Reason = "Interrupted"     // the dispatcher stopped before an answer came
	// The reasons of a certificate that is not accepted. A missing intermediate certificate is Untrusted as well: the
	// endpoint must send its whole chain, and nobody can tell a missing link from a foreign one.
	ReasonCertificateExpired     Reason = "CertificateExpired"     // it, or one it was issued by
	ReasonCertificateNotYetValid Reason = "CertificateNotYetValid" // it, or one it was issued by
	ReasonCertificateWrongHost   Reason = "CertificateWrongHost"   // it does not name the URL's host
	ReasonCertificateUntrusted   Reason = "CertificateUntrusted"   // no authority in RootCAs is at the end of its chain
	ReasonCertificateWeak        Reason = "CertificateWeak"        // RSA below 2048 bits, or signed with SHA-1 or MD5
	ReasonCertificateInvalid     Reason = "CertificateInvalid"     // whatever else is wrong with it
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

// Delivered reports whether the endpoint has taken the delivery.
func (r Result) Delivered() bool { return r.Reason == "" }
