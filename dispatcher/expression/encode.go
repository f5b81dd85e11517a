package expression

import (
	"encoding/base64"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/go-json-experiment/json/jsontext"
)

// appendJSON appends a value as JSON. Objects that came as JSON keep the order of their keys, others are sorted: the
// same value is always the same text. Times are RFC 3339 texts, durations seconds with an "s", bytes base64.
func appendJSON(to []byte, v ref.Val) ([]byte, error) {
	if len(to) > MaxOutput {
		return nil, fail(CostExceeded, 0, "the document is longer than %d bytes", MaxOutput)
	}
	switch v := v.(type) {
	case types.Null:
		return append(to, "null"...), nil
	case types.Bool:
		return strconv.AppendBool(to, bool(v)), nil
	case types.Int:
		return strconv.AppendInt(to, int64(v), 10), nil
	case types.Uint:
		return strconv.AppendUint(to, uint64(v), 10), nil
	case types.Double:
		return appendDouble(to, float64(v))
	case types.String:
		return appendText(to, string(v)), nil
	case types.Bytes:
		return appendText(to, base64.StdEncoding.EncodeToString(v)), nil
	case types.Timestamp:
		return appendText(to, v.UTC().Format(time.RFC3339Nano)), nil
	case types.Duration:
		return appendText(to, strconv.FormatFloat(v.Seconds(), 'f', -1, 64)+"s"), nil
	case *types.Optional:
		if v.HasValue() {
			return appendJSON(to, v.GetValue())
		}
		return append(to, "null"...), nil
	case traits.Lister:
		return appendList(to, v)
	case traits.Mapper:
		return appendMap(to, v)
	}
	return nil, fail(WrongType, 0, "JSON has no value of type %s", typeName(v))
}

func appendText(to []byte, text string) []byte {
	to, _ = jsontext.AppendQuote(to, text) // its error is invalid UTF-8, which it has replaced
	return to
}

func appendDouble(to []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fail(InvalidValue, 0, "JSON has no infinite number, and none that is no number")
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) { // as ECMAScript writes them
		return strconv.AppendFloat(to, f, 'e', -1, 64), nil
	}
	return strconv.AppendFloat(to, f, 'f', -1, 64), nil
}

func appendList(to []byte, list traits.Lister) (_ []byte, err error) {
	to = append(to, '[')
	first := true
	for it := list.Iterator(); it.HasNext() == types.True; first = false {
		if !first {
			to = append(to, ',')
		}
		if to, err = appendJSON(to, it.Next()); err != nil {
			return nil, err
		}
	}
	return append(to, ']'), nil
}

func appendMap(to []byte, m traits.Mapper) (_ []byte, err error) {
	keys, values, err := entries(m)
	if err != nil {
		return nil, err
	}
	to = append(to, '{')
	for i, key := range keys {
		if i > 0 {
			to = append(to, ',')
		}
		to = append(appendText(to, key), ':')
		if to, err = appendJSON(to, values[key]); err != nil {
			return nil, err
		}
	}
	return append(to, '}'), nil
}

// entries returns the keys of a map in the order to write them, and its values.
func entries(m traits.Mapper) (keys []string, values map[string]ref.Val, err error) {
	values = map[string]ref.Val{}
	for it := m.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		text, ok := scalar(key)
		if !ok {
			return nil, nil, fail(WrongType, 0, "a value of type %s is no key of a document", typeName(key))
		}
		if _, twice := values[text]; twice {
			return nil, nil, fail(InvalidValue, 0, "two keys of a map are written alike")
		}
		keys = append(keys, text)
		values[text] = m.Get(key)
	}
	if _, ordered := m.(*mapping); !ordered {
		slices.Sort(keys)
	}
	return keys, values, nil
}

// scalar returns a value as text, if it is a text, a number, a truth or a time.
func scalar(v ref.Val) (string, bool) {
	switch v := v.(type) {
	case types.String:
		return string(v), true
	case types.Int, types.Uint, types.Double, types.Bool:
		text, ok := toString(v).(types.String)
		return string(text), ok
	case types.Timestamp:
		return v.UTC().Format(time.RFC3339Nano), true
	}
	return "", false
}

// A Value is the result of a transform's body.
type Value struct {
	value ref.Val
}

// IsText reports whether the value is a text, which is sent as it is.
func (v Value) IsText() bool {
	_, ok := v.value.(types.String)
	return ok
}

// Text returns the value if it is a text.
func (v Value) Text() (string, error) {
	text, ok := v.value.(types.String)
	switch {
	case !ok:
		return "", fail(WrongType, 0, "the result is of type %s, not a text", typeName(v.value))
	case len(text) > MaxOutput:
		return "", fail(CostExceeded, 0, "the result is longer than %d bytes", MaxOutput)
	}
	return string(text), nil
}

// JSON returns the value as a JSON document of at most MaxOutput bytes.
func (v Value) JSON() ([]byte, error) {
	text, err := appendJSON(nil, v.value)
	if err == nil && len(text) > MaxOutput {
		err = fail(CostExceeded, 0, "the document is longer than %d bytes", MaxOutput)
	}
	if err != nil {
		return nil, err
	}
	return text, nil
}

// Form returns the value, a map, as application/x-www-form-urlencoded (the WHATWG URL standard, section 5.2), sorted by
// key; a list stands for a key that stands several times. A null is an error: a form cannot say it, and a field that
// is missing would go unnoticed.
func (v Value) Form() ([]byte, error) {
	m, ok := v.value.(traits.Mapper)
	if !ok {
		return nil, fail(WrongType, 0, "a form is a map, not a value of type %s", typeName(v.value))
	}
	keys, values, err := entries(m)
	if err != nil {
		return nil, err
	}
	form := url.Values{}
	for _, key := range keys {
		if err := addField(form, key, values[key]); err != nil {
			return nil, err
		}
	}
	text := form.Encode()
	if len(text) > MaxOutput {
		return nil, fail(CostExceeded, 0, "the form is longer than %d bytes", MaxOutput)
	}
	return []byte(text), nil
}

func addField(form url.Values, key string, v ref.Val) error {
	if text, ok := scalar(v); ok {
		form.Add(key, text)
		return nil
	}
	list, ok := v.(traits.Lister)
	if !ok {
		return fail(WrongType, 0, "a field of a form cannot be of type %s", typeName(v))
	}
	for it := list.Iterator(); it.HasNext() == types.True; {
		element := it.Next()
		text, ok := scalar(element)
		if !ok {
			return fail(WrongType, 0, "a field of a form cannot be of type %s", typeName(element))
		}
		form.Add(key, text)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
