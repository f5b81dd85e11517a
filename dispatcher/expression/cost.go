package expression

import (
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

const (
	// CostLimit is the budget of one evaluation, in units of about 50 ns: one for a step, one for each bytesPerUnit of text.
	CostLimit = 100_000
	// MaxText is the length of an expression in bytes.
	MaxText = 4 << 10
	// MaxTransformText is the length of a transform's body in bytes.
	MaxTransformText = 16 << 10
	// MaxProgram is the memory that a compiled expression may take, in bytes (Program.Size).
	MaxProgram = 192 << 10
	// MaxNesting is how deeply an expression may nest.
	MaxNesting = 100
	// MaxOutput is the length in bytes of a text or a document that an evaluation results in.
	MaxOutput = 1 << 20

	bytesPerUnit = 16
	formatCost   = 150 // writing a number with maxPrecision digits
	zoneCost     = 600 // reading a time zone's rules
)

// meter is what an evaluation has used of its budget. A nil meter counts nothing: constants are folded without one.
type meter struct {
	used int64
}

// exceeded unwinds an evaluation whose budget is used up. A value would not do: || and the macros pass over errors.
type exceeded struct{}

func (m *meter) charge(units int64) {
	if m == nil {
		return
	}
	if units < 0 || units > CostLimit-m.used { // never add first: a sum may overflow
		panic(exceeded{})
	}
	m.used += units
}

// chargeProduct charges for a work of n times k without an overflow.
func (m *meter) chargeProduct(n, k int64) {
	if n > 0 && k > CostLimit/n+1 {
		n, k = CostLimit+1, 1
	}
	m.charge(n * k)
}

// chargeText charges for length bytes.
func (m *meter) chargeText(length int) {
	m.charge(int64(length / bytesPerUnit))
}

// chargeSize charges for reading a value, and not what it contains.
func (m *meter) chargeSize(value ref.Val) {
	switch text := value.(type) {
	case types.String:
		m.chargeText(len(text))
	case types.Bytes:
		m.chargeText(len(text))
	case traits.Sizer:
		m.charge(sizeOf(value))
	}
}

// chargeAll charges for reading a value and all that it contains. Lists made by an expression may hold one list many
// times, so the walk itself must end with the budget.
func (m *meter) chargeAll(value ref.Val) {
	if m == nil {
		return
	}
	m.charge(1)
	switch value := value.(type) {
	case *mapping:
		m.charge(value.weight)
	case traits.Lister:
		for it := value.Iterator(); it.HasNext() == types.True; {
			m.chargeAll(it.Next())
		}
	case traits.Mapper:
		for it := value.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			m.chargeAll(key)
			m.chargeAll(value.Get(key))
		}
	case *types.Optional:
		if value.HasValue() {
			m.chargeAll(value.GetValue())
		}
	default:
		m.chargeSize(value)
	}
}

// chargeEqual charges for a comparison, which walks both values no further than the smaller one reaches.
func (m *meter) chargeEqual(a, b ref.Val) {
	m.charge(1)
	switch a := a.(type) {
	case types.String:
		if b, ok := b.(types.String); ok && len(a) == len(b) {
			m.chargeText(len(a))
		}
	case traits.Lister, traits.Mapper, *types.Optional:
		if b.Type() == a.Type() {
			m.chargeAll(a)
		}
	default:
		m.chargeSize(a)
	}
}

func sizeOf(value ref.Val) int64 {
	if s, ok := value.(traits.Sizer); ok {
		if n, ok := s.Size().(types.Int); ok {
			return int64(n)
		}
	}
	return 1
}

func textOf(args []ref.Val, i int) string {
	if i < len(args) {
		if s, ok := args[i].(types.String); ok {
			return string(s)
		}
	}
	return ""
}

// A charge is what a function costs beyond one unit and the sizes of its arguments. It is made before the function
// works, so that its result is never larger than what was charged for.
type charge func(m *meter, args []ref.Val)

// charges names the functions that do more than read their arguments once.
var charges = map[string]charge{
	"replace":       chargeReplace,
	"regex.replace": chargeRegexReplace,
	"regex.extract": chargeMatch, "regex.extractAll": chargeMatches, "matches": chargeMatch,
	"join":        chargeJoin,
	"split":       chargeSplit,
	"lists.range": chargeRange,
	"distinct":    chargeSquare,
	"sort":        chargeSort, "@sortByAssociatedKeys": chargeSort,
	"sets.contains": chargeSets, "sets.equivalent": chargeSets, "sets.intersects": chargeSets,
	"flatten": chargeContents, "format": chargeFormat, "json.encode": chargeContents,
	"formatTime": chargeZone,
	"getDate":    chargeZone, "getDayOfMonth": chargeZone, "getDayOfWeek": chargeZone, "getDayOfYear": chargeZone,
	"getFullYear": chargeZone, "getHours": chargeZone, "getMilliseconds": chargeZone, "getMinutes": chargeZone,
	"getMonth": chargeZone, "getSeconds": chargeZone,
}

func chargeReplace(m *meter, args []ref.Val) {
	text, old, with := textOf(args, 0), textOf(args, 1), textOf(args, 2)
	count := len(text) + 1
	if old != "" {
		count = strings.Count(text, old)
	}
	m.chargeProduct(int64(count), int64(len(with)/bytesPerUnit+1))
}

func chargeJoin(m *meter, args []ref.Val) {
	m.chargeAll(args[0])
	m.chargeProduct(sizeOf(args[0]), int64(len(textOf(args, 1))/bytesPerUnit+1))
}

func chargeSplit(m *meter, args []ref.Val) {
	m.charge(int64(len(textOf(args, 0)) / max(len(textOf(args, 1)), 1)))
}

func chargeRange(m *meter, args []ref.Val) {
	if n, ok := args[0].(types.Int); ok && n > 0 {
		m.charge(int64(n))
	}
}

func chargeSquare(m *meter, args []ref.Val) {
	n := sizeOf(args[0])
	m.chargeProduct(n, n/4+1)
	m.chargeAll(args[0])
}

func chargeSort(m *meter, args []ref.Val) {
	m.chargeAll(args[0])
	m.chargeProduct(sizeOf(args[0]), 4)
}

func chargeSets(m *meter, args []ref.Val) {
	for _, arg := range args {
		m.chargeAll(arg)
	}
	if len(args) == 2 {
		m.chargeProduct(sizeOf(args[0]), sizeOf(args[1]))
	}
}

func chargeContents(m *meter, args []ref.Val) {
	for _, arg := range args {
		m.chargeAll(arg)
	}
}

// chargeFormat charges for the values, and for a number of many digits each.
func chargeFormat(m *meter, args []ref.Val) {
	chargeContents(m, args)
	if len(args) > 1 {
		m.chargeProduct(sizeOf(args[1]), formatCost)
	}
}

func chargeZone(m *meter, args []ref.Val) {
	if len(args) > 1 {
		m.charge(zoneCost)
	}
}

// evalIn evaluates a node for a caller that may have no frame.
func evalIn(vars interpreter.Activation, node interpreter.InterpretableV2) ref.Val {
	if frame, ok := vars.(*interpreter.ExecutionFrame); ok {
		return node.Exec(frame)
	}
	frame, err := interpreter.NewExecutionFrame(vars)
	if err != nil {
		return types.WrapErr(err)
	}
	defer frame.Close()
	return node.Exec(frame)
}

// meterName cannot be written in an expression.
const meterName = "#meter"

// meterOf finds the meter of an evaluation; within a macro it is behind the macro's variables.
func meterOf(vars interpreter.Activation) *meter {
	if frame, ok := vars.(*interpreter.ExecutionFrame); ok {
		if e, ok := frame.Scope().(*evaluation); ok {
			return &e.meter
		}
	}
	if m, ok := vars.ResolveName(meterName); ok {
		return m.(*meter)
	}
	return nil
}
