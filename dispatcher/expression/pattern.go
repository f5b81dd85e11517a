package expression

import (
	"errors"
	"io"
	"regexp"
	"regexp/syntax"
	"slices"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// MaxPattern is the size of all literal patterns of an expression, in instructions of package regexp: about one for each
// character that a pattern may match, so that 'a{100}' is 100 long.
const MaxPattern = 2000

// patternFunctions take a pattern as their second argument.
var patternFunctions = map[string]bool{"matches": true, "regex.extract": true, "regex.extractAll": true, "regex.replace": true}

// patternSize estimates how many instructions package regexp makes of a pattern. It does not make them: there may be
// millions.
func patternSize(tree *syntax.Regexp) int64 {
	size := int64(0)
	for _, sub := range tree.Sub {
		size += patternSize(sub)
	}
	switch tree.Op {
	case syntax.OpConcat:
		return size
	case syntax.OpLiteral:
		return int64(len(tree.Rune))
	case syntax.OpCharClass:
		return int64(1 + len(tree.Rune)/8)
	case syntax.OpAlternate:
		return size + int64(len(tree.Sub))
	case syntax.OpRepeat:
		if tree.Min != tree.Max {
			size++ // it may end after each
		}
		return size*int64(max(tree.Min, tree.Max, 1)) + 1
	case syntax.OpCapture:
		return size + 2
	default:
		return size + 1
	}
}

// looksAround reports whether a match depends on what stands before it.
func looksAround(tree *syntax.Regexp) bool {
	switch tree.Op {
	case syntax.OpBeginLine, syntax.OpBeginText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return true
	default:
		return slices.ContainsFunc(tree.Sub, looksAround)
	}
}

// literalPattern returns the pattern that a call names as a literal, with the literal's id.
func literalPattern(e ast.Expr) (pattern string, id int64, ok bool) {
	if e.Kind() != ast.CallKind || !patternFunctions[e.AsCall().FunctionName()] {
		return "", 0, false
	}
	args := e.AsCall().Args()
	if !e.AsCall().IsMemberFunction() && len(args) > 0 { // a.matches(b) and matches(a, b)
		args = args[1:]
	}
	if len(args) == 0 || args[0].Kind() != ast.LiteralKind {
		return "", 0, false
	}
	text, ok := args[0].AsLiteral().(types.String)
	return string(text), args[0].ID(), ok
}

// patternValidator checks literal patterns before anything compiles them.
type patternValidator struct{}

// Name implements cel.ASTValidator.
func (patternValidator) Name() string { return "eventflow.patterns" }

// Validate implements cel.ASTValidator.
func (patternValidator) Validate(_ *cel.Env, _ cel.ValidatorConfig, tree *ast.AST, issues *cel.Issues) {
	total := int64(0)
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		text, id, ok := literalPattern(e)
		if !ok {
			return
		}
		parsed, err := syntax.Parse(text, syntax.Perl)
		var reason *syntax.Error
		switch {
		case errors.As(err, &reason):
			issues.ReportErrorAtID(id, "invalid pattern: %s", reason.Code)
			return
		case err != nil:
			issues.ReportErrorAtID(id, "invalid pattern")
			return
		}
		before := total
		if total += patternSize(parsed); total > MaxPattern && before <= MaxPattern { // it is said once
			issues.ReportErrorAtID(id, "the patterns of an expression may have %d instructions; repeat less", MaxPattern)
		}
	}))
}

const (
	// stepsPerUnit is how many instructions of a pattern one unit pays for: each is tried at each byte of a text.
	stepsPerUnit = 4
	// compileBase and compileUnits are what compiling a pattern costs: to begin with, and for each instruction.
	compileBase  = 200
	compileUnits = 8
)

// chargePattern charges for parsing and compiling a pattern, and returns it; nil if it is none.
func (m *meter) chargePattern(pattern string) *syntax.Regexp {
	m.charge(compileBase)
	m.chargeProduct(int64(len(pattern)+1), 2)
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil // the function says so
	}
	m.chargeProduct(patternSize(tree), compileUnits)
	return tree
}

// chargeSearch charges for one search through length bytes.
func (m *meter) chargeSearch(length int, size int64) {
	m.chargeProduct(int64(length+1), size/stepsPerUnit+1)
}

// chargeMatch charges for a function that searches a text once.
func chargeMatch(m *meter, args []ref.Val) {
	if tree := m.chargePattern(textOf(args, 1)); tree != nil {
		m.chargeSearch(len(textOf(args, 0)), patternSize(tree))
	}
}

// chargeLiteralMatch is chargeMatch for a pattern that is compiled already.
func chargeLiteralMatch(size int64) charge {
	return func(m *meter, args []ref.Val) { m.chargeSearch(len(textOf(args, 0)), size) }
}

// chargeMatches charges for a function that searches all matches. Each search may read up to the end of the text, for
// a match of one byte: so it searches first, with a reader that counts.
func chargeMatches(m *meter, args []ref.Val) {
	text, pattern := textOf(args, 0), textOf(args, 1)
	tree := m.chargePattern(pattern)
	if tree == nil || m == nil {
		return
	}
	size := patternSize(tree)
	if looksAround(tree) { // the reader shows a search nothing of what stands before it
		m.chargeProduct(int64(len(text)+1), 16*(size/stepsPerUnit+1))
		return
	}
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return
	}
	for text != "" {
		found := compiled.FindReaderIndex(&countingReader{text: text, meter: m, units: 2 * (size/stepsPerUnit + 1)})
		if found == nil {
			return
		}
		end := found[1]
		if found[0] == end { // an empty match: the next search begins a character later
			_, width := utf8.DecodeRuneInString(text[end:])
			end += max(width, 1)
		}
		text = text[min(end, len(text)):]
	}
}

// countingReader charges for each character that a search reads.
type countingReader struct {
	text  string
	meter *meter
	units int64
}

// ReadRune implements io.RuneReader.
func (r *countingReader) ReadRune() (char rune, width int, err error) {
	r.meter.charge(r.units)
	if r.text == "" {
		return 0, 0, io.EOF
	}
	char, width = utf8.DecodeRuneInString(r.text)
	r.text = r.text[width:]
	return char, width, nil
}

// chargeRegexReplace charges for the matches, and for the text that replaces them.
func chargeRegexReplace(m *meter, args []ref.Val) {
	chargeMatches(m, args)
	// An empty match between any two bytes; a group in the replacement stands for the whole text at most.
	text, with := textOf(args, 0), textOf(args, 2)
	m.chargeProduct(int64(len(text)+1), int64(len(with)/bytesPerUnit+1))
	for i := range len(with) {
		if with[i] == '\\' {
			m.chargeText(len(text))
		}
	}
}
