package view

import (
	"github.com/clinikapi/eventflow/dispatcher/simulate"
)

// Try is the page that says what subscriptions would do with an event.
type Try struct {
	Frame
	Namespaces, Types []string
	// Subscription is the only one that is tried; empty for all of the namespace.
	Subscription string
	// Type is that of the sample; Text is the event as it is tried.
	Type, Text string
	// EventID is the published event that the page was opened for, and may be empty.
	EventID string
	// OwnTime tries the event at its own timestamp, in place of now.
	OwnTime bool
	// Lookup is the JSON that lookups are answered with.
	Lookup string
	Events []Tried
	// Notes say what the page cannot know.
	Notes []string
}

// Tried is one event, and what the subscriptions do with it: those that match first.
type Tried struct {
	simulate.EventReport
	// Refused says of subscriptions that are not accepted why they are not.
	Refused map[string]string
	// Matched counts the results that are no NoMatch; Hidden those that are not shown.
	Matched, Hidden int
}

// outcomeTones are the colours of outcomes.
var outcomeTones = map[simulate.Outcome]string{
	simulate.Delivered: "good", simulate.Scheduled: "plan", simulate.Failed: "bad", simulate.Waiting: "wait",
}

// outcomeWords say an outcome in words.
var outcomeWords = map[simulate.Outcome]string{
	simulate.NoMatch: "Does not match", simulate.Delivered: "Due at once", simulate.Scheduled: "Planned", simulate.Skipped: "Skipped",
	simulate.Cancelled: "Cancelled", simulate.Cancels: "Cancels others", simulate.Ignored: "Ignored", simulate.Failed: "Fails", simulate.Waiting: "Waits",
}

func outcomeTone(r *simulate.Result) string {
	if t := outcomeTones[r.Outcome]; t != "" {
		return t
	}
	return "off"
}

func outcomeWord(r *simulate.Result) string {
	if r.Outcome == simulate.Delivered && r.Plan != nil {
		return "Planned, and due"
	}
	if w := outcomeWords[r.Outcome]; w != "" {
		return w
	}
	return Shown(string(r.Outcome))
}

// termWord says what a term of a filter is.
func termWord(t *simulate.Term) string {
	if t.Result == "error" {
		return "has no result"
	}
	return Shown(t.Result)
}

// request is a request as it would be on the wire, but for its secrets.
func request(r *simulate.Request) string {
	text := ""
	if r.URL != "" { // else the consumer pulls
		text = r.Method + " " + r.URL + "\n"
	}
	for _, line := range r.Header {
		text += line.Name + ": " + line.Value + "\n"
	}
	if r.Body != "" {
		text += "\n" + r.Body
	}
	return Text(text)
}
