package plan

import (
	"fmt"
	"time"
)

// Outside says what becomes of a time outside of a window.
type Outside string

// The values of spec.schedule.window.outside.
const (
	Later   Outside = "Later"   // to the next time in the window
	Earlier Outside = "Earlier" // to the last time in the window before
	Skip    Outside = "Skip"    // nothing is delivered
)

// A Clock is a time of day in minutes since midnight by the clock on the wall, 0 to 24:00.
type Clock int

const dayMinutes = 24 * 60

// ParseClock reads "09:00"; "24:00" is the end of a day.
func ParseClock(text string) (Clock, error) {
	valid := len(text) == 5 && text[2] == ':'
	for _, i := range []int{0, 1, 3, 4} {
		valid = valid && text[i] >= '0' && text[i] <= '9'
	}
	if valid {
		hour, minute := int(text[0]-'0')*10+int(text[1]-'0'), int(text[3]-'0')*10+int(text[4]-'0')
		if minute < 60 && hour*60+minute <= dayMinutes {
			return Clock(hour*60 + minute), nil
		}
	}
	return 0, fmt.Errorf("a time of day is written as 09:00, from 00:00 to 24:00")
}

func (c Clock) String() string { return fmt.Sprintf("%02d:%02d", int(c)/60, int(c)%60) }

// Days are days of the week, a bit for each time.Weekday. None means every day.
type Days uint8

// NewDays returns the days.
func NewDays(days ...time.Weekday) (all Days) {
	for _, day := range days {
		all |= 1 << day
	}
	return all
}

// Has reports whether the day is one of them.
func (d Days) Has(day time.Weekday) bool { return d == 0 || d&(1<<day) != 0 }

// A Window is the part of each day in which deliveries may go.
type Window struct {
	Zone    *time.Location
	From    Clock
	Until   Clock // at or before From: on the next day
	Days    Days  // on which the window begins
	Outside Outside
}

// Check returns an error unless the window has a zone and is open at some time.
func (w *Window) Check() error {
	switch {
	case w.Zone == nil:
		return fmt.Errorf("a window needs a time zone")
	case w.From < 0 || w.From >= dayMinutes || w.Until < 0 || w.Until > dayMinutes:
		return fmt.Errorf("a window is from 00:00 to 24:00")
	case w.From == w.Until:
		return fmt.Errorf("a window that ends when it begins is empty; for a whole day, write 00:00 until 24:00")
	case w.Outside != Later && w.Outside != Earlier && w.Outside != Skip:
		return fmt.Errorf("outside of a window is Later, Earlier or Skip")
	}
	return nil
}

// searchDays is how far a search for an open day goes: more than a week, for a zone may skip a day (Samoa, 2011).
const searchDays = 16

// date is a day of a calendar, as noon in UTC.
type date struct{ time.Time }

func dateOf(t time.Time, zone *time.Location) date {
	year, month, day := t.In(zone).Date()
	return date{time.Date(year, month, day, 12, 0, 0, 0, time.UTC)}
}

func (d date) plus(days int) date { return date{d.AddDate(0, 0, days)} }

// on returns when the window that begins on the day opens and closes. It is not ok if it does not open that day.
func (w *Window) on(day date) (opens, closes time.Time, ok bool) {
	if !w.Days.Has(day.Weekday()) {
		return opens, closes, false
	}
	end := day
	if w.Until <= w.From {
		end = day.plus(1)
	}
	return local(day, w.From, w.Zone), local(end, w.Until, w.Zone), true
}

// Contains reports whether the window is open at t.
func (w *Window) Contains(t time.Time) bool {
	return w.later(t).Equal(t)
}

// later returns the first time from t on at which the window is open.
func (w *Window) later(t time.Time) time.Time {
	first := dateOf(t, w.Zone)
	for i := -2; i <= searchDays; i++ {
		opens, closes, ok := w.on(first.plus(i))
		switch {
		case !ok || closes.Before(t):
		case opens.After(t):
			return opens
		default:
			return t
		}
	}
	return time.Time{} // not reached: a week has each of its days
}

// earlier returns the last time up to t at which the window is open.
func (w *Window) earlier(t time.Time) time.Time {
	last := dateOf(t, w.Zone)
	for i := 1; i >= -searchDays; i-- {
		opens, closes, ok := w.on(last.plus(i))
		switch {
		case !ok || opens.After(t):
		case closes.Before(t):
			return closes
		default:
			return t
		}
	}
	return time.Time{} // not reached, as in later
}

// reach is more than the difference of any two offsets from UTC, in both directions.
const reach = 36 * time.Hour

// local returns the first instant at which a clock in the zone shows the time of that day or, if the clocks skip it, a
// later one.
func local(day date, clock Clock, zone *time.Location) time.Time {
	wall := day.Truncate(24 * time.Hour).Add(time.Duration(clock) * time.Minute) // as if in UTC
	from := wall.Add(-reach)
	for from.Before(wall.Add(reach)) {
		_, until := from.In(zone).ZoneBounds()
		_, offset := from.In(zone).Zone()
		at := wall.Add(-time.Duration(offset) * time.Second)
		if at.Before(from) {
			at = from // a change of the clocks has skipped it
		}
		if until.IsZero() || at.Before(until) {
			return at
		}
		from = until
	}
	return from // not reached
}
