package egress

import (
	"net/http"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// Request is one attempt to be made.
type Request struct {
	Target   *Target
	Delivery event.DeliveryID
	Type     event.Type
	// Number counts the delivery's attempts: 1, 2, 3, …
	Number int
	// Traceparent is the trace context that the endpoint gets (W3C Trace Context), unless its own headers have one; "" for
	// none.
	Traceparent string
	// Body is what is signed and sent. It is read, and never written, until Written is called or Send returns, whichever
	// comes first.
	Body []byte
	// Shape is how the request differs from that of every other delivery; nil if it does not.
	Shape *Shape
	// Answer takes what an outcome reads of the answer; nil for nothing.
	Answer *Answer
	// Begun is when the attempt began, if something was done for it before: Target's timeout counts from then. Zero means
	// now.
	Begun time.Time
	// Tenant is the subscription's. Its connections and TLS sessions are used for no other.
	Tenant string
	// Fresh makes the attempt on a new connection, as the repetition of one whose Reason Repeats.
	Fresh bool
	// Written is called at most once, when the whole request was handed to the system and nothing reads Body any more;
	// nil for nobody. From then on the attempt costs WaitingCost. It is never called after Send has returned, and not at
	// all if the request was not written as a whole; with a Reason that Repeats it may have been called. It must not block, and
	// may be called by another goroutine than the caller's.
	Written func()

	token string // of Target's ClientCredentials
}

// Result is what came of one attempt.
type Result struct {
	// StatusCode that the endpoint answered, 0 if it gave no answer.
	StatusCode int
	// Reason is empty if the attempt succeeded.
	Reason delivery.Reason
	// RetryAfter is how long the endpoint asked to wait, with 429 or 503 (RFC 9110, section 10.2.3), at most 30 days;
	// 0 if it did not.
	RetryAfter time.Duration
	// Started is when the attempt was sent; its seconds are X-Clinik-Timestamp.
	Started time.Time
	// Duration until the answer's headers were read, or until the attempt failed; from Begun on, if that is set.
	Duration time.Duration
	// AllowedPerMinute is how many requests a minute the endpoint allowed in the handshake; 0 for no limit.
	AllowedPerMinute int
	// GiveUp is set if a failed delivery is not to be attempted again, whatever its age.
	GiveUp bool
}

// Answer is what an outcome reads of an answer. Its body is read within the attempt's timeout.
type Answer struct {
	// WantBody asks for the body. The caller has charged MaxAnswer bytes for it.
	WantBody bool
	// Header of the answer; nil if there was none.
	Header http.Header
	// Body is nil if it was not wanted, or is longer than MaxAnswer.
	Body []byte
}

// MaxAnswer is how much of an answer's body an outcome may read, in bytes.
const MaxAnswer = 64 << 10

// Delivered reports whether the endpoint has taken the delivery.
func (r Result) Delivered() bool { return r.Reason == "" }
