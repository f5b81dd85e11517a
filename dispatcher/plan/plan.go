package plan

import "time"

// IfPast says what becomes of a delivery whose planned time has passed.
type IfPast string

// The values of spec.schedule.ifPast.
const (
	SkipPast    IfPast = "Skip"
	DeliverPast IfPast = "Deliver"
)

// MaxAhead is how far ahead a delivery may be planned.
const MaxAhead = 400 * 24 * time.Hour

// A Reason says why a delivery is not planned, or no longer.
type Reason string

// The reasons that stand beside Cancelled.
const (
	Past             Reason = "Past"             // its time had passed when the event was accepted
	OutsideWindow    Reason = "OutsideWindow"    // its time is outside of the window, and outside is Skip
	TooFarAhead      Reason = "TooFarAhead"      // its time is more than MaxAhead from now
	Replaced         Reason = "Replaced"         // a later event of the same key has come
	CancelledByEvent Reason = "CancelledByEvent" // an event of cancelOn has come
)

// Rules are a subscription's, for an event.
type Rules struct {
	IfPast IfPast
	Window *Window // nil: at any time; else it has passed Check
}

// A Decision is the time at which a delivery is due, or the reason why there is none.
type Decision struct {
	At     time.Time
	Reason Reason // "" if it is planned
}

// Planned reports whether there is a delivery.
func (d Decision) Planned() bool { return d.Reason == "" }

// Decide returns when a delivery is due whose schedule results in at. A planned time is not before now, and within
// the window.
func (r Rules) Decide(at, now time.Time) Decision {
	if at.After(now.Add(MaxAhead)) { // before the window: its arithmetic is for years that exist
		return Decision{Reason: TooFarAhead}
	}
	late := at.Before(now)
	if !late && r.Window != nil {
		moved, ok := r.Window.move(at)
		if !ok {
			return Decision{Reason: OutsideWindow}
		}
		at = moved
		late = at.Before(now)
	}
	if late {
		return r.late(now)
	}
	if at.After(now.Add(MaxAhead)) {
		return Decision{Reason: TooFarAhead}
	}
	return Decision{At: at}
}

// late decides on a time that has passed.
func (r Rules) late(now time.Time) Decision {
	switch {
	case r.IfPast != DeliverPast:
		return Decision{Reason: Past}
	case r.Window == nil:
		return Decision{At: now}
	case r.Window.Outside == Skip && !r.Window.Contains(now):
		return Decision{Reason: OutsideWindow}
	}
	return Decision{At: r.Window.later(now)} // also if outside is Earlier: that time has passed
}

// move moves a time into the window. It is not ok if the time is outside and stays there.
func (w *Window) move(at time.Time) (time.Time, bool) {
	switch w.Outside {
	case Later:
		return w.later(at), true
	case Earlier:
		return w.earlier(at), true
	default:
		return at, w.Contains(at)
	}
}

// A State is what has become of the latest delivery of a key.
type State int

// The states of Latest.
const (
	// Waiting: no attempt has begun.
	Waiting State = iota
	// Started: an attempt has begun, and it is neither delivered nor failed for good.
	Started
	// Ended: delivered, failed or cancelled.
	Ended
)

// Latest is what the store knows of a key of a subscription. It outlives the delivery, so that an event that arrives
// late does not bring back what a newer one has cancelled.
type Latest struct {
	State State
	// Timestamp is that of the latest event that planned, replaced or cancelled.
	Timestamp time.Time
}

// Verdict is what an event does to the delivery that its key has planned.
type Verdict struct {
	// Ignore: the event is older than the latest of its key. It changes nothing and plans nothing.
	Ignore bool
	// End is why the latest delivery ends with this event; "" if it goes on.
	End Reason
}

// Resolve decides what an event that matches the subscription does to the latest delivery of its key. latest is nil if
// the key has none, or the event has no key. Unless Ignore is set, the event's own Decision holds beside it.
//
// A delivery that has Started goes on: what it says was true when it was due.
func Resolve(latest *Latest, timestamp time.Time) Verdict {
	switch {
	case latest == nil:
		return Verdict{}
	case timestamp.Before(latest.Timestamp):
		return Verdict{Ignore: true}
	case latest.State == Waiting:
		return Verdict{End: Replaced}
	}
	return Verdict{}
}

// Cancel decides what an event of cancelOn does to the latest delivery of its key. One that has Started is cancelled as
// well: it is not attempted again.
func Cancel(latest *Latest, timestamp time.Time) Verdict {
	switch {
	case latest == nil:
		return Verdict{}
	case timestamp.Before(latest.Timestamp):
		return Verdict{Ignore: true}
	case latest.State != Ended:
		return Verdict{End: CancelledByEvent}
	}
	return Verdict{}
}
