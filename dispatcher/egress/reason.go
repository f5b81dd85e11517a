package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// failure is an error whose reason was known where it arose.
type failure struct {
	reason delivery.Reason
	err    error
}

func (f *failure) Error() string { return string(f.reason) }
func (f *failure) Unwrap() error { return f.err }

// invalidReason is the reason of an error of a target that cannot be sent to.
func invalidReason(err error) delivery.Reason {
	var known *failure
	if errors.As(err, &known) {
		return known.reason
	}
	return delivery.ReasonRequestInvalid
}

// dialReason is the reason of an error of net.Dialer.
func dialReason(err error) delivery.Reason {
	var name *net.DNSError
	var known *failure
	switch {
	case errors.As(err, &known):
		return known.reason
	case errors.Is(err, errAddressNotAllowed):
		return delivery.ReasonAddressNotAllowed
	case errors.Is(err, errPortNotAllowed):
		return delivery.ReasonPortNotAllowed
	case errors.As(err, &name) && name.IsNotFound:
		return delivery.ReasonNameNotFound
	case errors.Is(err, syscall.ECONNREFUSED):
		return delivery.ReasonConnectionRefused
	case isTimeout(err):
		return delivery.ReasonTimeout
	case isLost(err):
		return delivery.ReasonConnectionReset
	default:
		return delivery.ReasonUnreachable
	}
}

// handshakeReason is the reason of an error of a TLS handshake.
func handshakeReason(err error) delivery.Reason {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errWeak):
		return delivery.ReasonCertificateWeak
	case errors.As(err, &certificate):
		return certificateReason(certificate)
	case isTimeout(err):
		return delivery.ReasonTimeout
	case isLost(err):
		return delivery.ReasonConnectionReset
	default:
		return delivery.ReasonTLSFailed
	}
}

// certificateReason is the reason of a certificate that was not accepted.
func certificateReason(err *tls.CertificateVerificationError) delivery.Reason {
	var (
		invalid x509.CertificateInvalidError
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
		none    x509.SystemRootsError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if invalid.Cert != nil && time.Now().Before(invalid.Cert.NotBefore) {
			return delivery.ReasonCertificateNotYetValid
		}
		return delivery.ReasonCertificateExpired
	case errors.As(err, &host):
		return delivery.ReasonCertificateWrongHost
	case errors.As(err, &unknown):
		if hasWeakSignature(err.UnverifiedCertificates) {
			return delivery.ReasonCertificateWeak
		}
		return delivery.ReasonCertificateUntrusted
	case errors.As(err, &none):
		return delivery.ReasonCertificateUntrusted
	default:
		return delivery.ReasonCertificateInvalid
	}
}

// exchangeReason is the reason of an error of an exchange. ctx is the engine's, and answered reports whether a byte of an
// answer had come: http.ReadResponse has no types for what it finds wrong with one.
func exchangeReason(ctx context.Context, err error, answered bool) delivery.Reason {
	var known *failure
	switch {
	case ctx.Err() != nil:
		return delivery.ReasonInterrupted
	case errors.As(err, &known):
		return known.reason
	case isTimeout(err):
		return delivery.ReasonTimeout
	case isTLS(err):
		return delivery.ReasonTLSFailed
	case isLost(err):
		return delivery.ReasonConnectionReset
	case errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH):
		return delivery.ReasonUnreachable
	case answered:
		return delivery.ReasonResponseInvalid
	default:
		return delivery.ReasonConnectionReset
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// isLost reports whether the other side, or the network, ended the connection.
func isLost(err error) bool {
	for _, lost := range []error{syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

// isTLS reports whether the TLS layer failed behind the handshake: in TLS 1.3 a server refuses a client that has no
// certificate only then. Package tls marks alerts by the operation of a net.OpError.
func isTLS(err error) bool {
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return true
	}
	var operation *net.OpError
	return errors.As(err, &operation) && (operation.Op == "remote error" || operation.Op == "local error")
}
