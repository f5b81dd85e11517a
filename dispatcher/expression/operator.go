package expression

import (
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// special returns the node of an operator that does not evaluate its operands as a function does, nil for all others.
func (c *call) special() interpreter.InterpretableV2 {
	if len(c.args) != 2 {
		return nil
	}
	o := operands{id: c.id, function: c.function, left: c.args[0], right: c.args[1]}
	switch c.function {
	case operators.Equals, operators.NotEquals:
		return &equality{operands: o, want: c.function == operators.Equals}
	case operators.In, operators.OldIn:
		return &membership{operands: o, texts: textsOf(o.right)}
	case "or", "orValue":
		return &alternative{operands: o, unwrap: c.function == "orValue"}
	}
	return nil
}

// operands are those of an operator with two.
type operands struct {
	id          int64
	function    string
	left, right interpreter.InterpretableV2
}

func (o *operands) ID() int64 { return o.id }

func (o *operands) wrong(left, right ref.Val) ref.Val {
	return types.WrapErr(fail(WrongType, o.id, "%s does not take %s and %s", displayName(o.function), typeName(left), typeName(right)))
}

// equality is == and !=, which every two values have. null equals null, and nothing else.
type equality struct {
	operands

	want bool
}

// Eval implements interpreter.Interpretable.
func (e *equality) Eval(vars interpreter.Activation) ref.Val {
	return evalIn(vars, e)
}

// Exec implements interpreter.InterpretableV2.
func (e *equality) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	left := e.left.Exec(frame)
	right := e.right.Exec(frame)
	if types.IsUnknownOrError(left) {
		return left
	}
	if types.IsUnknownOrError(right) {
		return right
	}
	meterOf(frame).chargeEqual(left, right)
	return types.Bool((types.Equal(left, right) == types.True) == e.want)
}

// membership is "in".
type membership struct {
	operands

	texts map[string]bool // the right side, if that is a list of literal texts
}

// textsOf returns the elements of a list of literal texts, nil for every other node.
func textsOf(node interpreter.InterpretableV2) map[string]bool {
	constant, ok := node.(interpreter.InterpretableConst)
	if !ok {
		return nil
	}
	list, ok := constant.Value().(traits.Lister)
	if !ok {
		return nil
	}
	texts := map[string]bool{}
	for it := list.Iterator(); it.HasNext() == types.True; {
		text, ok := it.Next().(types.String)
		if !ok {
			return nil
		}
		texts[string(text)] = true
	}
	return texts
}

// Eval implements interpreter.Interpretable.
func (m *membership) Eval(vars interpreter.Activation) ref.Val {
	return evalIn(vars, m)
}

// Exec implements interpreter.InterpretableV2.
func (m *membership) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	meter := meterOf(frame)
	meter.charge(1)
	left := m.left.Exec(frame)
	if types.IsUnknownOrError(left) {
		return left
	}
	if m.texts != nil {
		text, ok := left.(types.String)
		return types.Bool(ok && m.texts[string(text)])
	}
	right := m.right.Exec(frame)
	if types.IsUnknownOrError(right) {
		return right
	}
	switch within := right.(type) {
	case types.Null:
		return types.False
	case traits.Mapper:
		meter.chargeSize(left)
		return types.Bool(isKey(left) && within.Contains(left) == types.True)
	case traits.Lister:
		for it := within.Iterator(); it.HasNext() == types.True; {
			element := it.Next()
			meter.chargeEqual(left, element)
			if types.Equal(left, element) == types.True {
				return types.True
			}
		}
		return types.False
	}
	return m.wrong(left, right)
}

// alternative is or() and orValue() of an optional value; the right side is evaluated only if it is needed.
type alternative struct {
	operands

	unwrap bool
}

// Eval implements interpreter.Interpretable.
func (a *alternative) Eval(vars interpreter.Activation) ref.Val {
	return evalIn(vars, a)
}

// Exec implements interpreter.InterpretableV2.
func (a *alternative) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	meterOf(frame).charge(1)
	left := a.left.Exec(frame)
	if types.IsUnknownOrError(left) {
		return left
	}
	optional, ok := left.(*types.Optional)
	switch {
	case !ok:
		return types.WrapErr(fail(WrongType, a.id, "%s is a method of an optional value, not of %s", displayName(a.function), typeName(left)))
	case !optional.HasValue():
		return a.right.Exec(frame)
	case a.unwrap:
		return optional.GetValue()
	}
	return left
}

// A requirement is what a node's value must be where cel-go does not check, or panics.
type requirement struct {
	fits func(ref.Val) bool
	want string
}

var (
	mapKey    = requirement{isKey, "is no key of a map"}
	loopRange = requirement{isRange, "is no list and no map to go through"}
)

// isRange reports whether a macro may go through the value. cel-go goes through an empty text.
func isRange(value ref.Val) bool {
	switch value.(type) {
	case traits.Lister, traits.Mapper:
		return true
	}
	return false
}

// requirementsOf returns those of an expression, by the id of a node.
func requirementsOf(tree *ast.AST) map[int64]requirement {
	all := map[int64]requirement{}
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.MapKind:
			for _, entry := range e.AsMap().Entries() {
				all[entry.AsMapEntry().Key().ID()] = mapKey
			}
		case ast.ComprehensionKind:
			all[e.AsComprehension().IterRange().ID()] = loopRange
		default:
		}
	}))
	return all
}

// require decorates the nodes that have a requirement.
func require(all map[int64]requirement) interpreter.InterpretableDecoratorV2 {
	return func(node interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
		required, ok := all[node.ID()]
		if !ok {
			return node, nil
		}
		checked := &check{node, required}
		if constant, ok := node.(interpreter.InterpretableConst); ok {
			if err := checked.error(constant.Value()); err != nil {
				return nil, err
			}
			return node, nil
		}
		return checked, nil
	}
}

// check is a node whose value must fit.
type check struct {
	interpreter.InterpretableV2
	requirement
}

func (c *check) error(value ref.Val) error {
	if types.IsUnknownOrError(value) || c.fits(value) {
		return nil
	}
	return fail(WrongType, c.ID(), "a value of type %s %s", typeName(value), c.want)
}

// Eval implements interpreter.Interpretable.
func (c *check) Eval(vars interpreter.Activation) ref.Val { return evalIn(vars, c) }

// Exec implements interpreter.InterpretableV2.
func (c *check) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	value := c.InterpretableV2.Exec(frame)
	if err := c.error(value); err != nil {
		return types.WrapErr(err)
	}
	return value
}
