package plan

import (
	"testing"
	"time"
	_ "time/tzdata"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loaded, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func clock(t testing.TB, text string) Clock {
	t.Helper()
	parsed, err := ParseClock(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func instant(t testing.TB, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestLocalTimesAcrossClockChanges: a local time that is skipped means the first instant after it, one that comes twice
// the first, in zones whose changes differ.
func TestLocalTimesAcrossClockChanges(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		zone, day, clock, want string
	}{
		"New York, an ordinary day":                   {"America/New_York", "2026-01-15", "09:00", "2026-01-15T09:00:00-05:00"},
		"New York, before the gap":                    {"America/New_York", "2026-03-08", "01:59", "2026-03-08T01:59:00-05:00"},
		"New York, the gap begins":                    {"America/New_York", "2026-03-08", "02:00", "2026-03-08T03:00:00-04:00"},
		"New York, within the gap":                    {"America/New_York", "2026-03-08", "02:30", "2026-03-08T03:00:00-04:00"},
		"New York, the gap ends":                      {"America/New_York", "2026-03-08", "03:00", "2026-03-08T03:00:00-04:00"},
		"New York, twice":                             {"America/New_York", "2026-11-01", "01:30", "2026-11-01T01:30:00-04:00"},
		"New York, after twice":                       {"America/New_York", "2026-11-01", "02:00", "2026-11-01T02:00:00-05:00"},
		"Lord Howe, half an hour is skipped":          {"Australia/Lord_Howe", "2026-10-04", "02:15", "2026-10-04T02:30:00+11:00"},
		"Lord Howe, half an hour twice":               {"Australia/Lord_Howe", "2026-04-05", "01:45", "2026-04-05T01:45:00+11:00"},
		"Lord Howe, after it":                         {"Australia/Lord_Howe", "2026-04-05", "02:00", "2026-04-05T02:00:00+10:30"},
		"Cairo, midnight is skipped":                  {"Africa/Cairo", "2026-04-24", "00:00", "2026-04-24T01:00:00+03:00"},
		"Cairo, 24:00 of the day before":              {"Africa/Cairo", "2026-04-23", "24:00", "2026-04-24T01:00:00+03:00"},
		"Cairo, the last hour of the day twice":       {"Africa/Cairo", "2026-10-29", "23:30", "2026-10-29T23:30:00+03:00"},
		"Cairo, midnight after it":                    {"Africa/Cairo", "2026-10-30", "00:00", "2026-10-30T00:00:00+02:00"},
		"Sydney, the southern spring":                 {"Australia/Sydney", "2026-10-04", "02:30", "2026-10-04T03:00:00+11:00"},
		"Sydney, the southern autumn":                 {"Australia/Sydney", "2026-04-05", "02:30", "2026-04-05T02:30:00+11:00"},
		"Santiago, midnight in the southern spring":   {"America/Santiago", "2026-09-06", "00:30", "2026-09-06T01:00:00-03:00"},
		"Apia, a day that was skipped":                {"Pacific/Apia", "2011-12-30", "10:00", "2011-12-31T00:00:00+14:00"},
		"Kathmandu, no changes and an odd offset":     {"Asia/Kathmandu", "2026-03-08", "02:30", "2026-03-08T02:30:00+05:45"},
		"Kiritimati, the greatest offset":             {"Pacific/Kiritimati", "2026-03-08", "00:00", "2026-03-08T00:00:00+14:00"},
		"Casablanca, an hour less during Ramadan":     {"Africa/Casablanca", "2026-02-15", "02:30", "2026-02-15T02:30:00+01:00"},
		"Casablanca, an hour more after Ramadan":      {"Africa/Casablanca", "2026-03-22", "02:30", "2026-03-22T03:00:00+01:00"},
		"London, an hour that is in both, the winter": {"Europe/London", "2026-10-25", "01:00", "2026-10-25T01:00:00+01:00"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			day, err := time.Parse(time.DateOnly, test.day)
			if err != nil {
				t.Fatal(err)
			}
			got := local(date{day.Add(12 * time.Hour)}, clock(t, test.clock), zone(t, test.zone))
			if want := instant(t, test.want); !got.Equal(want) {
				t.Errorf("%s %s in %s is %s, want %s", test.day, test.clock, test.zone, got.In(zone(t, test.zone)), want)
			}
		})
	}
}

func TestWindowMoves(t *testing.T) {
	t.Parallel()
	weekdays := NewDays(time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday)
	tests := map[string]struct {
		zone, from, until string
		days              Days
		at                string
		wantLater         string
		wantEarlier       string
	}{
		"inside": {"America/New_York", "09:00", "20:00", 0, "2026-01-15T12:00:00-05:00",
			"2026-01-15T12:00:00-05:00", "2026-01-15T12:00:00-05:00"},
		"at its first moment": {"America/New_York", "09:00", "20:00", 0, "2026-01-15T09:00:00-05:00",
			"2026-01-15T09:00:00-05:00", "2026-01-15T09:00:00-05:00"},
		"at its last moment": {"America/New_York", "09:00", "20:00", 0, "2026-01-15T20:00:00-05:00",
			"2026-01-15T20:00:00-05:00", "2026-01-15T20:00:00-05:00"},
		"early in the morning": {"America/New_York", "09:00", "20:00", 0, "2026-01-15T07:00:00-05:00",
			"2026-01-15T09:00:00-05:00", "2026-01-14T20:00:00-05:00"},
		"late in the evening": {"America/New_York", "09:00", "20:00", 0, "2026-01-15T21:00:00-05:00",
			"2026-01-16T09:00:00-05:00", "2026-01-15T20:00:00-05:00"},
		"on a Saturday, of weekdays": {"America/New_York", "09:00", "20:00", weekdays, "2026-01-17T12:00:00-05:00",
			"2026-01-19T09:00:00-05:00", "2026-01-16T20:00:00-05:00"},
		"the clocks change overnight": {"America/New_York", "09:00", "20:00", 0, "2026-03-08T06:30:00Z",
			"2026-03-08T09:00:00-04:00", "2026-03-07T20:00:00-05:00"},
		"over midnight, before it": {"America/New_York", "22:00", "06:00", 0, "2026-01-15T23:00:00-05:00",
			"2026-01-15T23:00:00-05:00", "2026-01-15T23:00:00-05:00"},
		"over midnight, after it": {"America/New_York", "22:00", "06:00", 0, "2026-01-15T05:00:00-05:00",
			"2026-01-15T05:00:00-05:00", "2026-01-15T05:00:00-05:00"},
		"over midnight, outside": {"America/New_York", "22:00", "06:00", 0, "2026-01-15T12:00:00-05:00",
			"2026-01-15T22:00:00-05:00", "2026-01-15T06:00:00-05:00"},
		"over midnight belongs to the day it begins on": {"America/New_York", "22:00", "06:00", NewDays(time.Friday),
			"2026-01-17T05:00:00-05:00", "2026-01-17T05:00:00-05:00", "2026-01-17T05:00:00-05:00"},
		"over midnight, not to the day it ends on": {"America/New_York", "22:00", "06:00", NewDays(time.Saturday),
			"2026-01-17T05:00:00-05:00", "2026-01-17T22:00:00-05:00", "2026-01-11T06:00:00-05:00"},
		"the whole day": {"America/New_York", "00:00", "24:00", 0, "2026-03-08T02:30:00-05:00",
			"2026-03-08T02:30:00-05:00", "2026-03-08T02:30:00-05:00"},
		"a window that is skipped whole": {"America/New_York", "02:10", "02:50", 0, "2026-03-08T01:00:00-05:00",
			"2026-03-08T03:00:00-04:00", "2026-03-07T02:50:00-05:00"},
		"a window that comes twice is the first": {"America/New_York", "01:10", "01:50", 0, "2026-11-01T01:30:00-05:00",
			"2026-11-02T01:10:00-05:00", "2026-11-01T01:50:00-04:00"},
		"Cairo, until a midnight that is skipped": {"Africa/Cairo", "09:00", "24:00", 0, "2026-04-24T02:00:00+03:00",
			"2026-04-24T09:00:00+03:00", "2026-04-24T01:00:00+03:00"},
		"Apia, the Friday that was skipped": {"Pacific/Apia", "09:00", "20:00", NewDays(time.Friday), "2011-12-29T12:00:00-10:00",
			"2011-12-31T00:00:00+14:00", "2011-12-23T20:00:00-10:00"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := Window{Zone: zone(t, test.zone), From: clock(t, test.from), Until: clock(t, test.until), Days: test.days, Outside: Later}
			if err := w.Check(); err != nil {
				t.Fatal(err)
			}
			at := instant(t, test.at)
			if got, want := w.later(at), instant(t, test.wantLater); !got.Equal(want) {
				t.Errorf("later is %s, want %s", got.In(w.Zone), want)
			}
			if got, want := w.earlier(at), instant(t, test.wantEarlier); !got.Equal(want) {
				t.Errorf("earlier is %s, want %s", got.In(w.Zone), want)
			}
		})
	}
}

func TestParseClock(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Clock{"00:00": 0, "09:05": 545, "23:59": 1439, "24:00": 1440} {
		if got, err := ParseClock(text); err != nil || got != want || got.String() != text {
			t.Errorf("ParseClock(%q) is %d (%s), %v; want %d", text, got, got, err, want)
		}
	}
	for _, text := range []string{"", "9:00", "09:60", "24:01", "25:00", "0900", "09-00", "-9:00", "09:0a", "09:000", "ä9:00"} {
		if got, err := ParseClock(text); err == nil {
			t.Errorf("ParseClock(%q) is %s, want an error", text, got)
		}
	}
}

func TestWindowCheck(t *testing.T) {
	t.Parallel()
	bad := map[string]Window{
		"no zone":     {From: 0, Until: 60, Outside: Later},
		"empty":       {Zone: time.UTC, From: 60, Until: 60, Outside: Later},
		"from 24:00":  {Zone: time.UTC, From: dayMinutes, Until: 60, Outside: Later},
		"too late":    {Zone: time.UTC, From: 0, Until: dayMinutes + 1, Outside: Later},
		"no outside":  {Zone: time.UTC, From: 0, Until: 60},
		"bad outside": {Zone: time.UTC, From: 0, Until: 60, Outside: "Never"},
	}
	for name, window := range bad {
		if window.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
