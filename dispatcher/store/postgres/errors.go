package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/clinikapi/eventflow/dispatcher/store"
)

// The conditions of PostgreSQL that are told apart; see its manual, appendix A.
const (
	codeSerialization    = "40001"
	codeDeadlock         = "40P01"
	codeLockNotAvailable = "55P03"
	codeNoStatement      = "26000"
	codeSameStatement    = "42P05"
	codeUndefinedTable   = "42P01"
	codeDuplicateTable   = "42P07"
	codeDuplicateSchema  = "42P06"
	codeDuplicateObject  = "42710"
	codeUniqueViolation  = "23505"
	codeDiskFull         = "53100"
	codeReadOnly         = "25006"
	codeCanceled         = "57014"
	classData            = "22"
	classConnection      = "08"
	classResources       = "53"
	classIntervention    = "57"
)

// code is the SQLSTATE of err; "" if the server did not answer with one.
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// isReadOnly reports whether err says that the database takes no writes: it is a standby, or its transactions are set to
// read only.
func isReadOnly(err error) bool {
	return code(err) == codeReadOnly || errors.Is(err, pgconn.ErrReadOnlyConnection) || errors.Is(err, store.ErrReadOnly)
}

// isLost reports whether err means that the connection is of no use any more, or leads to a server that is none.
func isLost(err error) bool {
	if isReadOnly(err) {
		return true // another connection may lead to a server that takes writes
	}
	switch c := code(err); c {
	case "":
		return err != nil && !isOurs(err)
	case codeDiskFull:
		return false
	default:
		return c[:2] == classConnection || c[:2] == classIntervention || c[:2] == classResources
	}
}

// isOurs reports whether err says something of deliveries, and not of the database.
func isOurs(err error) bool {
	for _, known := range []error{store.ErrClosed, store.ErrFull, store.ErrNotFound, store.ErrConflict, store.ErrStillPending, store.ErrNotPending, errUsage} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// errUsage is the cause of errors that are of this package's own making.
var errUsage = errors.New("postgres store")

// isPooled reports whether err says that statements which were prepared on one connection are executed on another: a pooler
// is in between that does not know them.
func isPooled(err error) bool {
	c := code(err)
	return c == codeNoStatement || c == codeSameStatement
}

// isContention reports whether the same transaction may succeed when it is tried again.
func isContention(err error) bool {
	switch code(err) {
	case codeSerialization, codeDeadlock, codeLockNotAvailable, codeNoStatement, codeSameStatement:
		return true
	default:
		return false
	}
}

// isMade reports whether err says that another made the same thing at once.
func isMade(err error) bool {
	switch code(err) {
	case codeUniqueViolation, codeDuplicateTable, codeDuplicateSchema, codeDuplicateObject:
		return true
	default:
		return false
	}
}

// concealedError is an error whose text names neither hosts, users nor values.
type concealedError struct {
	text string
	err  error
}

func (e *concealedError) Error() string { return e.text }
func (e *concealedError) Unwrap() error { return e.err }

// concealed returns err with a text that is fit for logs and conditions.
func concealed(err error) error {
	if err == nil {
		return nil
	}
	var already *concealedError
	if errors.Is(err, context.Canceled) || isOurs(err) || errors.As(err, &already) {
		return err
	}
	return &concealedError{textOf(err), err}
}

func textOf(err error) string {
	var pg *pgconn.PgError
	var name *net.DNSError
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	var certificate *tls.CertificateVerificationError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &pg):
		return "the database answered: " + pg.Message + " (SQLSTATE " + pg.Code + ")"
	case errors.As(err, &name):
		return "the database host's name cannot be resolved"
	case errors.As(err, &host):
		return "the database's certificate is for another host name"
	case errors.As(err, &authority):
		return "the database's certificate is signed by none of the trusted certificates (sslrootcert)"
	case errors.As(err, &certificate):
		return "the database's certificate cannot be verified"
	case errors.Is(err, pgconn.ErrReadOnlyConnection):
		return "the database server accepts no writes"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the database refuses connections"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), pgconn.Timeout(err):
		return "the database did not answer in time"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return "the connection to the database was cut"
	case errors.As(err, &connect) && demandsTLS(connect.Config):
		return "the connection to the database failed: it must be by TLS, which the server may not offer"
	default:
		return "the connection to the database failed"
	}
}

// demandsTLS reports whether no connection is made without TLS.
func demandsTLS(config *pgconn.Config) bool {
	plain := func(fallback *pgconn.FallbackConfig) bool { return fallback.TLSConfig == nil }
	return config.TLSConfig != nil && !slices.ContainsFunc(config.Fallbacks, plain)
}

// explain is what callers get to see of an error.
func explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case code(err) == codeDiskFull:
		return fmt.Errorf("%w: %w", store.ErrFull, concealed(err))
	case isReadOnly(err):
		return fmt.Errorf("%w: %w", store.ErrReadOnly, concealed(err))
	default:
		return concealed(err)
	}
}

// pause waits for d, or returns false once ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retry calls f until it succeeds, fails otherwise than by contention, or was called n times.
func retry(ctx context.Context, n int, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if err == nil || try == n || !isContention(err) && !isMade(err) || !pause(ctx, time.Duration(try)*5*time.Millisecond) {
			return err
		}
	}
}
