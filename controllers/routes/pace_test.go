package routes

import (
	"testing"
	"time"
)

// TestABurstIsOneFlush: changes that come within 50 ms of each other are waited for, 250 ms at most; one alone waits for 50 ms.
func TestABurstIsOneFlush(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000_000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	for name, tt := range map[string]struct {
		changes []int // milliseconds
		now     int
		want    time.Duration
	}{
		"nothing changed":           {now: 0},
		"one change":                {changes: []int{0}, now: 0, want: gatherQuiet},
		"one change, a while ago":   {changes: []int{0}, now: 50},
		"more came":                 {changes: []int{0, 40}, now: 50, want: 40 * time.Millisecond},
		"more and more":             {changes: []int{0, 40, 80, 120, 160, 200, 240}, now: 240, want: 10 * time.Millisecond},
		"it goes on for too long":   {changes: []int{0, 100, 240}, now: 250},
		"long after the last flush": {changes: []int{0}, now: 5000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := &Table{}
			for _, ms := range tt.changes {
				table.burst.note(at(ms))
			}
			if got := table.gather(at(tt.now)); got != tt.want {
				t.Errorf("wait %v, want %v", got, tt.want)
			}
			if begun := table.burst == (burst{}); begun != (tt.want == 0) {
				t.Errorf("the flush begins: %t, want %t", begun, tt.want == 0)
			}
		})
	}
}
