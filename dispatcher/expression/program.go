package expression

import (
	"errors"
	"regexp/syntax"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// A Program is a compiled expression. It is immutable, and safe for concurrent use.
type Program struct {
	use    string
	size   int
	node   interpreter.InterpretableV2
	places []place // by the id of a node
}

type place struct {
	line, column int32
}

// Compile checks an expression and prepares it. The error is an *InvalidError, whose text is fit for a condition.
func Compile(where Use, text string) (program *Program, err error) {
	defer func() {
		if cause := recover(); cause != nil { // of the compiler: the text is anybody's
			program, err = nil, invalidText("the expression cannot be compiled")
		}
	}()
	all, err := environments()
	if err != nil {
		return nil, err
	}
	env := all[where]
	if len(text) > env.maxText {
		return nil, invalidText("%s may be %d bytes long; this one has %d", env.name, env.maxText, len(text))
	}
	if strings.TrimSpace(text) == "" {
		return nil, invalidText("%s must not be empty", env.name)
	}
	checked, issues := env.cel.Compile(text)
	if issues.Err() != nil {
		return nil, asInvalid(issues)
	}
	if !env.allows(checked.OutputType()) {
		return nil, invalidText("%s must result in %s, not in %s", env.name, resultNames(env.results), cel.FormatCELType(checked.OutputType()))
	}
	size := programSize(checked.NativeRep())
	if size > MaxProgram {
		return nil, invalidText("%s may take %d bytes of memory; this one takes %d: use fewer macros and literals, and shorter patterns", env.name, MaxProgram, size)
	}
	program, err = env.plan(checked)
	if err != nil {
		return nil, err
	}
	program.size = size
	return program, nil
}

// What a program takes in memory, in bytes, rounded up: for itself, for each node of the checked expression, its macros
// expanded, and for each instruction of a pattern. TestProgramSize measures it.
const (
	programBytes     = 512
	nodeBytes        = 192
	literalBytes     = 64 // a node that is a literal
	instructionBytes = 64
)

// programSize estimates the memory that the program of a checked expression takes. It follows from the text alone, so that a
// manager and its dispatchers agree.
func programSize(tree *ast.AST) int {
	size := programBytes
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.LiteralKind {
			size += literalBytes
		} else {
			size += nodeBytes
		}
		if pattern, _, ok := literalPattern(e); ok {
			if parsed, err := syntax.Parse(pattern, syntax.Perl); err == nil {
				size += instructionBytes * int(patternSize(parsed))
			}
		}
	}))
	return size
}

// Size is the memory that the program takes, in bytes: an estimate from above, the same for the same text.
func (p *Program) Size() int { return p.size }

func invalidText(format string, args ...any) error {
	return &InvalidError{Issues: []Issue{{Message: fail("", 0, format, args...).Message}}}
}

func asInvalid(issues *cel.Issues) error {
	invalid := &InvalidError{}
	for _, issue := range issues.Errors() {
		invalid.Issues = append(invalid.Issues, Issue{
			Line: issue.Location.Line(), Column: issue.Location.Column() + 1, Message: issue.Message,
		})
	}
	return invalid
}

// allows reports whether the use takes a result of the type. A dynamic one is checked at each evaluation.
func (e *environment) allows(t *cel.Type) bool {
	if len(e.results) == 0 || t.Kind() == types.DynKind {
		return true
	}
	for _, result := range e.results {
		if result.IsExactType(t) {
			return true
		}
	}
	return false
}

func resultNames(results []*cel.Type) string {
	names := make([]string, len(results))
	for i, t := range results {
		names[i] = cel.FormatCELType(t)
	}
	return strings.Join(names, " or ")
}

// plan makes the nodes that an evaluation runs through.
func (e *environment) plan(checked *cel.Ast) (*Program, error) {
	tree := checked.NativeRep()
	p := &Program{use: e.name, places: placesOf(tree)}
	adapter := e.cel.CELTypeAdapter()
	attributes := &factory{
		AttributeFactory: interpreter.NewAttributeFactory(e.cel.Container, adapter, e.cel.CELTypeProvider()),
		adapter:          adapter,
	}
	planner := interpreter.NewInterpreter(e.dispatcher, e.cel.Container, e.cel.CELTypeProvider(), adapter, attributes)
	node, err := planner.NewInterpretable(tree, interpreter.CustomDecoratorV2(replaceCalls(e.cel, e.dispatcher)),
		interpreter.CustomDecoratorV2(require(requirementsOf(tree))), interpreter.Optimize())
	if err != nil { // a literal that a conversion cannot take, or a pattern
		located := p.locate(err)
		return nil, &InvalidError{Issues: []Issue{{Line: located.Line, Column: located.Column, Message: located.Message}}}
	}
	p.node = node
	return p, nil
}

// placesOf keeps the positions of the nodes, and lets go of the rest of the source's description.
func placesOf(tree *ast.AST) []place {
	info := tree.SourceInfo()
	var places []place
	for id := range info.OffsetRanges() {
		if id < 0 || id > 2*MaxTransformText {
			continue
		}
		for int(id) >= len(places) {
			places = append(places, place{})
		}
		at := info.GetStartLocation(id)
		places[id] = place{line: int32(at.Line()), column: int32(at.Column() + 1)}
	}
	return places
}

var evaluations = sync.Pool{New: func() any { return new(evaluation) }}

// evaluate runs the program. It returns an *Error or a value.
func (p *Program) evaluate(variables *Variables) (result ref.Val, err error) {
	e := evaluations.Get().(*evaluation)
	e.variables = *variables
	result, err = p.run(e)
	*e = evaluation{}
	evaluations.Put(e)
	return result, err
}

func (p *Program) run(e *evaluation) (result ref.Val, err error) {
	frame, err := interpreter.NewExecutionFrame(e)
	if err != nil {
		return nil, fail(Internal, 0, "%s", err)
	}
	defer func() {
		frame.Close()
		if cause := recover(); cause != nil {
			result, err = nil, panicked(cause)
		}
	}()
	result = p.node.Exec(frame)
	if failure, ok := result.(*types.Err); ok {
		return nil, p.locate(failure)
	}
	return result, nil
}

func panicked(cause any) *Error {
	if _, ok := cause.(exceeded); ok {
		return fail(CostExceeded, 0, "the evaluation needs more than %d units; read less of the event, or shorter lists", CostLimit)
	}
	return fail(Internal, 0, "the evaluation panicked") // the cause may show data
}

// asError returns the *Error in a result, nil if there is none.
func asError(result ref.Val) *Error {
	failure, ok := result.(*types.Err)
	if !ok {
		return nil
	}
	var known *Error
	if errors.As(failure, &known) {
		return known
	}
	return nil
}

// locate makes an *Error with its place. What is not one yet comes from a node of cel-go's: they refuse types only.
func (p *Program) locate(err error) *Error {
	id := int64(0)
	var node *types.Err
	if errors.As(err, &node) {
		id = node.NodeID()
	}
	located := Error{Reason: WrongType, Message: "a value has a type that cannot stand here"}
	var known *Error
	if errors.As(err, &known) {
		located = *known
		if known.id != 0 {
			id = known.id
		}
	}
	if id > 0 && int(id) < len(p.places) {
		located.Line, located.Column = int(p.places[id].line), int(p.places[id].column)
	}
	return &located
}

func (p *Program) wrongResult(result ref.Val, want string) error {
	return fail(WrongType, 0, "the result of %s is of type %s, not %s", p.use, typeName(result), want)
}

// Bool evaluates a Filter, a Recheck or an Outcome.
func (p *Program) Bool(variables *Variables) (bool, error) {
	result, err := p.evaluate(variables)
	if err != nil {
		return false, err
	}
	truth, ok := result.(types.Bool)
	if !ok {
		return false, p.wrongResult(result, "bool")
	}
	return bool(truth), nil
}

// Time evaluates a ScheduleTime: a timestamp, or a text that is one by RFC 3339.
func (p *Program) Time(variables *Variables) (time.Time, error) {
	result, err := p.evaluate(variables)
	if err != nil {
		return time.Time{}, err
	}
	at, ok := timeOf(result)
	switch _, text := result.(types.String); {
	case ok:
		return at, nil
	case text:
		return at, fail(InvalidValue, 0, "the result of %s is a text, and no time by RFC 3339", p.use)
	}
	return at, p.wrongResult(result, "timestamp")
}

// Text evaluates a ScheduleZone, a LookupURL or a TransformText.
func (p *Program) Text(variables *Variables) (string, error) {
	result, err := p.evaluate(variables)
	if err != nil {
		return "", err
	}
	text, ok := result.(types.String)
	if !ok {
		return "", p.wrongResult(result, "string")
	}
	return Value{text}.Text()
}

// Key evaluates a ScheduleKey: a text, or a whole number as text. It is not ok if the key is null.
func (p *Program) Key(variables *Variables) (key string, ok bool, err error) {
	result, err := p.evaluate(variables)
	if err != nil {
		return "", false, err
	}
	switch result := result.(type) {
	case types.Null:
		return "", false, nil
	case types.String, types.Int:
		text, _ := scalar(result)
		return text, true, nil
	}
	return "", false, p.wrongResult(result, "string or int")
}

// Value evaluates a TransformBody.
func (p *Program) Value(variables *Variables) (Value, error) {
	result, err := p.evaluate(variables)
	if err != nil {
		return Value{}, err
	}
	// Writing it walks through all of it, and a list may hold another many times.
	if err := weigh(result); err != nil {
		return Value{}, err
	}
	return Value{result}, nil
}

func weigh(result ref.Val) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = panicked(cause)
		}
	}()
	new(meter).chargeAll(result)
	return nil
}
