package simulate

import (
	"context"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// publication is one event while it is published.
type publication struct {
	*run

	event   Event
	number  int
	at      time.Time
	decided *store.NewEvent
	failed  []failed // while it was decided
}

// settle fills in the result of the event for one subscription.
func (p *publication) settle(ctx context.Context, s *subscription, result *Result) error {
	if s.entry == nil {
		result.Outcome, result.Reason = NoMatch, ReasonNotAccepted
		result.explain("The subscription is not accepted (%s): %s", s.report.Reason, s.report.Message)
		return nil
	}
	published := p.preview.Published(p.event, p.at)
	published.Subscription = expression.NewSubscription(s.entry.Name, s.entry.Namespace, s.entry.Labels)
	p.conditions(s, published.Variables, result)
	result.Failures = failuresOf(s, p.failed)
	key := s.route.Key
	if s.route.Rules.HasSchedule() {
		if _, cancels := s.route.Rules.Cancels(published, nil, func(error) {}); cancels {
			p.cancel(key, result)
			return nil
		}
	}
	if result.Filter != nil && result.Filter.Result == resultError && !s.entry.SkipFilterErrors {
		result.explain("spec.filter has no result for this event, and spec.filterErrors is Deliver.")
	}
	d := &planned{
		subscription: s, id: event.DeliveryID{Event: p.decided.Event.Key, Subscription: key}, event: p.decided.Event,
		variable: expression.NewEvent(p.event.ID, string(p.event.Type), p.event.Timestamp, p.event.Data, nil),
		number:   p.number, due: p.at, result: result,
	}
	if i := slices.IndexFunc(p.decided.Plans, func(plan store.Plan) bool { return plan.Subscription.Key == key }); i >= 0 {
		return p.plan(ctx, s, &p.decided.Plans[i], published, d)
	}
	if slices.ContainsFunc(p.decided.Subscriptions, func(sub *delivery.Subscription) bool { return sub.Key == key }) {
		result.Delivery = d.id.String()
		if s.entry.Pull || s.entry.Suspended {
			result.explain("The event matches.") // deliver says what it waits for
		} else {
			result.explain("The event matches, and is delivered at once.")
		}
		return p.deliver(ctx, d)
	}
	result.Outcome = NoMatch
	result.explainNoMatch(s, p.event)
	return nil
}

// conditions evaluates what decides whether the event matches or cancels, for the explanation.
func (p *publication) conditions(s *subscription, variables *expression.Variables, result *Result) {
	result.Pattern = s.pattern(p.event)
	if result.Pattern != "" {
		result.Filter = conditionOf(expression.Filter, s.entry.Filter, variables)
	}
	if s.entry.Schedule == nil {
		return
	}
	for i, rule := range s.entry.Schedule.CancelOn {
		if slices.ContainsFunc(rule.Patterns, func(pattern event.Pattern) bool { return pattern.Matches(p.event.Type) }) {
			result.CancelOn = append(result.CancelOn, CancelItem{Index: i, Filter: conditionOf(expression.Filter, rule.Filter, variables)})
		}
	}
}

// conditionOf evaluates and splits an expression; nil for "".
func conditionOf(use expression.Use, text string, variables *expression.Variables) *Condition {
	if text == "" {
		return nil
	}
	terms, err := expression.Explain(use, text, variables)
	if err != nil {
		return nil // it compiled with the subscription
	}
	c := &Condition{Expression: text, Result: resultError, Terms: make([]Term, 0, len(terms))}
	if program, err := expression.Compile(use, text); err == nil {
		if value, err := program.Bool(variables); err == nil {
			c.Result = resultOf(value)
		}
	}
	for _, t := range terms {
		term := Term{Text: t.Text, Line: t.Line, Column: t.Column, Result: resultOf(t.Value), Message: t.Err, Negated: t.Negated, Decides: t.Decides}
		if t.Err != "" {
			term.Result = resultError
		}
		for _, o := range t.Operands {
			term.Fields = append(term.Fields, Field{Name: o.Text, Value: o.JSON})
		}
		c.Terms = append(c.Terms, term)
	}
	return c
}

// The results of a Condition and a Term.
const (
	resultTrue  = "true"
	resultFalse = "false"
	resultError = "error"
)

func resultOf(value bool) string {
	if value {
		return resultTrue
	}
	return resultFalse
}

// cancel does what an event of cancelOn does.
func (p *publication) cancel(key event.SubscriptionKey, result *Result) {
	result.Outcome = Cancels
	keyed := false
	for _, c := range p.decided.Cancels {
		if c.Subscription.Key != key {
			continue
		}
		keyed = true
		all, later := p.store.cancel(c, p.number)
		if later != 0 {
			result.explain("Event %d of the same key has a later timestamp: this event cancels nothing.", later)
		}
		for _, d := range all {
			result.Ends = append(result.Ends, Ended{Event: d.number, Reason: string(plan.CancelledByEvent)})
			d.result.explain("Event %d (%s) cancels it.", p.number, p.event.Type)
		}
	}
	result.explainCancel(keyed)
}

// plan takes up what the schedule says.
func (p *publication) plan(ctx context.Context, s *subscription, decided *store.Plan, published routing.Published, d *planned) error {
	result := d.result
	if decided.Failed {
		result.Delivery = d.id.String()
		result.fail(string(delivery.ReasonScheduleFailed), "The schedule has no time or no key for this event: nothing is planned, and nothing is replaced.")
		return nil
	}
	timing, err := s.route.Rules.Timing(published)
	if err != nil {
		return err // Decide has evaluated the same
	}
	result.Plan = planOf(timing, decided.Decision, p.at)
	replaced, later := p.store.plan(decided, d)
	if later != 0 {
		result.Outcome, result.Reason = Ignored, ReasonOlderEvent
		result.explain("Event %d of the same key has a later timestamp: this event plans nothing and replaces nothing.", later)
		return nil
	}
	result.Delivery = d.id.String()
	result.explainPlan(timing, decided.Decision, p.at)
	if replaced != nil {
		result.Ends = append(result.Ends, Ended{Event: replaced.number, Reason: string(plan.Replaced)})
		result.explain("It replaces what event %d planned for the same key.", replaced.number)
		replaced.result.explain("Event %d (%s) of the same key replaces it.", p.number, p.event.Type)
	}
	if !decided.Decision.Planned() {
		result.Outcome, result.Reason = Skipped, string(decided.Decision.Reason)
		return nil
	}
	result.Outcome = Scheduled
	return p.advance(ctx, p.at) // it may be due at once
}

// planOf describes how a schedule decides on an event that was published at a time.
func planOf(t routing.Timing, d plan.Decision, published time.Time) *Plan {
	described := &Plan{At: t.At.UTC(), HasKey: !t.Key.IsZero(), IfPast: string(t.Rules.IfPast)}
	if d.Planned() {
		at := d.At.UTC()
		described.Time = &at
	}
	w := t.Rules.Window
	if w == nil {
		return described
	}
	described.Window = &Window{TimeZone: w.Zone.String(), From: w.From.String(), Until: w.Until.String(), Outside: string(w.Outside)}
	if w.Days != 0 {
		for day := time.Sunday; day <= time.Saturday; day++ {
			if w.Days.Has(day) {
				described.Window.Days = append(described.Window.Days, day.String())
			}
		}
	}
	if moved := movedTo(t); !moved.IsZero() && !moved.Equal(t.At) && !t.At.Before(published) { // else ifPast decides first
		moved = moved.UTC()
		described.Moved = &moved
	}
	return described
}

// movedTo is where the window moves the time of a schedule, as it is decided with enough time left; zero if nowhere.
func movedTo(t routing.Timing) time.Time {
	const enough = 30 * 24 * time.Hour // a window moves by less
	return t.Rules.Decide(t.At, t.At.Add(-enough)).At
}
