package simulate

import "time"

// FormatVersion is that of a Report as JSON. It changes when a field changes its meaning or goes.
const FormatVersion = 1

// A Report is the result of Run. It holds data of the events, and no value of a Secret.
type Report struct {
	Version int `json:"version"`
	// Namespace is where the events are published.
	Namespace string `json:"namespace"`
	// Start is the virtual time before the first event.
	Start time.Time `json:"start"`
	// Subscriptions are those of the namespace, in the order given.
	Subscriptions []SubscriptionReport `json:"subscriptions"`
	Events        []EventReport        `json:"events"`
	// Warnings are about the input.
	Warnings []string `json:"warnings,omitempty"`
}

// A SubscriptionReport says whether a subscription is accepted.
type SubscriptionReport struct {
	Name     string `json:"name"`
	File     string `json:"file,omitempty"`
	Accepted bool   `json:"accepted"`
	// Reason and Message are those of the condition Accepted=False.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Suspended: its deliveries wait.
	Suspended bool `json:"suspended,omitempty"`
}

// An EventReport is an event, and what it causes for each subscription.
type EventReport struct {
	// Number counts the events from 1.
	Number    int       `json:"number"`
	ID        string    `json:"id"`
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	// Published is the virtual time at which the event is accepted.
	Published time.Time `json:"published"`
	Results   []*Result `json:"results"`
}

// An Outcome is what becomes of an event for a subscription by the end of the sequence.
type Outcome string

// The outcomes. Reason says more.
const (
	// NoMatch: the event causes nothing, by Pattern, Filter, NotAccepted or Repeated.
	NoMatch Outcome = "NoMatch"
	// Delivered at once, or at its planned time before the end of the sequence.
	Delivered Outcome = "Delivered"
	// Scheduled: planned for a time after the last event.
	Scheduled Outcome = "Scheduled"
	// Skipped: never planned, by Past, OutsideWindow or TooFarAhead. Its delivery is listed as Cancelled.
	Skipped Outcome = "Skipped"
	// Cancelled: planned, and ended by Replaced, CancelledByEvent or Recheck.
	Cancelled Outcome = "Cancelled"
	// Cancels: the event is one of cancelOn. It ends what is planned for its key, and causes no delivery.
	Cancels Outcome = "Cancels"
	// Ignored: its key has had an event with a later timestamp (OlderEvent).
	Ignored Outcome = "Ignored"
	// Failed: by ScheduleFailed, TransformFailed or RequestInvalid.
	Failed Outcome = "Failed"
	// Waiting: its time has come, and the subscription is suspended.
	Waiting Outcome = "Waiting"
)

// The reasons that are not those of package delivery.
const (
	ReasonPattern      = "Pattern"      // spec.events does not name the type
	ReasonFilter       = "Filter"       // spec.filter is false, or failed with filterErrors: Skip
	ReasonNotAccepted  = "NotAccepted"  // the subscription is not accepted
	ReasonRepeated     = "Repeated"     // the same event was published before, with the same id
	ReasonOlderEvent   = "OlderEvent"   // a later event of the key has come
	ReasonSuspended    = "Suspended"    // spec.suspend is set
	ReasonPulled       = "Pulled"       // spec.delivery.mode is Pull
	ReasonLookupNeeded = "LookupNeeded" // the request cannot be shown without the lookup's answer
)

// Outcomes lists every Outcome.
func Outcomes() []Outcome {
	return []Outcome{NoMatch, Delivered, Scheduled, Skipped, Cancelled, Cancels, Ignored, Failed, Waiting}
}

// A Result is what an event causes for a subscription.
type Result struct {
	Subscription string  `json:"subscription"`
	Outcome      Outcome `json:"outcome"`
	Reason       string  `json:"reason,omitempty"`
	// Explanation says why, in sentences.
	Explanation []string `json:"explanation"`
	// Pattern is the one of spec.events that names the type.
	Pattern string `json:"pattern,omitempty"`
	// Filter is spec.filter, if the pattern matches and there is one.
	Filter *Condition `json:"filter,omitempty"`
	// CancelOn are the items of spec.schedule.cancelOn that name the type.
	CancelOn []CancelItem `json:"cancelOn,omitempty"`
	Plan     *Plan        `json:"plan,omitempty"`
	// Ends are the deliveries of earlier events that this one ends.
	Ends []Ended `json:"ends,omitempty"`
	// EndedBy is the later event that ends this one's delivery.
	EndedBy *Ended `json:"endedBy,omitempty"`
	// Recheck is spec.schedule.recheck, evaluated when the delivery is due.
	Recheck *Condition `json:"recheck,omitempty"`
	// Delivery is its id.
	Delivery string `json:"delivery,omitempty"`
	// Sent is the virtual time of the first attempt.
	Sent *time.Time `json:"sent,omitempty"`
	// Lookup and Request are what the first attempt sends; Request is left out if nothing is sent, or if it needs the
	// lookup's answer and there is none.
	Lookup  *Request `json:"lookup,omitempty"`
	Request *Request `json:"request,omitempty"`
	// Failures are the expressions that had no result.
	Failures []Failure `json:"failures,omitempty"`
}

// A Condition is an expression that results in true or false.
type Condition struct {
	Expression string `json:"expression"`
	// Result is true, false or error.
	Result string `json:"result"`
	Terms  []Term `json:"terms"`
}

// A Term is a part of a Condition that &&, || and ! join.
type Term struct {
	Text   string `json:"text"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// Result is true, false or error; Message is that of the error.
	Result  string `json:"result"`
	Message string `json:"message,omitempty"`
	// Negated reports whether an odd number of ! stand before the term.
	Negated bool `json:"negated,omitempty"`
	// Decides reports whether the condition's result follows from this term.
	Decides bool    `json:"decides"`
	Fields  []Field `json:"fields,omitempty"`
}

// A Field is what a term reads of the event, as JSON.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A CancelItem is an item of spec.schedule.cancelOn.
type CancelItem struct {
	// Index counts from 0.
	Index  int        `json:"index"`
	Filter *Condition `json:"filter,omitempty"`
}

// A Plan is how a schedule decides on an event.
type Plan struct {
	// At is the time that spec.schedule.at results in.
	At time.Time `json:"at"`
	// HasKey reports whether the event has a key: without one, nothing replaces or cancels its delivery.
	HasKey bool `json:"hasKey"`
	// Time is the planned time, or nil if nothing is planned.
	Time *time.Time `json:"time,omitempty"`
	// Moved is where the window moves At, if that is another time, also if nothing is planned then.
	Moved  *time.Time `json:"moved,omitempty"`
	IfPast string     `json:"ifPast"`
	Window *Window    `json:"window,omitempty"`
}

// A Window is that of a schedule, in the time zone that it has for the event.
type Window struct {
	TimeZone string   `json:"timeZone"`
	From     string   `json:"from"`
	Until    string   `json:"until"`
	Days     []string `json:"days,omitempty"`
	Outside  string   `json:"outside"`
}

// Ended names a delivery that a later event ends, or that event.
type Ended struct {
	// Event is the number of the other event.
	Event  int    `json:"event"`
	Reason string `json:"reason"`
}

// A Request is an HTTP request with its secrets masked, or what a consumer that pulls gets: that has no method and no URL.
type Request struct {
	Method string `json:"method,omitempty"`
	URL    string `json:"url,omitempty"`
	// Header has the lines as they are sent.
	Header []HeaderLine `json:"header"`
	Body   string       `json:"body,omitempty"`
}

// A HeaderLine is one line of a header.
type HeaderLine struct {
	Name string `json:"name"`
	// Value is masked if Masked says so: then it names where the value comes from.
	Value  string `json:"value"`
	Masked bool   `json:"masked,omitempty"`
}

// A Failure is an expression that had no result.
type Failure struct {
	// Use is filter, schedule, recheck, lookup, redact or transform.
	Use     string `json:"use"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}
