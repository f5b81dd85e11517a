package expression

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"sync"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxValues is how many values a document may hold: parsed, each takes up to about 150 bytes.
	MaxValues = 1 << 17
	// maxDepth is how deeply a document may nest; ingest accepts 500.
	maxDepth = 1000
	// indexFrom is the number of keys from which an object has an index.
	indexFrom = 9
)

// A Document is JSON that is parsed when it is first read, once. It is safe for concurrent use.
type Document struct {
	text  []byte
	once  sync.Once
	value ref.Val
	err   *Error
}

// NewDocument returns the document of a JSON text, which must not change as long as the document is in use. It reads as
// null if the text is empty.
func NewDocument(text []byte) *Document {
	return &Document{text: text}
}

// read returns the document's value. A nil document is null.
func (d *Document) read() (ref.Val, error) {
	if d == nil || len(d.text) == 0 {
		return types.NullValue, nil
	}
	d.once.Do(d.parse)
	if d.err != nil {
		return nil, d.err
	}
	return d.value, nil
}

func (d *Document) parse() {
	p := parser{decoder: jsontext.NewDecoder(bytes.NewBuffer(d.text),
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))}
	value, err := p.value(0)
	if err == nil {
		if _, err = p.decoder.ReadToken(); errors.Is(err, io.EOF) {
			d.value = value
			return
		}
	}
	var known *Error
	if !errors.As(err, &known) {
		known = fail(MalformedData, 0, "the document is not JSON, from byte %d on", p.decoder.InputOffset())
	}
	d.err = known
}

type parser struct {
	decoder *jsontext.Decoder
	values  int
}

func (p *parser) value(depth int) (ref.Val, error) {
	if p.values++; p.values > MaxValues {
		return nil, fail(CostExceeded, 0, "the document holds more than %d values", MaxValues)
	}
	if depth > maxDepth {
		return nil, fail(CostExceeded, 0, "the document nests deeper than %d levels", maxDepth)
	}
	token, err := p.decoder.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case jsontext.KindNull:
		return types.NullValue, nil
	case jsontext.KindTrue:
		return types.True, nil
	case jsontext.KindFalse:
		return types.False, nil
	case jsontext.KindString:
		return types.String(token.String()), nil
	case jsontext.KindNumber:
		return number(token.String())
	case jsontext.KindBeginObject:
		return p.object(depth)
	default:
		return p.array(depth)
	}
}

// number makes an int of what is one, and a double of the rest. Beyond what a double holds, it is an infinity.
func number(text string) (ref.Val, error) {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return types.Int(i), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return nil, err
	}
	return types.Double(f), nil
}

func (p *parser) array(depth int) (ref.Val, error) {
	var elements []ref.Val
	for p.decoder.PeekKind() != jsontext.KindEndArray {
		element, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		elements = append(elements, element)
	}
	if _, err := p.decoder.ReadToken(); err != nil {
		return nil, err
	}
	return types.NewRefValList(types.DefaultTypeAdapter, elements), nil
}

func (p *parser) object(depth int) (ref.Val, error) {
	m := &mapping{}
	before, start := p.values, p.decoder.InputOffset()
	for p.decoder.PeekKind() != jsontext.KindEndObject {
		name, err := p.decoder.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String()
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		m.put(key, value)
	}
	if _, err := p.decoder.ReadToken(); err != nil {
		return nil, err
	}
	m.weight = int64(p.values-before) + (p.decoder.InputOffset()-start)/bytesPerUnit
	return m, nil
}

// mapping is a JSON object: a CEL map that keeps the order of its keys, and costs nothing to look into.
type mapping struct {
	keys   []ref.Val // types.String each
	values []ref.Val
	index  map[string]int // nil while there are few keys
	weight int64          // what walking through all of it costs
}

// put adds a key, or replaces the value that it has.
func (m *mapping) put(key string, value ref.Val) {
	if i := m.position(key); i >= 0 {
		m.values[i] = value
		return
	}
	m.keys, m.values = append(m.keys, types.String(key)), append(m.values, value)
	switch n := len(m.keys); {
	case n == indexFrom:
		m.index = make(map[string]int, 2*n)
		for i, key := range m.keys {
			m.index[string(key.(types.String))] = i
		}
	case n > indexFrom:
		m.index[key] = n - 1
	}
}

func (m *mapping) position(key string) int {
	if m.index != nil {
		if i, ok := m.index[key]; ok {
			return i
		}
		return -1
	}
	for i, have := range m.keys {
		if string(have.(types.String)) == key {
			return i
		}
	}
	return -1
}

// find returns the value of a key, nil if the object does not have it.
func (m *mapping) find(key ref.Val) ref.Val {
	if text, ok := key.(types.String); ok {
		if i := m.position(string(text)); i >= 0 {
			return m.values[i]
		}
	}
	return nil
}

// Find implements traits.Mapper.
func (m *mapping) Find(key ref.Val) (ref.Val, bool) {
	value := m.find(key)
	return value, value != nil
}

// Get implements traits.Indexer. What is absent is null here as well.
func (m *mapping) Get(key ref.Val) ref.Val {
	if value := m.find(key); value != nil {
		return value
	}
	return types.NullValue
}

// Contains implements traits.Container.
func (m *mapping) Contains(key ref.Val) ref.Val { return types.Bool(m.find(key) != nil) }

// Iterator implements traits.Iterable, over the keys in their order.
func (m *mapping) Iterator() traits.Iterator {
	return types.NewRefValList(types.DefaultTypeAdapter, m.keys).Iterator()
}

// Size implements traits.Sizer.
func (m *mapping) Size() ref.Val { return types.Int(len(m.keys)) }

// IsZeroValue implements traits.Zeroer.
func (m *mapping) IsZeroValue() bool { return len(m.keys) == 0 }

// Type implements ref.Val.
func (m *mapping) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (m *mapping) Value() any { return m }

// Equal implements ref.Val: the same keys with equal values, in any order.
func (m *mapping) Equal(other ref.Val) ref.Val {
	o, ok := other.(traits.Mapper)
	if !ok || o.Size() != m.Size() {
		return types.False
	}
	for i, key := range m.keys {
		value, ok := o.Find(key)
		if !ok || types.Equal(m.values[i], value) != types.True {
			return types.False
		}
	}
	return types.True
}

// ConvertToType implements ref.Val.
func (m *mapping) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.MapType:
		return m
	case types.TypeType:
		return types.MapType
	}
	return types.NoSuchOverloadErr()
}

// ConvertToNative implements ref.Val; nothing here needs it.
func (m *mapping) ConvertToNative(t reflect.Type) (any, error) {
	if reflect.TypeOf(m).AssignableTo(t) {
		return m, nil
	}
	return nil, fmt.Errorf("a JSON object is not converted to %v", t)
}
