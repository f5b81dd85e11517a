package routing

import (
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/plan"
)

// Rules decide, when an event is published, what it causes for one subscription: nothing, a delivery at once, a planned one,
// or the end of a planned one. They are immutable and safe for concurrent use.
type Rules struct {
	filter   *Filter
	schedule *schedule
}

// schedule is a Schedule, compiled.
type schedule struct {
	subscription *expression.Subscription
	at, key      formulaProgram
	zone         formulaProgram
	rules        plan.Rules // Window has no Zone if an expression results in one
	cancelOn     []cancelRule
}

// cancelRule is a CancelRule, compiled.
type cancelRule struct {
	patterns []event.Pattern
	filter   formulaProgram
	key      formulaProgram
}

// formulaProgram is a program, why there is none although the field is set, or neither.
type formulaProgram struct {
	program *expression.Program
	unknown error
}

// notCompiled is what an evaluation of an expression fails with that a newer manager accepted.
func notCompiled() error {
	return &expression.Error{Reason: expression.Internal, Message: "this version cannot compile the expression"}
}

// compiled returns the program of a text; none for "".
func compiled(use expression.Use, text string) (f formulaProgram) {
	if text == "" {
		return f
	}
	var err error
	if f.program, err = programOf(use, text); err != nil {
		f.unknown = notCompiled()
	}
	return f
}

// isSet reports whether the field is.
func (f formulaProgram) isSet() bool { return f.program != nil || f.unknown != nil }

// rulesOf returns the entry's rules; nil if every event is delivered at once.
func (e *Entry) rulesOf() *Rules {
	r := &Rules{filter: e.filter(), schedule: e.schedule()}
	if r.filter == nil && r.schedule == nil {
		return nil
	}
	return r
}

// schedule returns the entry's schedule, compiled; nil if it has none.
func (e *Entry) schedule() *schedule {
	from := e.Schedule
	if from == nil {
		return nil
	}
	s := &schedule{
		subscription: expression.NewSubscription(e.Name, e.Namespace, e.Labels),
		at:           compiled(expression.ScheduleTime, from.At),
		key:          compiled(expression.ScheduleKey, from.Key),
		rules:        plan.Rules{IfPast: from.IfPast},
	}
	if w := from.Window; w != nil {
		zone, err := expression.Zone(w.Zone)
		if err != nil {
			s.zone = compiled(expression.ScheduleZone, w.Zone)
		}
		s.rules.Window = w.in(zone)
	}
	for _, rule := range from.CancelOn {
		key := rule.Key
		if key == "" {
			key = from.Key
		}
		s.cancelOn = append(s.cancelOn, cancelRule{
			patterns: rule.Patterns, filter: compiled(expression.Filter, rule.Filter), key: compiled(expression.ScheduleKey, key),
		})
	}
	return s
}

// HasFilter and HasSchedule report which rules there are.
func (r *Rules) HasFilter() bool { return r != nil && r.filter != nil }

// HasSchedule is described with HasFilter.
func (r *Rules) HasSchedule() bool { return r != nil && r.schedule != nil }

// Keeps is Filter.Keeps; without a filter, every event is kept.
func (r *Rules) Keeps(variables *expression.Variables) (bool, error) {
	if r.filter == nil {
		return true, nil
	}
	return r.filter.Keeps(variables)
}

// A Published is an event as schedules see it.
type Published struct {
	*expression.Variables
	Type event.Type
	// Resource returns data.resourceId, or the id of a FHIR resource: the key where a schedule names none.
	Resource func() string
	// Now is the time by the store's clock.
	Now time.Time
}

// A Timing is what a schedule's expressions result in for an event.
type Timing struct {
	// Key of the delivery, the zero key if the event has none.
	Key plan.Key
	// At is the time that spec.schedule.at results in.
	At time.Time
	// Rules decide on At.
	Rules plan.Rules
}

// Timing evaluates a schedule. An error is an *expression.Error: then nothing is planned and nothing is replaced. It is called
// only if HasSchedule.
func (r *Rules) Timing(p Published) (t Timing, err error) {
	s := r.schedule
	p.Subscription = s.subscription
	if t.At, err = s.at.time(p.Variables); err != nil {
		return Timing{}, err
	}
	if t.Key, err = s.key.planKey(p); err != nil {
		return Timing{}, err
	}
	t.Rules = s.rules
	if s.zone.isSet() {
		zone, err := s.zone.location(p.Variables)
		if err != nil {
			return Timing{}, err
		}
		window := *t.Rules.Window
		window.Zone = zone
		t.Rules.Window = &window
	}
	return t, nil
}

// Plan decides when an event is delivered, and which key it has. An error is that of Timing. It is called only if HasSchedule.
func (r *Rules) Plan(p Published) (plan.Key, plan.Decision, error) {
	t, err := r.Timing(p)
	if err != nil {
		return plan.Key{}, plan.Decision{}, err
	}
	return t.Key, t.Rules.Decide(t.At, p.Now), nil
}

// Cancels appends to into the keys of which an event cancels what is planned, each once, and reports whether it cancels: an
// event that does is not planned, also where it has no key. Each evaluation that fails goes to failed, as an
// *expression.Error, and cancels nothing. It is called only if HasSchedule.
func (r *Rules) Cancels(p Published, into []plan.Key, failed func(error)) (keys []plan.Key, cancels bool) {
	p.Subscription = r.schedule.subscription
	keys = into
	for i := range r.schedule.cancelOn {
		rule := &r.schedule.cancelOn[i]
		if !rule.names(p.Type) {
			continue
		}
		if met, err := rule.filter.truth(p.Variables); err != nil {
			failed(err)
			continue
		} else if !met {
			continue
		}
		cancels = true
		key, err := rule.key.planKey(p)
		switch {
		case err != nil:
			failed(err)
		case !key.IsZero() && !slices.Contains(keys[len(into):], key):
			keys = append(keys, key)
		}
	}
	return keys, cancels
}

// names reports whether the rule is about events of a type.
func (c *cancelRule) names(typ event.Type) bool {
	return slices.ContainsFunc(c.patterns, func(p event.Pattern) bool { return p.Matches(typ) })
}

// cancelPatterns are all that cancelOn names; none is covered by another.
func (r *Rules) cancelPatterns() []event.Pattern {
	if !r.HasSchedule() {
		return nil
	}
	var all []event.Pattern
	for i := range r.schedule.cancelOn {
		all = append(all, r.schedule.cancelOn[i].patterns...)
	}
	return uncovered(all)
}

// truth evaluates a filter; without one it is true.
func (f formulaProgram) truth(variables *expression.Variables) (bool, error) {
	if !f.isSet() {
		return true, nil
	}
	if f.unknown != nil {
		return false, f.unknown
	}
	return f.program.Bool(variables)
}

func (f formulaProgram) time(variables *expression.Variables) (time.Time, error) {
	if f.program == nil { // also if an entry has no time at all
		return time.Time{}, notCompiled()
	}
	return f.program.Time(variables)
}

// planKey evaluates a key; without an expression, it is the resource.
func (f formulaProgram) planKey(p Published) (plan.Key, error) {
	var text string
	switch {
	case f.unknown != nil:
		return plan.Key{}, f.unknown
	case f.program == nil:
		text = p.Resource()
	default:
		var err error
		if text, _, err = f.program.Key(p.Variables); err != nil {
			return plan.Key{}, err
		}
	}
	key, err := plan.NewKey(text)
	if err != nil {
		return key, &expression.Error{Reason: expression.InvalidValue, Message: err.Error()}
	}
	return key, nil
}

// location evaluates a time zone.
func (f formulaProgram) location(variables *expression.Variables) (*time.Location, error) {
	if f.unknown != nil {
		return nil, f.unknown
	}
	name, err := f.program.Text(variables)
	if err != nil {
		return nil, err
	}
	return expression.Zone(name)
}
