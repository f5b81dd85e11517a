package expression

import (
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
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
	return e.Exec(interpreter.AsFrame(vars))
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
	return m.Exec(interpreter.AsFrame(vars))
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
	return a.Exec(interpreter.AsFrame(vars))
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

// keyIDs are the nodes that are keys of map literals.
func keyIDs(tree *ast.AST) map[int64]bool {
	ids := map[int64]bool{}
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() == ast.MapKind {
			for _, entry := range e.AsMap().Entries() {
				ids[entry.AsMapEntry().Key().ID()] = true
			}
		}
	}))
	return ids
}

// checkKeys decorates the keys of map literals: what cannot be a key is an error, where cel-go's map would panic.
func checkKeys(keys map[int64]bool) interpreter.InterpretableDecoratorV2 {
	return func(node interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
		if !keys[node.ID()] {
			return node, nil
		}
		constant, ok := node.(interpreter.InterpretableConst)
		switch {
		case !ok:
			return &key{node}, nil
		case !isKey(constant.Value()):
			return nil, fail(WrongType, node.ID(), "a value of type %s is no key of a map", typeName(constant.Value()))
		}
		return node, nil
	}
}

type key struct {
	interpreter.InterpretableV2
}

// Eval implements interpreter.Interpretable.
func (k *key) Eval(vars interpreter.Activation) ref.Val { return k.Exec(interpreter.AsFrame(vars)) }

// Exec implements interpreter.InterpretableV2.
func (k *key) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	value := k.InterpretableV2.Exec(frame)
	if types.IsUnknownOrError(value) || isKey(value) {
		return value
	}
	return types.WrapErr(fail(WrongType, k.ID(), "a value of type %s is no key of a map", typeName(value)))
}
