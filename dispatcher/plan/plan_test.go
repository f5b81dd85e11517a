package plan

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	newYork := zone(t, "America/New_York")
	day := func(outside Outside) *Window {
		return &Window{Zone: newYork, From: clock(t, "09:00"), Until: clock(t, "20:00"), Outside: outside}
	}
	const noon = "2026-01-15T12:00:00-05:00"
	tests := map[string]struct {
		rules      Rules
		at, now    string
		wantAt     string
		wantReason Reason
	}{
		"in the future":              {Rules{}, noon, "2026-01-01T00:00:00Z", noon, ""},
		"now":                        {Rules{}, noon, noon, noon, ""},
		"past, skipped":              {Rules{IfPast: SkipPast}, noon, "2026-01-15T12:00:01-05:00", "", Past},
		"past, by default":           {Rules{}, noon, "2026-01-16T00:00:00Z", "", Past},
		"past, delivered":            {Rules{IfPast: DeliverPast}, noon, "2026-01-16T00:00:00Z", "2026-01-16T00:00:00Z", ""},
		"inside of the window":       {Rules{Window: day(Skip)}, noon, "2026-01-01T00:00:00Z", noon, ""},
		"outside, skipped":           {Rules{Window: day(Skip)}, "2026-01-15T07:00:00-05:00", "2026-01-01T00:00:00Z", "", OutsideWindow},
		"outside, later":             {Rules{Window: day(Later)}, "2026-01-15T07:00:00-05:00", "2026-01-01T00:00:00Z", "2026-01-15T09:00:00-05:00", ""},
		"outside, earlier":           {Rules{Window: day(Earlier)}, "2026-01-15T07:00:00-05:00", "2026-01-01T00:00:00Z", "2026-01-14T20:00:00-05:00", ""},
		"earlier has passed":         {Rules{Window: day(Earlier)}, "2026-01-15T07:00:00-05:00", "2026-01-15T06:00:00-05:00", "", Past},
		"earlier has passed, wanted": {Rules{IfPast: DeliverPast, Window: day(Earlier)}, "2026-01-15T07:00:00-05:00", "2026-01-15T06:00:00-05:00", "2026-01-15T09:00:00-05:00", ""},
		"past, wanted at night":      {Rules{IfPast: DeliverPast, Window: day(Later)}, noon, "2026-01-15T21:00:00-05:00", "2026-01-16T09:00:00-05:00", ""},
		"past, wanted by day":        {Rules{IfPast: DeliverPast, Window: day(Later)}, noon, "2026-01-15T13:00:00-05:00", "2026-01-15T13:00:00-05:00", ""},
		"past, wanted, not at night": {Rules{IfPast: DeliverPast, Window: day(Skip)}, noon, "2026-01-15T21:00:00-05:00", "", OutsideWindow},
		"past in its window of yore": {Rules{Window: day(Later)}, "2025-01-15T12:00:00-05:00", noon, "", Past},
		"later than now through the window, though past": {Rules{Window: day(Later)}, "2026-01-15T07:00:00-05:00", "2026-01-15T08:00:00-05:00", "", Past},
		"400 days ahead":           {Rules{}, "2027-02-19T12:00:00-05:00", noon, "2027-02-19T12:00:00-05:00", ""},
		"more than 400 days":       {Rules{}, "2027-02-19T12:00:01-05:00", noon, "", TooFarAhead},
		"more through the window":  {Rules{Window: day(Later)}, "2027-02-19T21:00:00-05:00", "2026-01-15T21:00:00-05:00", "", TooFarAhead},
		"at the end of all years":  {Rules{Window: day(Later)}, "9999-12-31T23:59:59Z", noon, "", TooFarAhead},
		"at the beginning of them": {Rules{IfPast: DeliverPast, Window: day(Earlier)}, "0001-01-01T00:00:00Z", noon, noon, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := test.rules.Decide(instant(t, test.at), instant(t, test.now))
			want := Decision{Reason: test.wantReason}
			if test.wantAt != "" {
				want.At = instant(t, test.wantAt)
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got.Planned() != (test.wantReason == "") {
				t.Errorf("Planned is %t with reason %q", got.Planned(), got.Reason)
			}
		})
	}
}

func TestResolveAndCancel(t *testing.T) {
	t.Parallel()
	at := func(hour int) time.Time { return time.Date(2026, 1, 15, hour, 0, 0, 0, time.UTC) }
	tests := map[string]struct {
		latest      *Latest
		timestamp   time.Time
		wantResolve Verdict
		wantCancel  Verdict
	}{
		"nothing is planned":     {nil, at(1), Verdict{}, Verdict{}},
		"a later event":          {&Latest{Waiting, at(1)}, at(2), Verdict{End: Replaced}, Verdict{End: CancelledByEvent}},
		"at the same time":       {&Latest{Waiting, at(1)}, at(1), Verdict{End: Replaced}, Verdict{End: CancelledByEvent}},
		"an older event":         {&Latest{Waiting, at(2)}, at(1), Verdict{Ignore: true}, Verdict{Ignore: true}},
		"it has begun":           {&Latest{Started, at(1)}, at(2), Verdict{}, Verdict{End: CancelledByEvent}},
		"it has begun, an older": {&Latest{Started, at(2)}, at(1), Verdict{Ignore: true}, Verdict{Ignore: true}},
		"it has ended":           {&Latest{Ended, at(1)}, at(2), Verdict{}, Verdict{}},
		"a zombie: created arrives after what cancelled it": {&Latest{Ended, at(2)}, at(1), Verdict{Ignore: true}, Verdict{Ignore: true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.wantResolve, Resolve(test.latest, test.timestamp)); diff != "" {
				t.Errorf("Resolve: -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(test.wantCancel, Cancel(test.latest, test.timestamp)); diff != "" {
				t.Errorf("Cancel: -want +got:\n%s", diff)
			}
		})
	}
}

// TestAnyOrderEndsAlike: whatever the order in which a key's events arrive, what is planned at the end is what the event
// with the newest timestamp says.
func TestAnyOrderEndsAlike(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		cancels := make([]bool, 1+random.IntN(6)) // by timestamp
		for i := range cancels {
			cancels[i] = random.IntN(3) == 0
		}
		var latest *Latest
		planned := -1
		for _, i := range random.Perm(len(cancels)) {
			timestamp := time.Unix(int64(i), 0)
			decide := Resolve
			if cancels[i] {
				decide = Cancel
			}
			if decide(latest, timestamp).Ignore {
				continue
			}
			latest, planned = &Latest{State: Waiting, Timestamp: timestamp}, i
			if cancels[i] {
				latest.State, planned = Ended, -1
			}
		}
		want := len(cancels) - 1
		if cancels[want] {
			want = -1
		}
		if planned != want {
			t.Fatalf("cancels %v: planned is %d, want %d", cancels, planned, want)
		}
	}
}

func TestNewKey(t *testing.T) {
	t.Parallel()
	if key, err := NewKey(""); err != nil || !key.IsZero() {
		t.Errorf("the key of no text is %x, %v", key, err)
	}
	a, errA := NewKey("apt_1")
	b, errB := NewKey("apt_2")
	again, errAgain := NewKey("apt_1")
	if errA != nil || errB != nil || errAgain != nil || a == b || a != again || a.IsZero() {
		t.Errorf("keys %x, %x, %x; %v, %v, %v", a, b, again, errA, errB, errAgain)
	}
	if _, err := NewKey(strings.Repeat("x", MaxKey)); err != nil {
		t.Error(err)
	}
	_, err := NewKey(strings.Repeat("x", MaxKey+1))
	if err == nil || strings.Contains(err.Error(), "xx") {
		t.Errorf("the error of a long key is %v", err)
	}
}

var zoneNames = []string{
	"UTC", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Santiago", "Australia/Sydney", "Europe/London",
	"Asia/Kathmandu", "Pacific/Apia", "Pacific/Kiritimati", "Africa/Casablanca", "America/St_Johns", "Asia/Gaza", "Antarctica/Troll",
}

// FuzzWindow states what holds of every decision with a window: it is not before now, not too far ahead, in the window;
// and nothing nearer is.
func FuzzWindow(f *testing.F) {
	f.Add(int64(1768482000), int64(1768400000), 1, 540, 1200, uint8(0), uint8(0), true)
	f.Add(int64(1772953200), int64(1772940000), 1, 130, 170, uint8(0), uint8(1), false)
	f.Add(int64(1793518200), int64(1793510000), 1, 70, 110, uint8(3), uint8(2), true)
	f.Add(int64(1776981600), int64(1776900000), 3, 1320, 360, uint8(64), uint8(1), true)
	f.Fuzz(func(t *testing.T, at, now int64, zoneIndex, from, until int, days, outside uint8, deliver bool) {
		const years = 200 * 365 * 24 * 3600
		w := &Window{
			Zone: zone(t, zoneNames[uint(zoneIndex)%uint(len(zoneNames))]),
			From: Clock(uint(from) % dayMinutes), Until: Clock(uint(until) % (dayMinutes + 1)),
			Days: Days(days & 127), Outside: []Outside{Later, Earlier, Skip}[outside%3],
		}
		if w.Check() != nil {
			return
		}
		checkDecision(t, w, time.Unix(at%years, 0), time.Unix(now%years, 0), deliver)
	})
}

func checkDecision(t *testing.T, w *Window, at, now time.Time, deliver bool) {
	rules := Rules{Window: w, IfPast: SkipPast}
	if deliver {
		rules.IfPast = DeliverPast
	}
	got := rules.Decide(at, now)
	if !got.Planned() {
		if deliver && got.Reason == Past {
			t.Errorf("%v: it is to be delivered, and is Past", w)
		}
		return
	}
	switch {
	case got.At.Before(now):
		t.Errorf("%v: %s moves to %s, before now, %s", w, at, got.At, now)
	case got.At.After(now.Add(MaxAhead)) && !at.Before(now):
		t.Errorf("%v: %s moves to %s, too far from now, %s", w, at, got.At, now)
	case !w.Contains(got.At):
		t.Errorf("%v: %s moves to %s, outside of the window", w, at, got.At.In(w.Zone))
	case w.Contains(at) && !at.Before(now) && !got.At.Equal(at):
		t.Errorf("%v: %s is in the window, and moves to %s", w, at, got.At)
	}
	checkNearest(t, w, at)
}

// checkNearest walks the minutes between a time and those that the window moves it to.
func checkNearest(t *testing.T, w *Window, at time.Time) {
	later, earlier := w.later(at), w.earlier(at)
	if later.Before(at) || earlier.After(at) || later.IsZero() || earlier.IsZero() {
		t.Fatalf("%v: around %s are %s and %s", w, at, earlier, later)
	}
	for probe := at; probe.Before(later); probe = probe.Add(97 * time.Minute) {
		if w.Contains(probe) {
			t.Fatalf("%v: later than %s is %s, and %s would do", w, at, later, probe)
		}
	}
	for probe := at; probe.After(earlier); probe = probe.Add(-97 * time.Minute) {
		if w.Contains(probe) {
			t.Fatalf("%v: earlier than %s is %s, and %s would do", w, at, earlier, probe)
		}
	}
}

// TestWindowProperties is FuzzWindow over random values, with many around the changes of clocks.
func TestWindowProperties(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		w := &Window{
			Zone: zone(t, zoneNames[random.IntN(len(zoneNames))]), From: Clock(random.IntN(dayMinutes)),
			Until: Clock(random.IntN(dayMinutes + 1)), Days: Days(random.IntN(128)),
			Outside: []Outside{Later, Earlier, Skip}[random.IntN(3)],
		}
		if w.Check() != nil {
			continue
		}
		at := time.Unix(1767225600+random.Int64N(3*365*24*3600), 0)
		if _, change := at.In(w.Zone).ZoneBounds(); !change.IsZero() && random.IntN(2) == 0 {
			at = change.Add(time.Duration(random.Int64N(int64(6*time.Hour))) - 3*time.Hour)
		}
		now := at.Add(time.Duration(random.Int64N(int64(800*24*time.Hour))) - MaxAhead)
		checkDecision(t, w, at, now, random.IntN(2) == 0)
	}
}
