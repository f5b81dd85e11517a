package expression

import (
	"regexp"
	"regexp/syntax"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/functions"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// call is an operator or a function. It stands for cel-go's own nodes: it charges before it works, and its errors show
// no data.
type call struct {
	id       int64
	function string
	overload string
	args     []interpreter.InterpretableV2
	impl     *functions.Overload // nil if only a receiver knows it
	charge   charge
	declared *cel.Env
}

// replaceCalls decorates each call node.
func replaceCalls(env *cel.Env, dispatcher interpreter.Dispatcher) interpreter.InterpretableDecoratorV2 {
	return func(node interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
		inner, ok := node.(interpreter.InterpretableCall)
		if !ok {
			return node, nil
		}
		c := &call{
			id: inner.ID(), function: inner.Function(), overload: inner.OverloadID(), args: inner.Args(),
			charge: charges[inner.Function()], declared: env,
		}
		if special := c.special(); special != nil {
			return special, nil
		}
		if c.overload != "" {
			c.impl, _ = dispatcher.FindOverload(c.overload)
		}
		if c.impl == nil {
			c.impl, _ = dispatcher.FindOverload(c.function)
		}
		if c.function == "matches" {
			if err := c.compilePattern(); err != nil {
				return nil, err
			}
		}
		return c, nil
	}
}

// compilePattern compiles a pattern that is a literal, once.
func (c *call) compilePattern() error {
	if len(c.args) != 2 {
		return nil
	}
	pattern, ok := c.args[1].(interpreter.InterpretableConst)
	if !ok {
		return nil
	}
	text, ok := pattern.Value().(types.String)
	if !ok {
		return nil
	}
	tree, err := syntax.Parse(string(text), syntax.Perl)
	if err != nil {
		return fail(InvalidValue, c.id, "invalid pattern")
	}
	compiled, err := regexp.Compile(string(text))
	if err != nil {
		return fail(InvalidValue, c.id, "invalid pattern")
	}
	c.charge = chargeLiteralMatch(patternSize(tree))
	c.impl = &functions.Overload{Operator: c.overload, Binary: func(subject, _ ref.Val) ref.Val {
		if s, ok := subject.(types.String); ok {
			return types.Bool(compiled.MatchString(string(s)))
		}
		return types.NoSuchOverloadErr()
	}}
	return nil
}

func (c *call) ID() int64                           { return c.id }
func (c *call) Function() string                    { return c.function }
func (c *call) OverloadID() string                  { return c.overload }
func (c *call) Args() []interpreter.InterpretableV2 { return c.args }

// Eval is Exec for callers that have no frame.
func (c *call) Eval(vars interpreter.Activation) ref.Val { return evalIn(vars, c) }

// Exec evaluates the arguments, charges, and calls.
func (c *call) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	m := meterOf(frame)
	m.charge(1)
	switch {
	case len(c.args) == 1 && c.charge == nil && (c.impl == nil || c.impl.Unary != nil):
		return c.unary(frame, m)
	case len(c.args) == 2 && c.charge == nil && (c.impl == nil || c.impl.Binary != nil):
		return c.binary(frame, m)
	}
	return c.general(frame, m)
}

func (c *call) strict() bool { return c.impl == nil || !c.impl.NonStrict }

func (c *call) unary(frame *interpreter.ExecutionFrame, m *meter) ref.Val {
	arg := c.args[0].Exec(frame)
	if c.strict() && types.IsUnknownOrError(arg) {
		return arg
	}
	m.chargeSize(arg)
	var result ref.Val
	if c.takes(arg) {
		result = c.impl.Unary(arg)
	} else {
		result = c.receive(arg)
	}
	if types.IsError(result) {
		return c.failed(result, arg)
	}
	return result
}

func (c *call) binary(frame *interpreter.ExecutionFrame, m *meter) ref.Val {
	left := c.args[0].Exec(frame)
	right := c.args[1].Exec(frame)
	if c.strict() {
		if types.IsUnknownOrError(left) {
			return left
		}
		if types.IsUnknownOrError(right) {
			return right
		}
	}
	if _, mutable := left.(traits.MutableLister); !mutable { // a macro adds to its own list at the price of a step
		m.chargeSize(left)
	}
	m.chargeSize(right)
	var result ref.Val
	if c.takes(left) {
		result = c.impl.Binary(left, right)
	} else {
		result = c.receive(left, right)
	}
	if types.IsError(result) {
		return c.failed(result, left, right)
	}
	return result
}

func (c *call) general(frame *interpreter.ExecutionFrame, m *meter) ref.Val {
	args := make([]ref.Val, len(c.args))
	for i, arg := range c.args {
		args[i] = arg.Exec(frame)
		if c.strict() && types.IsUnknownOrError(args[i]) {
			return args[i]
		}
	}
	for _, arg := range args {
		if _, mutable := arg.(traits.MutableMapper); !mutable {
			m.chargeSize(arg)
		}
	}
	if c.charge != nil {
		c.charge(m, args)
	}
	result := c.invoke(args)
	if types.IsError(result) {
		return c.failed(result, args...)
	}
	return result
}

// takes reports whether the bound function may be called with arg as its first argument.
func (c *call) takes(arg ref.Val) bool {
	return c.impl != nil && (c.impl.OperandTrait == 0 || !c.strict() && types.IsUnknownOrError(arg) ||
		arg.Type().HasTrait(c.impl.OperandTrait))
}

func (c *call) invoke(args []ref.Val) ref.Val {
	switch {
	case len(args) > 0 && !c.takes(args[0]):
		return c.receive(args[0], args[1:]...)
	case c.impl == nil:
		return types.NoSuchOverloadErr()
	case len(args) == 1 && c.impl.Unary != nil:
		return c.impl.Unary(args[0])
	case len(args) == 2 && c.impl.Binary != nil:
		return c.impl.Binary(args[0], args[1])
	case c.impl.Function != nil:
		return c.impl.Function(args...)
	}
	return types.NoSuchOverloadErr()
}

// receive asks the value itself for the method, as times and durations have it.
func (c *call) receive(target ref.Val, args ...ref.Val) ref.Val {
	if receiver, ok := target.(traits.Receiver); ok && target.Type().HasTrait(traits.ReceiverType) {
		return receiver.Receive(c.function, c.overload, args)
	}
	return types.NoSuchOverloadErr()
}

// failed makes an *Error of what the function returned, unless that is the *Error of an argument.
func (c *call) failed(result ref.Val, args ...ref.Val) ref.Val {
	if asError(result) != nil {
		return result
	}
	names := make([]string, len(args))
	for i, arg := range args {
		if types.IsError(arg) {
			return arg
		}
		names[i] = typeName(arg)
	}
	name, given := displayName(c.function), strings.Join(names, " and ")
	if c.accepts(args) {
		return types.WrapErr(fail(InvalidValue, c.id, "%s cannot take this value: it got %s", name, given))
	}
	return types.WrapErr(fail(WrongType, c.id, "%s does not take %s", name, given))
}

// accepts reports whether the function is declared for the types of the arguments.
func (c *call) accepts(args []ref.Val) bool {
	declared := c.declared.Functions()[c.function]
	if declared == nil {
		return false
	}
	for _, overload := range declared.OverloadDecls() {
		if matches(overload.ArgTypes(), args) {
			return true
		}
	}
	return false
}

func matches(declared []*types.Type, args []ref.Val) bool {
	if len(declared) != len(args) {
		return false
	}
	for i, t := range declared {
		if !t.IsAssignableRuntimeType(args[i]) {
			return false
		}
	}
	return true
}

// displayName is a function's name as one writes it.
func displayName(function string) string {
	if name, ok := operators.FindReverse(function); ok && name != "" {
		return "operator " + name
	}
	return "function " + strings.TrimPrefix(function, "@")
}
