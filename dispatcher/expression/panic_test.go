package expression

import (
	"fmt"
	"strings"
	"testing"
)

// anyValues are values of all types that an expression can make.
const anyValues = `[dyn(null), '', 'a', 'é(', 5, -1, 5u, 2.5, 0.0 / 0.0, true, b'', b'\xff', [], ['a', 5], [[1]], {}, {'a': 5}, ` +
	`event.data, event.data.list, event.timestamp, duration('1h'), optional.none(), optional.of('a'), type(1), event, subscription, 9223372036854775807]`

// valueCount is how many there are.
const valueCount = 27

// fewValues are for a third argument: all triples would take seconds.
const fewValues = `[dyn(null), 'a', -1, 9223372036854775807, [], event.data.list]`

// TestNoFunctionPanics calls all functions and operators with values of all types: each is a value or an error.
func TestNoFunctionPanics(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("has no concurrency, and runs without the race detector: make test")
	}
	all, err := environments()
	if err != nil {
		t.Fatal(err)
	}
	compiled, refused := 0, []string{}
	for name, function := range all[Filter].cel.Functions() {
		for _, overload := range function.OverloadDecls() {
			if callWithAny(t, name, overload.IsMemberFunction(), len(overload.ArgTypes())) {
				compiled++
			} else {
				refused = append(refused, name)
			}
		}
	}
	if compiled < 250 {
		t.Errorf("only %d overloads were called", compiled)
	}
	t.Logf("%d overloads were called; not these: %s", compiled, strings.Join(refused, " "))
}

// callWithAny calls a function with each value as its first argument, and reports whether it can be called. One evaluation
// has budget for the calls with one first argument.
func callWithAny(t *testing.T, name string, member bool, count int) bool {
	t.Helper()
	for first := range valueCount {
		text := anyCall(name, member, count, first)
		program, err := Compile(Filter, text)
		if err != nil {
			return false
		}
		got, err := program.Bool(filterVariables(truthData))
		if err != nil {
			checkError(t, err)
			if name != "lists.range" && name != "formatTime" && name != "regex.replace" { // they cost too much for so many calls
				t.Errorf("%s: %v", name, err)
			}
		}
		if !got && err == nil {
			t.Errorf("%s is false", text)
		}
		if count == 0 {
			break
		}
	}
	return true
}

// anyCall is an expression that is true if no call panics whose first argument is that one of anyValues.
func anyCall(name string, member bool, count, first int) string {
	args := []string{"a", "b", "c"}[:min(count, 3)]
	for len(args) < count {
		args = append(args, "event.data.text")
	}
	call := operatorCall(name, args)
	switch {
	case call != "":
	case member:
		call = fmt.Sprintf("%s.%s(%s)", args[0], name, strings.Join(args[1:], ", "))
	default:
		call = fmt.Sprintf("%s(%s)", name, strings.Join(args, ", "))
	}
	text := "type(" + call + ") == type(1) || true"
	for i, arg := range args[:min(count, 3)] {
		values := anyValues
		switch i {
		case 0:
			values = fmt.Sprintf("[%s[%d]]", anyValues, first)
		case 2:
			values = fewValues
		}
		text = values + ".all(" + arg + ", " + text + ")"
	}
	return text
}

// operatorCall writes an operator as one does, "" if the name is a function's.
func operatorCall(name string, args []string) string {
	switch {
	case name == "_[_]":
		return args[0] + "[" + args[1] + "]"
	case name == "_[?_]":
		return args[0] + "[?" + args[1] + "]"
	case name == "_?._":
		return args[0] + ".?a"
	case name == "_?_:_":
		return args[0] + " ? " + args[1] + " : " + args[2]
	case name == "@in":
		return args[0] + " in " + args[1]
	case name == "@sortByAssociatedKeys":
		return args[0] + ".sortBy(e, e)"
	case name == "math.@max", name == "math.@min":
		name = map[string]string{"math.@max": "math.greatest", "math.@min": "math.least"}[name]
		return name + "(" + strings.Join(args, ", ") + ")"
	case strings.HasPrefix(name, "_") && strings.HasSuffix(name, "_") && len(args) == 2:
		return args[0] + " " + strings.Trim(name, "_") + " " + args[1]
	case strings.HasSuffix(name, "_") && len(args) == 1:
		return strings.Trim(name, "_") + args[0]
	}
	return ""
}
