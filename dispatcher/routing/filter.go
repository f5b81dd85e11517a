package routing

import (
	"runtime"
	"strings"
	"sync"
	"weak"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/expression"
)

// Filter decides which of the events that match a route's patterns are delivered. It is immutable and safe for concurrent
// use.
type Filter struct {
	program      *expression.Program
	unknown      error // why there is no program
	subscription *expression.Subscription
	skipErrors   bool
}

// Keeps reports whether an event is to be delivered. With an error, an *expression.Error, the filter could not tell, and
// the answer is what spec.filterErrors says.
func (f *Filter) Keeps(variables *expression.Variables) (bool, error) {
	if f.program == nil {
		return !f.skipErrors, f.unknown
	}
	variables.Subscription = f.subscription
	keep, err := f.program.Bool(variables)
	if err != nil {
		return !f.skipErrors, err
	}
	return keep, nil
}

// compileFilter takes up the filter, which is compiled already.
func (c *compiler) compileFilter() error {
	if c.spec.FilterErrors != v1alpha1.FilterErrorsDeliver && c.spec.FilterErrors != v1alpha1.FilterErrorsSkip {
		return reject(v1alpha1.ReasonInvalidSpec, "spec.filterErrors: must be Deliver or Skip")
	}
	c.entry.Filter = c.spec.Filter
	c.entry.SkipFilterErrors = c.spec.Filter != "" && c.spec.FilterErrors == v1alpha1.FilterErrorsSkip
	return nil
}

// filter returns the entry's filter; nil if it has none. A text that does not compile here was accepted by a manager of
// another version: it fails for every event, so that events are not lost.
func (e *Entry) filter() *Filter {
	if e.Filter == "" {
		return nil
	}
	f := &Filter{
		subscription: expression.NewSubscription(e.Name, e.Namespace, e.Labels),
		skipErrors:   e.SkipFilterErrors,
	}
	f.program, f.unknown = programOf(expression.Filter, e.Filter)
	if f.unknown != nil {
		f.unknown = notCompiled()
	}
	return f
}

// programs are those in use: routes with the same expression share one, and so do a table and the next.
var programs = cache[source, expression.Program]{values: make(map[source]weak.Pointer[expression.Program])}

// source is what a program is compiled from.
type source struct {
	use  expression.Use
	text string
}

// programOf compiles an expression, or returns the program that was.
func programOf(use expression.Use, text string) (*expression.Program, error) {
	from := source{use, strings.Clone(text)}
	if program := programs.get(from); program != nil {
		return program, nil
	}
	program, err := expression.Compile(use, from.text)
	if err != nil {
		return nil, err
	}
	return programs.put(from, program), nil
}

// cache holds values for as long as somebody else does.
type cache[K comparable, V any] struct {
	mu     sync.Mutex
	values map[K]weak.Pointer[V]
}

func (c *cache[K, V]) get(key K) *V {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.values[key].Value()
}

// put adds a value, unless there is one, and returns the one that is there then.
func (c *cache[K, V]) put(key K, value *V) *V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if there := c.values[key].Value(); there != nil {
		return there
	}
	entry := weak.Make(value)
	c.values[key] = entry
	runtime.AddCleanup(value, func(weak.Pointer[V]) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.values[key] == entry { // no other took its place
			delete(c.values, key)
		}
	}, entry)
	return value
}
