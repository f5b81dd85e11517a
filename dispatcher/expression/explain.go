package expression

import (
	"errors"
	"slices"
	"strings"
	"unicode"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// A Term is a part of a condition that &&, || and ! join with others.
type Term struct {
	// Text is the term as CEL writes it; macros are as they were written.
	Text string
	// Line and Column of the condition's text at which the term begins, counted from 1.
	Line, Column int
	// Value is what the term results in alone, if Err is empty.
	Value bool
	// Err says why it has no result; it shows no data.
	Err string
	// Negated reports whether an odd number of ! stand before the term.
	Negated bool
	// Decides reports whether the condition's result follows from this term.
	Decides bool
	// Operands are the fields of the event and the subscription that the term reads.
	Operands []Operand
}

// An Operand is a field that a term reads.
type Operand struct {
	// Text of the field, such as event.data.status.
	Text string
	// JSON is its value, which is data of the event.
	JSON string
}

// maxOperand is how long a value of an operand may be, in bytes; a longer one is left out.
const maxOperand = 256

// Explain splits a condition at &&, || and !, and evaluates each of its terms alone. It is for tools: it compiles anew, and
// costs as many evaluations as there are terms. The error is that of Compile.
func Explain(where Use, text string, variables *Variables) ([]Term, error) {
	if _, err := Compile(where, text); err != nil {
		return nil, err
	}
	all, err := environments()
	if err != nil {
		return nil, err
	}
	env, err := all[where].cel.Extend(cel.EnableMacroCallTracking())
	if err != nil {
		return nil, err
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, asInvalid(issues)
	}
	x := explanation{use: where, source: []rune(text), info: parsed.NativeRep().SourceInfo(), variables: variables}
	root := x.condition(parsed.NativeRep().Expr())
	root.decide()
	root.negate(false)
	return root.collect(nil), nil
}

// explanation is one call of Explain.
type explanation struct {
	use       Use
	source    []rune
	info      *ast.SourceInfo
	variables *Variables
}

// condition is a node of a condition: a term, or what joins the conditions in parts.
type condition struct {
	Term

	operator string // "" of a term
	parts    []*condition
}

func (x *explanation) condition(e ast.Expr) *condition {
	c := &condition{}
	if e.Kind() == ast.CallKind {
		switch name := e.AsCall().FunctionName(); name {
		case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot:
			c.operator = name
			for _, argument := range e.AsCall().Args() {
				c.parts = append(c.parts, x.condition(argument))
			}
		}
	}
	c.Text = x.text(e)
	c.Value, c.Err = x.value(c.Text)
	if c.operator == "" {
		c.Line, c.Column = x.begin(e)
		c.Operands = x.operands(e)
	}
	return c
}

func (x *explanation) text(e ast.Expr) string {
	text, err := cel.ExprToString(e, x.info)
	if err != nil {
		return ""
	}
	return strings.Join(strings.Split(text, "\n"), " ") // it wraps long lines; a line break in a literal is escaped
}

func (x *explanation) value(text string) (bool, string) {
	program, err := Compile(x.use, text)
	if err != nil {
		return false, "the term has no value of its own"
	}
	value, err := program.Bool(x.variables)
	var failure *Error
	switch {
	case errors.As(err, &failure):
		return false, failure.Message // its place is one in the term alone
	case err != nil:
		return false, err.Error()
	}
	return value, ""
}

// begin is the place of the first node of an expression: that of a call is its operator's.
func (x *explanation) begin(e ast.Expr) (line, column int) {
	first := int32(-1)
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if at, ok := x.info.GetOffsetRange(e.ID()); ok && (first < 0 || at.Start < first) {
			first = at.Start
		}
	}))
	if first < 0 || int(first) >= len(x.source) {
		return 0, 0
	}
	for x.source[first] == '(' && first > 0 && isNameRune(x.source[first-1]) || isNameRune(x.source[first]) && first > 0 && isNameRune(x.source[first-1]) {
		first-- // a call of a function is where its bracket opens
	}
	at := x.info.GetLocationByOffset(first)
	return at.Line(), at.Column() + 1
}

func isNameRune(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// operands are the longest chains of fields that begin with event or subscription, each once.
func (x *explanation) operands(e ast.Expr) (all []Operand) {
	inner := map[int64]bool{} // the beginnings of longer chains
	var chains []ast.Expr
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.SelectKind || !isField(e) {
			return
		}
		operand := e.AsSelect().Operand()
		inner[operand.ID()] = true
		if !inner[e.ID()] && !e.AsSelect().IsTestOnly() {
			chains = append(chains, e)
		}
	}))
	for _, chain := range chains {
		text := x.text(chain)
		if slices.ContainsFunc(all, func(o Operand) bool { return o.Text == text }) {
			continue
		}
		if value, ok := x.json(text); ok {
			all = append(all, Operand{Text: text, JSON: value})
		}
	}
	return all
}

// isField reports whether an expression is a chain of fields of a variable.
func isField(e ast.Expr) bool {
	for e.Kind() == ast.SelectKind {
		e = e.AsSelect().Operand()
	}
	return e.Kind() == ast.IdentKind && (e.AsIdent() == "event" || e.AsIdent() == "subscription")
}

func (x *explanation) json(text string) (string, bool) {
	program, err := Compile(TransformBody, text)
	if err != nil {
		return "", false
	}
	value, err := program.Value(x.variables)
	if err != nil {
		return "", false
	}
	encoded, err := value.JSON()
	return string(encoded), err == nil && len(encoded) <= maxOperand
}

// decide marks the terms that the condition's result follows from: of an && that is false, those that are false; of an || that
// is true, those that are true; of one that failed, those that failed; else all.
func (c *condition) decide() {
	if c.operator == "" {
		c.Decides = true
		return
	}
	for _, part := range c.parts {
		switch {
		case c.Err != "" && part.Err == "" && c.operator != operators.LogicalNot,
			c.operator == operators.LogicalAnd && c.Err == "" && !c.Value && (part.Value || part.Err != ""),
			c.operator == operators.LogicalOr && c.Err == "" && c.Value && (!part.Value || part.Err != ""):
		default:
			part.decide()
		}
	}
}

// negate marks the terms that stand behind an odd number of !.
func (c *condition) negate(negated bool) {
	c.Negated = negated
	for _, part := range c.parts {
		part.negate(negated != (c.operator == operators.LogicalNot))
	}
}

// collect appends the terms, in the order of the text.
func (c *condition) collect(to []Term) []Term {
	if c.operator == "" {
		return append(to, c.Term)
	}
	for _, part := range c.parts {
		to = part.collect(to)
	}
	return to
}
