package expression

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The reference model: what docs/filters.md says, over what encoding/json makes of the document. It knows texts, numbers
// below 100, truths, null, lists and objects.

type outcome struct {
	value any
	err   bool
}

var wrong = outcome{err: true}

type node interface {
	text() string
	eval(data any, locals map[string]any) outcome
}

type (
	literal struct{ source string }
	path    struct {
		root  string
		steps []string
	}
	binary struct {
		op          string
		left, right node
	}
	not   struct{ of node }
	has   struct{ of path }
	macro struct {
		name string
		over node
		body node
	}
)

func (l literal) text() string { return l.source }
func (l literal) eval(any, map[string]any) outcome {
	var v any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(l.source, "'", `"`)), &v); err != nil {
		panic(err)
	}
	return outcome{value: v}
}

func (p path) text() string {
	return p.root + strings.Join(p.steps, "")
}

func (p path) eval(data any, locals map[string]any) outcome {
	at, ok := locals[p.root]
	if !ok {
		at = data
	}
	for _, step := range p.steps {
		switch have := at.(type) {
		case nil:
		case map[string]any:
			at = have[strings.TrimPrefix(step, ".")]
			if step == "[0]" {
				at = nil
			}
		case []any:
			if step != "[0]" {
				return wrong
			}
			at = nil
			if len(have) > 0 {
				at = have[0]
			}
		default:
			return wrong
		}
	}
	return outcome{value: at}
}

func (h has) text() string { return "has(" + h.of.text() + ")" }
func (h has) eval(data any, locals map[string]any) outcome {
	last := len(h.of.steps) - 1
	holder := path{h.of.root, h.of.steps[:last]}.eval(data, locals)
	if holder.err {
		return wrong
	}
	if have, isObject := holder.value.(map[string]any); isObject {
		_, ok := have[strings.TrimPrefix(h.of.steps[last], ".")]
		return outcome{value: ok}
	}
	return outcome{value: false} // of null, and of what has no fields
}

func (n not) text() string { return "!(" + n.of.text() + ")" }
func (n not) eval(data any, locals map[string]any) outcome {
	if v, ok := n.of.eval(data, locals).value.(bool); ok {
		return outcome{value: !v}
	}
	return wrong
}

func (b binary) text() string { return "(" + b.left.text() + " " + b.op + " " + b.right.text() + ")" }
func (b binary) eval(data any, locals map[string]any) outcome {
	l, r := b.left.eval(data, locals), b.right.eval(data, locals)
	if b.op == "&&" || b.op == "||" {
		return logic(b.op == "||", l, r)
	}
	if l.err || r.err {
		return wrong
	}
	switch b.op {
	case "==":
		return outcome{value: same(l.value, r.value)}
	case "!=":
		return outcome{value: !same(l.value, r.value)}
	case "in":
		return within(l.value, r.value)
	}
	return less(b.op, l.value, r.value)
}

func logic(decides bool, l, r outcome) outcome {
	if l.value == decides || r.value == decides {
		return outcome{value: decides}
	}
	if l.value == !decides && r.value == !decides {
		return outcome{value: !decides}
	}
	return wrong
}

func same(a, b any) bool {
	left, _ := json.Marshal(a)
	right, _ := json.Marshal(b)
	return bytes.Equal(left, right)
}

func within(v, in any) outcome {
	switch in := in.(type) {
	case nil:
		return outcome{value: false}
	case []any:
		return outcome{value: slices.ContainsFunc(in, func(e any) bool { return same(v, e) })}
	case map[string]any:
		key, isText := v.(string)
		_, ok := in[key]
		return outcome{value: isText && ok}
	}
	return wrong
}

func less(op string, l, r any) outcome {
	var compare int
	switch left := l.(type) {
	case float64:
		right, ok := r.(float64)
		if !ok {
			return wrong
		}
		compare = int(left*10) - int(right*10)
	case string:
		right, ok := r.(string)
		if !ok {
			return wrong
		}
		compare = strings.Compare(left, right)
	case bool:
		right, ok := r.(bool)
		if !ok {
			return wrong
		}
		compare = map[bool]int{true: 1}[left] - map[bool]int{true: 1}[right]
	default:
		return wrong
	}
	switch op {
	case "<":
		return outcome{value: compare < 0}
	default:
		return outcome{value: compare >= 0}
	}
}

func (m macro) text() string { return m.over.text() + "." + m.name + "(i, " + m.body.text() + ")" }
func (m macro) eval(data any, locals map[string]any) outcome {
	over := m.over.eval(data, locals)
	var elements []any
	switch have := over.value.(type) {
	case []any:
		elements = have
	case map[string]any:
		for key := range have {
			elements = append(elements, key)
		}
	default:
		return wrong
	}
	result := outcome{value: m.name == "all"}
	for _, element := range elements {
		each := m.body.eval(data, map[string]any{"i": element})
		result = logic(m.name == "exists", result, each)
	}
	return result
}

var steps = []string{".a", ".b", ".c", ".absent", "[0]"}

func randomPath(r *rand.Rand, local bool) path {
	p := path{root: "event.data"}
	if local && r.IntN(2) == 0 {
		p.root = "i"
	}
	for n := r.IntN(4); len(p.steps) < n || len(p.steps) == 0 && p.root == "event.data"; {
		step := steps[r.IntN(len(steps))]
		if step == "[0]" && len(p.steps) == 0 && p.root == "event.data" {
			continue // data is declared as an object: that would not compile
		}
		p.steps = append(p.steps, step)
	}
	return p
}

func randomNode(r *rand.Rand, depth int, local bool) node {
	if depth == 0 {
		if r.IntN(2) == 0 {
			return literal{[]string{"null", "'a'", "'b'", "1", "2.5", "true", "false", "['a', 1, null]"}[r.IntN(8)]}
		}
		return randomPath(r, local)
	}
	switch r.IntN(9) {
	case 0:
		return not{randomTruth(r, depth-1, local)}
	case 1:
		p := randomPath(r, local)
		for p.root == "i" || len(p.steps) == 0 || p.steps[len(p.steps)-1] == "[0]" {
			p = randomPath(r, local)
		}
		return has{p}
	case 2, 3:
		return binary{[]string{"&&", "||"}[r.IntN(2)], randomTruth(r, depth-1, local), randomTruth(r, depth-1, local)}
	case 4:
		return macro{[]string{"exists", "all"}[r.IntN(2)], randomPath(r, false), randomTruth(r, depth-1, true)}
	}
	op := []string{"==", "!=", "<", ">=", "in"}[r.IntN(5)]
	left, right := node(randomPath(r, local)), randomNode(r, 0, local)
	return binary{op, left, right}
}

// randomTruth avoids literals where the compiler wants a truth.
func randomTruth(r *rand.Rand, depth int, local bool) node {
	if depth == 0 {
		return randomPath(r, local)
	}
	return randomNode(r, depth, local)
}

func randomJSON(r *rand.Rand, depth int) any {
	if depth == 0 || r.IntN(3) == 0 {
		return []any{nil, "a", "b", "", 1.0, 2.5, true, false}[r.IntN(8)]
	}
	if r.IntN(3) == 0 {
		list := make([]any, r.IntN(4))
		for i := range list {
			list[i] = randomJSON(r, depth-1)
		}
		return list
	}
	return randomObject(r, depth)
}

func randomObject(r *rand.Rand, depth int) map[string]any {
	object := map[string]any{}
	for _, key := range []string{"a", "b", "c"} {
		if r.IntN(3) > 0 {
			object[key] = randomJSON(r, depth-1)
		}
	}
	return object
}

// TestFilterAgreesWithModel: over random documents, random filters answer as the truth table says.
func TestFilterAgreesWithModel(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("has no concurrency, and runs without the race detector: make test")
	}
	r := rand.New(rand.NewPCG(5, 6))
	counts := map[string]int{}
	for range 6000 {
		expression := randomNode(r, 1+r.IntN(3), false)
		program, err := Compile(Filter, expression.text())
		if err != nil {
			counts["refused"]++ // such as 'a' in 1: the compiler knows better
			continue
		}
		for range 4 {
			data := randomObject(r, 3)
			text, err := json.Marshal(data)
			if err != nil {
				t.Fatal(err)
			}
			want := expression.eval(data, nil)
			got, err := program.Bool(filterVariables(string(text)))
			result := outcome{value: got, err: err != nil}
			if err != nil {
				result.value = nil
			}
			if _, isTruth := want.value.(bool); !isTruth {
				want = wrong
			}
			if result != want {
				t.Fatalf("%s over %s: got %+v (%v), want %+v", expression.text(), text, result, err, want)
			}
			counts[fmt.Sprint(want)]++
		}
	}
	for _, kind := range []string{"{true false}", "{false false}", "{<nil> true}"} {
		if counts[kind] < 1000 {
			t.Errorf("only %d of %s; counts %v", counts[kind], kind, counts)
		}
	}
}

// checkError fails the test unless err is an *Error of a known reason that shows none of the secrets.
func checkError(t testing.TB, err error, secrets ...string) {
	t.Helper()
	var known *Error
	if !errors.As(err, &known) || !slices.Contains(Reasons(), known.Reason) || known.Message == "" {
		t.Fatalf("the error %#v is not one of this package", err)
	}
	if known.Reason == Internal {
		t.Fatalf("an internal error: %v", err)
	}
	for _, secret := range secrets {
		if strings.Contains(err.Error(), secret) {
			t.Fatalf("the error shows data: %v", err)
		}
	}
}

// FuzzFilter: no text and no document makes a filter panic, or fail in a way that is not declared.
func FuzzFilter(f *testing.F) {
	for _, row := range truthTable {
		for _, kind := range truthKinds {
			f.Add(truthExpression(row.expression, kind), truthData)
		}
	}
	f.Add("[[1,1]].map(a, [a,a]).map(a, [a,a]) == [[2]]", "{}")
	f.Add("event.data.list.exists(i, i", `{"a":1,"a":2}`)
	f.Fuzz(func(t *testing.T, text, data string) {
		program, err := Compile(Filter, text)
		if err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) || err.Error() == "" {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if _, err := program.Bool(filterVariables(data)); err != nil {
			checkError(t, err)
		}
	})
}

// FuzzTransform is FuzzFilter for bodies: what they result in is a document or an error.
func FuzzTransform(f *testing.F) {
	f.Add("{'To': lookup.phone, 'Body': 'at ' + formatTime(event.data.start, 'America/New_York', '3:04 PM')}", `{"start":"2026-01-15T09:00:00Z"}`)
	f.Add("json.encode(event.data) + hex.encode(sha256('a'))", truthData)
	f.Add("event.data.list.map(i, {'v': i})", truthData)
	f.Add("lists.range(100000000)", "{}")
	f.Add("event.data", `{"a":{"b":[1e400,-0,1e-7,18446744073709551615]}}`)
	f.Fuzz(func(t *testing.T, text, data string) {
		program, err := Compile(TransformBody, text)
		if err != nil {
			return
		}
		variables := filterVariables(data)
		variables.Lookup, variables.Delivery = NewDocument([]byte(data)), NewDelivery("del_1", 1, variables.Now)
		value, err := program.Value(variables)
		if err != nil {
			checkError(t, err)
			return
		}
		if document, err := value.JSON(); err != nil {
			checkError(t, err)
		} else if !json.Valid(document) || len(document) > MaxOutput {
			t.Fatalf("%q: the document is not JSON: %.200s", text, document)
		}
		if _, err := value.Form(); err != nil {
			checkError(t, err)
		}
	})
}
