// Package exit gives the errors of commands an exit code. A command that returns none of them ends with 1.
package exit

import (
	"errors"
	"fmt"
)

// The exit codes of the user's tools.
const (
	// Failure: the command did its work, and the answer is no.
	Failure = 1
	// BadInput: a flag or a file is wrong. The error says what to do.
	BadInput = 2
)

// coded is an error with an exit code.
type coded struct {
	error

	code int
}

// ExitCode is that of the process.
func (c *coded) ExitCode() int { return c.code }

// Unwrap returns the error without its code.
func (c *coded) Unwrap() error { return c.error }

// Bad returns an error for input that is wrong.
func Bad(format string, args ...any) error {
	return &coded{fmt.Errorf(format, args...), BadInput}
}

// Code is the exit code for an error: 0 for nil, and Failure if it has none of its own.
func Code(err error) int {
	var c *coded
	switch {
	case err == nil:
		return 0
	case errors.As(err, &c):
		return c.code
	}
	return Failure
}
