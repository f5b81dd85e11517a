package expression

import (
	"fmt"
	"strings"
)

// A Reason says in one word why an evaluation failed. There are few, so that metrics can be labelled by them.
type Reason string

// The reasons of an Error.
const (
	// WrongType: an operator or a function got a type that it does not take, or the result is of the wrong type.
	WrongType Reason = "WrongType"
	// InvalidValue: the type fits and the value does not: no time, a division by zero, an overflow, an unknown zone.
	InvalidValue Reason = "InvalidValue"
	// CostExceeded: the evaluation needed more than CostLimit, or its result is longer than MaxOutput.
	CostExceeded Reason = "CostExceeded"
	// MalformedData: a document that the expression reads is not JSON.
	MalformedData Reason = "MalformedData"
	// Internal: the evaluation panicked, which is a defect of this package.
	Internal Reason = "Internal"
)

// Reasons lists every Reason.
func Reasons() []Reason {
	return []Reason{WrongType, InvalidValue, CostExceeded, MalformedData, Internal}
}

// An Error says why an evaluation has no result. Its text names functions, types and positions, and no data.
type Error struct {
	Reason Reason
	// Line and Column count from 1; 0 means that the place is not known.
	Line, Column int
	Message      string

	id int64 // of the expression's node, until Line and Column are known
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

func fail(reason Reason, id int64, format string, args ...any) *Error {
	return &Error{Reason: reason, id: id, Message: fmt.Sprintf(format, args...)}
}

// An Issue is one thing that is wrong with the text of an expression.
type Issue struct {
	// Line and Column count from 1.
	Line, Column int
	// Message is the compiler's.
	Message string
}

// An InvalidError says why a text is no expression for its Use.
type InvalidError struct {
	Issues []Issue
}

// maxIssues is how many issues Error shows.
const maxIssues = 3

// Error is one line, fit for a condition: the first issues, each with its place.
func (e *InvalidError) Error() string {
	var text strings.Builder
	for i, issue := range e.Issues {
		if i == maxIssues {
			fmt.Fprintf(&text, "; and %d more", len(e.Issues)-i)
			break
		}
		if i > 0 {
			text.WriteString("; ")
		}
		if issue.Line > 0 {
			fmt.Fprintf(&text, "line %d, column %d: ", issue.Line, issue.Column)
		}
		text.WriteString(strings.Join(strings.Fields(issue.Message), " "))
	}
	return text.String()
}
