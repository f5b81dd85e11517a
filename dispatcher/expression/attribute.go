package expression

import (
	"fmt"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// factory makes the attributes of a program: variables with the fields and indices behind them. What is absent reads as
// null; each resolution is charged.
type factory struct {
	interpreter.AttributeFactory
	adapter types.Adapter
}

func (f *factory) AbsoluteAttribute(id int64, names ...string) interpreter.NamespacedAttribute {
	return &attribute{base: f.AttributeFactory.AbsoluteAttribute(id, names...), id: id, factory: f}
}

func (f *factory) RelativeAttribute(id int64, operand interpreter.Interpretable) interpreter.Attribute {
	return &attribute{operand: operand, id: id, factory: f}
}

// NewQualifier ignores the static type of the object: what an expression reads is dynamic, but for a few fixed fields.
func (f *factory) NewQualifier(_ *types.Type, id int64, value any, optional bool) (interpreter.Qualifier, error) {
	switch value := value.(type) {
	case interpreter.Attribute: // before ref.Val: an index that is computed
		return &computed{id: id, Attribute: value, optional: optional, factory: f}, nil
	case string:
		return &constant{id: id, key: types.String(value), optional: optional, factory: f}, nil
	case ref.Val:
		return &constant{id: id, key: value, optional: optional, factory: f}, nil
	}
	return nil, fmt.Errorf("no qualifier can be made of a %T", value)
}

// attribute is a variable, or the result of an operand, with qualifiers.
type attribute struct {
	base       interpreter.NamespacedAttribute // nil if there is an operand
	operand    interpreter.Interpretable
	id         int64
	qualifiers []interpreter.Qualifier
	factory    *factory
}

// ID is that of the last qualifier, as with cel-go's own attributes.
func (a *attribute) ID() int64 {
	if n := len(a.qualifiers); n > 0 {
		return a.qualifiers[n-1].ID()
	}
	return a.id
}

func (a *attribute) IsOptional() bool                    { return false }
func (a *attribute) Qualifiers() []interpreter.Qualifier { return a.qualifiers }

func (a *attribute) AddQualifier(q interpreter.Qualifier) (interpreter.Attribute, error) {
	a.qualifiers = append(a.qualifiers, q)
	return a, nil
}

func (a *attribute) CandidateVariableNames() []string {
	if a.base == nil {
		return nil
	}
	return a.base.CandidateVariableNames()
}

// Resolve returns the attribute's value.
func (a *attribute) Resolve(vars interpreter.Activation) (any, error) {
	meterOf(vars).charge(1)
	object, err := a.start(vars)
	if err != nil || len(a.qualifiers) == 0 {
		return object, err
	}
	return a.qualify(vars, object)
}

func (a *attribute) start(vars interpreter.Activation) (any, error) {
	if a.base != nil {
		return a.base.Resolve(vars)
	}
	value := a.operand.Eval(vars)
	if err, ok := value.(*types.Err); ok {
		return nil, err
	}
	return value, nil
}

// qualify applies the qualifiers. Behind an optional one, what is absent is optional.none().
func (a *attribute) qualify(vars interpreter.Activation, object any) (any, error) {
	optional, isOptional := object.(*types.Optional)
	if isOptional {
		if !optional.HasValue() {
			return optional, nil
		}
		object = optional.GetValue()
	}
	for _, q := range a.qualifiers {
		isOptional = isOptional || q.IsOptional()
		if !isOptional {
			next, err := q.Qualify(vars, object)
			if err != nil {
				return nil, err
			}
			object = next
			continue
		}
		next, present, err := q.QualifyIfPresent(vars, object, false)
		if err != nil {
			return nil, err
		}
		if !present {
			return types.OptionalNone, nil
		}
		object = next
	}
	if isOptional {
		return types.OptionalOf(a.factory.adapter.NativeToValue(object)), nil
	}
	return object, nil
}

// Qualify uses the attribute's value as an index of the object.
func (a *attribute) Qualify(vars interpreter.Activation, object any) (any, error) {
	return a.factory.qualifyBy(vars, a, a.ID(), object)
}

// QualifyIfPresent is Qualify, and reports whether the index is there.
func (a *attribute) QualifyIfPresent(vars interpreter.Activation, object any, _ bool) (any, bool, error) {
	return a.factory.findBy(vars, a, a.ID(), object)
}

// constant is a field, or an index that is a literal.
type constant struct {
	id       int64
	key      ref.Val
	optional bool
	factory  *factory
}

func (c *constant) ID() int64        { return c.id }
func (c *constant) IsOptional() bool { return c.optional }
func (c *constant) Value() ref.Val   { return c.key }

func (c *constant) Qualify(_ interpreter.Activation, object any) (any, error) {
	return orNull(c.factory.find(c.id, object, c.key, false))
}

func (c *constant) QualifyIfPresent(_ interpreter.Activation, object any, _ bool) (any, bool, error) {
	return found(c.factory.find(c.id, object, c.key, true))
}

// computed is an index that an attribute computes.
type computed struct {
	interpreter.Attribute

	id       int64
	optional bool
	factory  *factory
}

func (c *computed) ID() int64        { return c.id }
func (c *computed) IsOptional() bool { return c.optional }

func (c *computed) Qualify(vars interpreter.Activation, object any) (any, error) {
	return c.factory.qualifyBy(vars, c.Attribute, c.id, object)
}

func (c *computed) QualifyIfPresent(vars interpreter.Activation, object any, _ bool) (any, bool, error) {
	return c.factory.findBy(vars, c.Attribute, c.id, object)
}

func (f *factory) qualifyBy(vars interpreter.Activation, index interpreter.Attribute, id int64, object any) (any, error) {
	key, err := index.Resolve(vars)
	if err != nil {
		return nil, err
	}
	return orNull(f.find(id, object, f.adapter.NativeToValue(key), false))
}

func (f *factory) findBy(vars interpreter.Activation, index interpreter.Attribute, id int64, object any) (any, bool, error) {
	key, err := index.Resolve(vars)
	if err != nil {
		return nil, false, err
	}
	return found(f.find(id, object, f.adapter.NativeToValue(key), true))
}

// orNull makes null of what is absent.
func orNull(value ref.Val, err error) (any, error) {
	if value == nil && err == nil {
		return types.NullValue, nil
	}
	return value, err
}

func found(value ref.Val, err error) (any, bool, error) {
	return value, value != nil, err
}

// find returns the member of the object that the key names, nil if it has none. If only asked whether it is there
// (has() and the optional syntax), an object that can have no members has none; else that is an error.
func (f *factory) find(id int64, object any, key ref.Val, asked bool) (ref.Val, error) {
	switch object := object.(type) {
	case types.Null:
		return nil, nil
	case *mapping:
		return object.find(key), nil
	case record:
		return object.field(id, key)
	}
	value := f.adapter.NativeToValue(object)
	switch value := value.(type) {
	case *types.Err:
		return nil, value
	case traits.Mapper:
		return member(id, value, key)
	case traits.Lister:
		found, err := element(id, value, key)
		if asked && err != nil {
			return nil, nil
		}
		return found, err
	}
	if asked {
		return nil, nil
	}
	return nil, fail(WrongType, id, "a value of type %s has no fields and no elements", typeName(value))
}

func member(id int64, m traits.Mapper, key ref.Val) (ref.Val, error) {
	if !isKey(key) {
		return nil, fail(WrongType, id, "a value of type %s is no key of a map", typeName(key))
	}
	value, ok := m.Find(key)
	switch {
	case ok:
		return value, nil
	case types.IsError(value):
		return nil, fail(WrongType, id, "a value of type %s is no key of a map", typeName(key))
	}
	return nil, nil
}

func element(id int64, list traits.Lister, key ref.Val) (ref.Val, error) {
	index, err := types.GetOrError(key)
	if err != nil {
		return nil, fail(WrongType, id, "the index of a list is an int, not a value of type %s", typeName(key))
	}
	if size, ok := list.Size().(types.Int); !ok || index < 0 || index >= int(size) {
		return nil, nil
	}
	return list.Get(types.Int(index)), nil
}

// isKey reports whether a map may have the key. One of bytes would panic: Go cannot hash it.
func isKey(key ref.Val) bool {
	return types.IsPrimitiveType(key) && key.Type() != types.BytesType
}

func typeName(value ref.Val) string {
	if value == nil {
		return "nothing"
	}
	switch value.Type() {
	case types.NullType:
		return "null"
	case types.TimestampType:
		return "timestamp"
	case types.DurationType:
		return "duration"
	}
	return value.Type().TypeName()
}
