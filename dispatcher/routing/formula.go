package routing

import (
	"fmt"
	"maps"
	"strings"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/expression"
)

// formula is one expression of a spec.
type formula struct {
	where  string // the field
	use    expression.Use
	text   string // "" if the field is not set
	reason string // of Accepted=False if it does not compile
}

// formulas are the expressions of a spec, but for a zone that is one by its name.
func formulas(spec *v1alpha1.WebhookSubscriptionSpec) []formula {
	all := []formula{{"spec.filter", expression.Filter, spec.Filter, v1alpha1.ReasonInvalidFilter}}
	if s := spec.Schedule; s != nil {
		all = append(all, scheduleFormulas(s)...)
	}
	if l := spec.Lookup; l != nil {
		all = append(all, formula{"spec.lookup.url", expression.LookupURL, l.URL, v1alpha1.ReasonInvalidLookup})
	}
	if t := spec.Transform; t != nil {
		const reason = v1alpha1.ReasonInvalidTransform
		all = append(all,
			formula{"spec.transform.body", expression.TransformBody, t.Body, reason},
			formula{"spec.transform.urlSuffix", expression.TransformText, t.URLSuffix, reason})
		for i, header := range t.Headers {
			all = append(all, formula{fmt.Sprintf("spec.transform.headers[%d].value", i), expression.TransformText, header.Value, reason})
		}
	}
	if o := spec.Outcome; o != nil {
		const reason = v1alpha1.ReasonInvalidOutcome
		all = append(all,
			formula{"spec.outcome.success", expression.Outcome, o.Success, reason},
			formula{"spec.outcome.giveUp", expression.Outcome, o.GiveUp, reason})
	}
	return all
}

func scheduleFormulas(s *v1alpha1.Schedule) []formula {
	const reason = v1alpha1.ReasonInvalidSchedule
	all := []formula{
		{"spec.schedule.at", expression.ScheduleTime, s.At, reason},
		{"spec.schedule.key", expression.ScheduleKey, s.Key, reason},
		{"spec.schedule.recheck", expression.Recheck, s.Recheck, reason},
	}
	if s.Window != nil && !isZone(s.Window.TimeZone) {
		all = append(all, formula{"spec.schedule.window.timeZone", expression.ScheduleZone, s.Window.TimeZone, reason})
	}
	for i, rule := range s.CancelOn {
		where := fmt.Sprintf("spec.schedule.cancelOn[%d]", i)
		all = append(all,
			formula{where + ".filter", expression.Filter, rule.Filter, reason},
			formula{where + ".key", expression.ScheduleKey, rule.Key, reason})
	}
	return all
}

// isZone reports whether a text is the name of a time zone; an expression results in one otherwise.
func isZone(text string) bool {
	_, err := expression.Zone(text)
	return err == nil
}

// ReadsLabels reports whether an expression of the subscription may read its labels. What is compiled of such a
// subscription depends on them.
func ReadsLabels(spec *v1alpha1.WebhookSubscriptionSpec) bool {
	for _, f := range formulas(spec) {
		if strings.Contains(f.text, "labels") {
			return true
		}
	}
	return false
}

// compileFormulas checks every expression, and takes up what they need of the subscription and of memory. Their texts go
// into the entry with the fields that they stand in.
func (c *compiler) compileFormulas(labels map[string]string) error {
	for _, f := range formulas(&c.spec) {
		if f.text == "" {
			continue
		}
		program, err := programOf(f.use, f.text)
		if err != nil && f.use == expression.ScheduleZone {
			return reject(f.reason, "%s: this is neither the name of a time zone, such as America/New_York, nor an expression: %v", f.where, err)
		}
		if err != nil {
			return reject(f.reason, "%s: %v", f.where, err)
		}
		if f.use == expression.Filter && f.where == "spec.filter" {
			c.entry.FilterSize = program.Size()
		} else {
			c.entry.ProgramSize += program.Size()
		}
	}
	if ReadsLabels(&c.spec) {
		c.entry.Labels = maps.Clone(labels)
	}
	return nil
}
