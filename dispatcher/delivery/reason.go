package delivery

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
	ReasonHostNotAllowed    Reason = "HostNotAllowed"   // the host is none that the tenant may reach
	ReasonHTTPNotAllowed    Reason = "HTTPNotAllowed"   // an http URL where only https may be used
	ReasonProxyUnreachable  Reason = "ProxyUnreachable" // nobody answers at the proxy, or not with its certificate
	ReasonProxyRefused      Reason = "ProxyRefused"     // the proxy answered something other than 2xx to CONNECT
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
	// The reasons of what is found wrong before or after the request itself.
	ReasonTransformFailed Reason = "TransformFailed" // the body or the request could not be made; nothing was sent
	ReasonLookupFailed    Reason = "LookupFailed"    // what the transform needs could not be read; nothing was sent
	ReasonAuthFailed      Reason = "AuthFailed"      // no access token could be had; nothing was sent
	ReasonNotSuccess      Reason = "NotSuccess"      // spec.outcome.success is false of the answer
	// ReasonHandshakeRefused: the endpoint did not allow deliveries when it was asked; nothing was sent.
	ReasonHandshakeRefused Reason = "HandshakeRefused"
	// ReasonStale is never recorded: a kept connection broke before a byte of an answer came, so the endpoint most likely
	// closed it while it was idle. The caller sends the same request again, with Fresh.
	ReasonStale Reason = "Stale"
	// ReasonTokenRefused is never recorded either: the endpoint answered 401 to an access token that it took before. The
	// caller sends the same request again, with Fresh, and it goes with the next token.
	ReasonTokenRefused Reason = "TokenRefused"
)

// Repeats reports whether the same request is to be sent again at once, as a part of the same attempt.
func (r Reason) Repeats() bool { return r == ReasonStale || r == ReasonTokenRefused }

// The reasons of a delivery that ended otherwise than by an attempt's result: Cancelled, but for ScheduleFailed.
const (
	ReasonSubscriptionDeleted Reason = "SubscriptionDeleted"
	ReasonPast                Reason = "Past"             // its time had passed when the event was accepted
	ReasonOutsideWindow       Reason = "OutsideWindow"    // its time is outside of the window, and outside is Skip
	ReasonTooFarAhead         Reason = "TooFarAhead"      // its time is more than plan.MaxAhead from now
	ReasonReplaced            Reason = "Replaced"         // a later event of the same key has come
	ReasonCancelledByEvent    Reason = "CancelledByEvent" // an event of cancelOn has come
	ReasonRecheck             Reason = "Recheck"          // spec.schedule.recheck was false when it was due
	ReasonByUser              Reason = "ByUser"           // somebody cancelled it through the API
	ReasonScheduleFailed      Reason = "ScheduleFailed"   // Failed: its time or key could not be found; a replay delivers it at once
)
