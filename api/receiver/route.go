package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/clinikapi/eventflow/api/event"
)

// Handler handles an event. Nil means that it is done, and answers 200. Any error answers 500, so that the dispatcher
// tries again; see RetryAfter and ErrStop. The context ends when the dispatcher hangs up, and after Config.Lease.
type Handler func(ctx context.Context, e Event) error

// Routes maps patterns to handlers; see event.Pattern.
type Routes map[event.Pattern]Handler

// Typed returns a Handler that decodes the event's data, by encoding/json, and gives it to handle. If the data does not
// decode, the delivery fails and is tried again. That error names the field and shows nothing of the data.
func Typed[T any](handle func(ctx context.Context, e Event, data T) error) Handler {
	return func(ctx context.Context, e Event) error {
		var data T
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return decodeError[T](e.Type, err)
		}
		return handle(ctx, e, data)
	}
}

// decodeError does not wrap the error of encoding/json, whose text may quote the data.
func decodeError[T any](typ event.Type, err error) error {
	var data T
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("the data of %s does not decode into %T: field %q is no %v", typ, data, wrong.Field, wrong.Type)
	}
	return fmt.Errorf("the data of %s does not decode into %T", typ, data)
}

// routes are Routes that were checked.
type routes map[event.Pattern]Handler

// compile checks the patterns against the catalog of the clinical resources and extra.
func compile(on Routes, extra []string) (routes, error) {
	catalog, err := event.NewCatalog(extra...)
	if err != nil {
		return nil, fmt.Errorf("resources: %w", err)
	}
	compiled := make(routes, len(on))
	for pattern, handler := range on {
		if _, err := event.ParsePattern(string(pattern)); err != nil {
			return nil, err
		}
		if err := catalog.Check(pattern); err != nil {
			return nil, fmt.Errorf("%w; name your own in Resources", err)
		}
		if handler == nil {
			return nil, fmt.Errorf("pattern %q has no handler", pattern)
		}
		compiled[pattern] = handler
	}
	return compiled, nil
}

// find returns the handler of the most specific pattern that matches t, and nil if none does. All stands for whatever the
// subscription gets, operational events too.
func (r routes) find(t event.Type) Handler {
	for _, pattern := range []event.Pattern{event.Pattern(t), event.Pattern(t.Resource() + ".*"), event.All} {
		// A type that is written as a pattern must not be taken for one.
		if handler, ok := r[pattern]; ok && (pattern == event.All || pattern.Matches(t)) {
			return handler
		}
	}
	return nil
}
