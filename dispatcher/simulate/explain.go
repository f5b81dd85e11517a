package simulate

import (
	"fmt"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// explain adds a sentence.
func (r *Result) explain(format string, args ...any) {
	r.Explanation = append(r.Explanation, fmt.Sprintf(format, args...))
}

// fail ends the result.
func (r *Result) fail(reason, sentence string) {
	r.Outcome, r.Reason = Failed, reason
	r.explain("%s", sentence)
}

// explainNoMatch says why the event causes nothing.
func (r *Result) explainNoMatch(s *subscription, e Event) {
	if r.Pattern == "" {
		r.Reason = ReasonPattern
		patterns := make([]string, len(s.entry.Patterns))
		for i, p := range s.entry.Patterns {
			patterns[i] = string(p)
		}
		r.explain("spec.events names %s; the event is of type %s.", strings.Join(patterns, ", "), e.Type)
		return
	}
	r.Reason = ReasonFilter
	if r.Filter == nil || r.Filter.Result == resultError {
		r.explain("spec.filter has no result for this event, and spec.filterErrors is Skip.")
		return
	}
	r.explain("spec.filter is false, because %s.", r.Filter.because())
}

// because names the terms from which the result follows.
func (c *Condition) because() string {
	var terms []string
	for _, t := range c.Terms {
		if t.Decides {
			terms = append(terms, t.Text+" is "+t.Result)
		}
	}
	return strings.Join(terms, ", and ")
}

// explainCancel says what an event of cancelOn did.
func (r *Result) explainCancel(keyed bool) {
	switch {
	case !keyed:
		r.explain("The event is one of spec.schedule.cancelOn, and has no key: it cancels nothing.")
	case len(r.Ends) > 0:
		numbers := make([]string, len(r.Ends))
		for i, end := range r.Ends {
			numbers[i] = fmt.Sprint(end.Event)
		}
		r.explain("The event is one of spec.schedule.cancelOn: it cancels what event %s planned for the same key.", strings.Join(numbers, ", "))
	case len(r.Explanation) == 0:
		r.explain("The event is one of spec.schedule.cancelOn: nothing is planned for its key, so it cancels nothing.")
	}
}

// explainPlan says how a schedule decided on an event that was published at a time.
func (r *Result) explainPlan(t routing.Timing, d plan.Decision, published time.Time) {
	zone := time.UTC
	if t.Rules.Window != nil {
		zone = t.Rules.Window.Zone
	}
	at := clock(t.At, zone)
	moved := ""
	if r.Plan.Moved != nil {
		w := r.Plan.Window
		moved = fmt.Sprintf("; that is outside of the window (%s to %s in %s%s), which moves it to %s",
			w.From, w.Until, w.TimeZone, daysOf(w.Days), clock(*r.Plan.Moved, zone))
	}
	switch {
	case d.Reason == plan.TooFarAhead:
		r.explain("spec.schedule.at is %s, more than %d days ahead: nothing is planned.", at, int(plan.MaxAhead/(24*time.Hour)))
	case d.Reason == plan.OutsideWindow:
		r.explain("spec.schedule.at is %s, outside of the window, and outside is Skip: nothing is planned.", at)
	case d.Reason == plan.Past:
		r.explain("spec.schedule.at is %s%s. That is before the event is published, at %s, and ifPast is Skip: nothing is planned.", at, moved, clock(published, zone))
	case !t.At.Before(published) && (r.Plan.Moved == nil || d.At.Equal(*r.Plan.Moved)):
		r.explain("spec.schedule.at is %s%s. The delivery is planned for then.", at, moved)
	default:
		r.explain("spec.schedule.at is %s%s. That has passed, and ifPast is Deliver: the delivery is planned for %s.", at, moved, clock(d.At, zone))
	}
	if t.Key.IsZero() {
		r.explain("The event has no key: no later event replaces or cancels the delivery.")
	}
}

func daysOf(days []string) string {
	if len(days) == 0 {
		return ""
	}
	return ", " + strings.Join(days, ", ")
}

// clock is a time as people read it in a zone.
func clock(t time.Time, zone *time.Location) string {
	return t.In(zone).Format("Mon 2 Jan 2006 15:04:05 MST")
}

// unsent says why an attempt sent nothing.
func (r *run) unsent(d *planned, reason string) {
	result := d.result
	message := reason
	for _, f := range result.Failures {
		message = f.Message
	}
	switch {
	case r.recorder.document != nil && r.recorder.lookup == nil:
		result.Reason = ReasonLookupNeeded
		result.explain("Its request is made of the lookup's answer, which is not given.")
		result.Failures = nil // that of the lookup, which nobody made
	case reason == string(delivery.ReasonRecheck):
		d.state = ended
		result.Outcome, result.Reason, result.Sent = Cancelled, reason, nil
		result.explain("spec.schedule.recheck is false when the delivery is due: nothing is sent.")
		if result.Recheck = r.recheck(d); result.Recheck != nil && result.Recheck.Result == resultError {
			result.explain("It has no result, and spec.filterErrors is Skip.")
		}
	default:
		result.Sent = nil
		result.fail(reason, fmt.Sprintf("Nothing is sent, and the attempt is repeated until spec.retry.maxAge is over: %s.", message))
	}
}

// recheck explains why a delivery is not wanted when it is due.
func (r *run) recheck(d *planned) *Condition {
	e := d.subscription.entry
	return conditionOf(expression.Recheck, e.Schedule.Recheck, &expression.Variables{
		Event: d.variable, Subscription: expression.NewSubscription(e.Name, e.Namespace, e.Labels), Now: r.now,
	})
}
