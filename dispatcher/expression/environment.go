package expression

import (
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"
)

// A Use is a place in a subscription where an expression may stand. It decides on the variables and the result.
type Use int

// The uses, with the fields of the spec that they are for. All but Outcome have event and subscription.
const (
	// Filter is spec.filter and a filter of spec.schedule.cancelOn: a bool.
	Filter Use = iota
	// ScheduleTime is spec.schedule.at: a timestamp.
	ScheduleTime
	// ScheduleKey is spec.schedule.key, and a key of cancelOn: a text or a whole number.
	ScheduleKey
	// ScheduleZone is spec.schedule.window.timeZone, where that is no IANA name: a text.
	ScheduleZone
	// Recheck is spec.schedule.recheck: a bool; it has now.
	Recheck
	// LookupURL is spec.lookup.url: a text.
	LookupURL
	// TransformBody is spec.transform.body: any value; it has lookup and delivery.
	TransformBody
	// TransformText is a URL's suffix or a header of spec.transform: a text; it has lookup and delivery.
	TransformText
	// Outcome is spec.outcome.success and giveUp: a bool; it has response alone.
	Outcome

	useCount
)

// use describes a Use.
type use struct {
	name      string
	variables []cel.EnvOption
	results   []*cel.Type // empty: any
	maxText   int
}

func uses() [useCount]use {
	event := cel.Variable("event", eventRecord)
	published := []cel.EnvOption{event, cel.Variable("subscription", subscriptionType)}
	with := func(more ...cel.EnvOption) []cel.EnvOption { return append(published[:2:2], more...) }
	attempt := with(cel.Variable("lookup", cel.DynType), cel.Variable("delivery", deliveryType))
	text, truth := []*cel.Type{cel.StringType}, []*cel.Type{cel.BoolType}
	return [useCount]use{
		Filter:        {"a filter", published, truth, MaxText},
		ScheduleTime:  {"the time of a schedule", published, []*cel.Type{cel.TimestampType, cel.StringType}, MaxText},
		ScheduleKey:   {"a key", published, []*cel.Type{cel.StringType, cel.IntType}, MaxText},
		ScheduleZone:  {"a time zone", published, text, MaxText},
		Recheck:       {"a recheck", with(cel.Variable("now", cel.TimestampType)), truth, MaxText},
		LookupURL:     {"a URL", published, text, MaxText},
		TransformBody: {"a body", attempt, nil, MaxTransformText},
		TransformText: {"a text of a transform", attempt, text, MaxText},
		Outcome:       {"an outcome", []cel.EnvOption{cel.Variable("response", responseType)}, truth, MaxText},
	}
}

// environment is what all programs of a Use share.
type environment struct {
	use
	cel        *cel.Env
	dispatcher interpreter.Dispatcher
}

// environments are made once, when the first expression is compiled.
var environments = sync.OnceValues(func() (all [useCount]*environment, err error) {
	base, err := cel.NewEnv(libraries()...)
	if err != nil {
		return all, fmt.Errorf("make the CEL environment: %w", err)
	}
	dispatcher, err := dispatcherOf(base)
	if err != nil {
		return all, err
	}
	for i, use := range uses() {
		env, err := base.Extend(use.variables...)
		if err != nil {
			return all, fmt.Errorf("make the CEL environment of %s: %w", use.name, err)
		}
		all[i] = &environment{use: use, cel: env, dispatcher: dispatcher}
	}
	return all, nil
})

// libraries are Kubernetes' where they fit, each of a fixed version, so that an update changes no expression's meaning.
func libraries() []cel.EnvOption {
	registry, err := types.NewRegistry()
	if err != nil {
		registry = nil // cannot be: it registers nothing
	}
	return append([]cel.EnvOption{
		cel.CustomTypeAdapter(registry),
		cel.CustomTypeProvider(provider{registry}),
		cel.EagerlyValidateDeclarations(true),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(MaxTransformText),
		cel.ParserRecursionLimit(MaxNesting),
		cel.OptionalTypes(cel.OptionalTypesVersion(2)),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), patternValidator{}),
		ext.Bindings(ext.BindingsVersion(0)),
		ext.Encoders(ext.EncodersVersion(0)),
		ext.Lists(ext.ListsVersion(3)),
		ext.Math(ext.MathVersion(2)),
		ext.Regex(ext.RegexVersion(0)),
		ext.Sets(ext.SetsVersion(0)),
		ext.Strings(ext.StringsVersion(4), ext.StringsMaxPrecision(maxPrecision)),
		ext.TwoVarComprehensions(ext.TwoVarComprehensionsVersion(0)),
	}, ownFunctions()...)
}

// maxPrecision bounds the digits that format() writes of a number.
const maxPrecision = 100

func dispatcherOf(env *cel.Env) (interpreter.Dispatcher, error) {
	dispatcher := interpreter.NewDispatcher()
	for name, function := range env.Functions() {
		bindings, err := function.Bindings()
		if err == nil {
			err = dispatcher.Add(bindings...)
		}
		if err != nil {
			return nil, fmt.Errorf("bind the CEL function %s: %w", name, err)
		}
	}
	return dispatcher, nil
}
