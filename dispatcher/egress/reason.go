package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
)

// failure is an error whose reason was known where it arose.
type failure struct {
	reason Reason
	err    error
}

func (f *failure) Error() string { return string(f.reason) }
func (f *failure) Unwrap() error { return f.err }

// dialReason is the reason of an error of net.Dialer.
func dialReason(err error) Reason {
	var name *net.DNSError
	switch {
	case errors.Is(err, errAddressNotAllowed):
		return ReasonAddressNotAllowed
	case errors.As(err, &name) && name.IsNotFound:
		return ReasonNameNotFound
	case errors.Is(err, syscall.ECONNREFUSED):
		return ReasonConnectionRefused
	case isTimeout(err):
		return ReasonTimeout
	case isLost(err):
		return ReasonConnectionReset
	default:
		return ReasonUnreachable
	}
}

// handshakeReason is the reason of an error of a TLS handshake.
func handshakeReason(err error) Reason {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return ReasonCertificateInvalid
	case isTimeout(err):
		return ReasonTimeout
	case isLost(err):
		return ReasonConnectionReset
	default:
		return ReasonTLSFailed
	}
}

// exchangeReason is the reason of an error of an exchange. ctx is the engine's, and answered tells whether a byte of an
// answer had come: http.ReadResponse has no types for what it finds wrong with one.
func exchangeReason(ctx context.Context, err error, answered bool) Reason {
	var known *failure
	switch {
	case ctx.Err() != nil:
		return ReasonInterrupted
	case errors.As(err, &known):
		return known.reason
	case isTimeout(err):
		return ReasonTimeout
	case isTLS(err):
		return ReasonTLSFailed
	case isLost(err):
		return ReasonConnectionReset
	case errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH):
		return ReasonUnreachable
	case answered:
		return ReasonResponseInvalid
	default:
		return ReasonConnectionReset
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// isLost tells whether the other side, or the network, ended the connection.
func isLost(err error) bool {
	for _, lost := range []error{syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

// isTLS tells whether the TLS layer failed behind the handshake: in TLS 1.3 a server refuses a client that has no
// certificate only then. Package tls marks alerts by the operation of a net.OpError.
func isTLS(err error) bool {
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return true
	}
	var operation *net.OpError
	return errors.As(err, &operation) && (operation.Op == "remote error" || operation.Op == "local error")
}
