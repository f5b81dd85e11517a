package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/simulate"
)

// printer writes a report for people.
type printer struct {
	*bufio.Writer
}

func (p printer) line(indent int, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if text != "" {
		text = strings.Repeat("  ", indent) + text
	}
	fmt.Fprintln(p, text)
}

// writeText writes a result for people.
func writeText(out io.Writer, r *result) error {
	p := printer{bufio.NewWriter(out)}
	for _, warning := range r.Warnings {
		p.line(0, "Warning: %s", warning)
	}
	for _, s := range r.Subscriptions {
		switch {
		case !s.Accepted:
			p.line(0, "Subscription %s is not accepted (%s): %s", s.Name, s.Reason, s.Message)
		case s.Suspended:
			p.line(0, "Subscription %s is suspended: its deliveries wait.", s.Name)
		}
	}
	for i := range r.Events {
		if i > 0 || len(r.Warnings) > 0 {
			p.line(0, "")
		}
		p.event(&r.Events[i])
	}
	if len(r.Expectations) > 0 {
		p.line(0, "")
	}
	for _, m := range r.Expectations {
		if m.Met {
			p.line(0, "As expected: %s", m.Expect)
		} else {
			p.line(0, "Not as expected: %s, got %s", m.Expect, m.Got)
		}
	}
	return p.Flush()
}

func (p printer) event(e *simulate.EventReport) {
	p.line(0, "Event %d: %s, id %s, published %s", e.Number, e.Type, e.ID, shownTime(e.Published))
	for _, r := range e.Results {
		p.result(r)
	}
}

func shownTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (p printer) result(r *simulate.Result) {
	outcome := string(r.Outcome)
	if r.Reason != "" {
		outcome += " (" + r.Reason + ")"
	}
	if r.Plan != nil && r.Plan.Time != nil && r.Outcome == simulate.Scheduled {
		outcome += " for " + shownTime(*r.Plan.Time)
	}
	p.line(1, "%s: %s", r.Subscription, outcome)
	for _, sentence := range r.Explanation {
		p.line(2, "%s", sentence)
	}
	if r.Filter != nil {
		p.condition("spec.filter", r.Filter)
	}
	for _, item := range r.CancelOn {
		if item.Filter != nil {
			p.condition(fmt.Sprintf("spec.schedule.cancelOn[%d].filter", item.Index), item.Filter)
		}
	}
	if r.Recheck != nil {
		p.condition("spec.schedule.recheck", r.Recheck)
	}
	for _, f := range r.Failures {
		p.line(2, "The %s failed (%s): %s", f.Use, f.Reason, f.Message)
	}
	if r.Lookup != nil {
		p.request("Lookup", r.Lookup)
	}
	if r.Request != nil {
		title := "Request"
		if r.Request.URL == "" {
			title = "What the consumer pulls"
		}
		if r.Sent != nil {
			title += " at " + shownTime(*r.Sent)
		}
		p.request(title, r.Request)
	}
}

// condition shows an expression's terms, each with its value. An arrow marks those that decide.
func (p printer) condition(where string, c *simulate.Condition) {
	p.line(2, "%s is %s:", where, c.Result)
	for _, t := range c.Terms {
		mark := "  "
		if t.Decides {
			mark = "> "
		}
		var notes []string
		for _, f := range t.Fields {
			notes = append(notes, f.Name+" is "+f.Value)
		}
		if t.Message != "" {
			notes = append(notes, t.Message)
		}
		text := t.Text
		if t.Negated {
			text = "not: " + text
		}
		note := ""
		if len(notes) > 0 {
			note = "   (" + strings.Join(notes, "; ") + ")"
		}
		p.line(3, "%s%-5s  %s%s", mark, t.Result, text, note)
	}
}

func (p printer) request(title string, r *simulate.Request) {
	if r.URL != "" {
		title += ": " + r.Method + " " + r.URL
	} else {
		title += ":"
	}
	p.line(2, "%s", title)
	contentType := ""
	for _, h := range r.Header {
		p.line(3, "%s: %s", h.Name, h.Value)
		if h.Name == "Content-Type" {
			contentType = h.Value
		}
	}
	if r.Body == "" {
		return
	}
	p.line(3, "")
	for line := range strings.Lines(readable(contentType, r.Body)) {
		p.line(3, "%s", strings.TrimRight(line, "\r\n"))
	}
}

// readable lays a body out in lines: JSON is indented, and a form is decoded. The JSON report has the body as it is sent.
func readable(contentType, body string) string {
	if strings.Contains(contentType, "form-urlencoded") {
		if form, err := url.ParseQuery(body); err == nil {
			var text strings.Builder
			for pair := range strings.SplitSeq(body, "&") {
				name, _, _ := strings.Cut(pair, "=")
				if decoded, err := url.QueryUnescape(name); err == nil {
					fmt.Fprintf(&text, "%s = %s\n", decoded, strings.Join(form[decoded], ", "))
				}
			}
			return text.String()
		}
	}
	var indented bytes.Buffer
	if strings.Contains(contentType, "json") && json.Indent(&indented, []byte(body), "", "  ") == nil {
		return indented.String()
	}
	return body
}
