package expression

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // zones are the same wherever the binary runs

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// functions are those that CEL's own libraries do not have.
func ownFunctions() []cel.EnvOption {
	text, blob, whole := cel.StringType, cel.BytesType, []*cel.Type{cel.StringType}
	hash := cel.UnaryBinding(func(v ref.Val) ref.Val {
		sum := sha256.Sum256(bytesOf(v))
		return types.Bytes(sum[:])
	})
	toHex := cel.UnaryBinding(func(v ref.Val) ref.Val { return types.String(hex.EncodeToString(bytesOf(v))) })
	return []cel.EnvOption{
		cel.Function("formatTime",
			cel.Overload("formatTime_timestamp", []*cel.Type{cel.TimestampType, text, text}, text, cel.FunctionBinding(formatTime)),
			cel.Overload("formatTime_string", []*cel.Type{text, text, text}, text, cel.FunctionBinding(formatTime))),
		cel.Function("base64.encode", cel.Overload("base64_encode_string", whole, text,
			cel.UnaryBinding(func(v ref.Val) ref.Val { return types.String(base64.StdEncoding.EncodeToString(bytesOf(v))) }))),
		cel.Function("hex.encode",
			cel.Overload("hex_encode_string", whole, text, toHex),
			cel.Overload("hex_encode_bytes", []*cel.Type{blob}, text, toHex)),
		cel.Function("hex.decode", cel.Overload("hex_decode_string", whole, blob, cel.UnaryBinding(decodeHex))),
		cel.Function("sha256",
			cel.Overload("sha256_string", whole, blob, hash),
			cel.Overload("sha256_bytes", []*cel.Type{blob}, blob, hash)),
		cel.Function("urlEscape", cel.Overload("urlEscape_string", whole, text, cel.UnaryBinding(urlEscape))),
		cel.Function("json.encode", cel.Overload("json_encode", []*cel.Type{cel.DynType}, text, cel.UnaryBinding(encodeJSON))),
		cel.Function("toString",
			cel.Overload("toString_string", whole, text, cel.UnaryBinding(toString)),
			cel.Overload("toString_int", []*cel.Type{cel.IntType}, text, cel.UnaryBinding(toString)),
			cel.Overload("toString_uint", []*cel.Type{cel.UintType}, text, cel.UnaryBinding(toString)),
			cel.Overload("toString_double", []*cel.Type{cel.DoubleType}, text, cel.UnaryBinding(toString)),
			cel.Overload("toString_bool", []*cel.Type{cel.BoolType}, text, cel.UnaryBinding(toString)),
			cel.Overload("toString_timestamp", []*cel.Type{cel.TimestampType}, text, cel.UnaryBinding(toString))),
	}
}

func bytesOf(v ref.Val) []byte {
	switch v := v.(type) {
	case types.String:
		return []byte(v)
	case types.Bytes:
		return v
	}
	return nil
}

// invalid is a value that a function cannot take; the call says which function it was.
func invalid() ref.Val { return types.NewErr("invalid value") }

// formatTime formats a time, or a text that is one by RFC 3339, in a zone, by a layout of Go's package time.
func formatTime(args ...ref.Val) ref.Val {
	at, ok := timeOf(args[0])
	if !ok {
		return invalid()
	}
	zone, err := Zone(textOf(args, 1))
	if err != nil {
		return invalid()
	}
	return types.String(at.In(zone).Format(textOf(args, 2)))
}

// timeOf reads a time, or a text that is one by RFC 3339.
func timeOf(v ref.Val) (time.Time, bool) {
	switch v := v.(type) {
	case types.Timestamp:
		return v.Time, true
	case types.String:
		at, err := time.Parse(time.RFC3339, string(v))
		return at, err == nil
	}
	return time.Time{}, false
}

var zones sync.Map // name → *time.Location; as large as the time zone database

// Zone returns the time zone of an IANA name, such as America/New_York. Unlike time.LoadLocation, it knows no zone
// without a name and none of the machine.
func Zone(name string) (*time.Location, error) {
	if zone, ok := zones.Load(name); ok {
		return zone.(*time.Location), nil
	}
	if name == "" || name == "Local" {
		return nil, fail(InvalidValue, 0, "a time zone needs its IANA name, such as America/New_York")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fail(InvalidValue, 0, "the time zone is not known; use an IANA name, such as America/New_York")
	}
	zones.Store(name, zone)
	return zone, nil
}

func decodeHex(v ref.Val) ref.Val {
	decoded, err := hex.DecodeString(string(v.(types.String)))
	if err != nil {
		return invalid()
	}
	return types.Bytes(decoded)
}

// urlEscape escapes all but RFC 3986's unreserved characters, so that the text may stand in a path and in a query.
func urlEscape(v ref.Val) ref.Val {
	return types.String(strings.ReplaceAll(url.QueryEscape(string(v.(types.String))), "+", "%20"))
}

// toString is string() but for doubles: they are written without an exponent, and without a fraction if they have none.
func toString(v ref.Val) ref.Val {
	switch v := v.(type) {
	case types.Double:
		if f := float64(v); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return types.String(strconv.FormatFloat(f, 'f', -1, 64))
		}
		return invalid()
	default:
		return v.ConvertToType(types.StringType)
	}
}

func encodeJSON(v ref.Val) ref.Val {
	text, err := appendJSON(nil, v)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.String(text)
}
