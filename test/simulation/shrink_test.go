package simulation

import (
	"slices"
	"strings"
	"time"
)

// promise is the kind of a violation: its first word.
func promise(violation string) string {
	_, what, _ := strings.Cut(violation, ": ")
	word, _, _ := strings.Cut(what, ":")
	return word
}

// shrink leaves steps out of a history for as long as the same promise is broken: first those that came after, then halves,
// quarters and so on down to single ones. It ends when nothing more can be left out, or the time is up. fails runs a
// history, and returns the first violation, "" if there was none.
func shrink(h *history, broken string, fails func(*history) string, until time.Time) *history {
	same := func(candidate *history) bool { return promise(fails(candidate)) == broken }
	best := h
	for size := (len(h.steps) + 1) / 2; size > 0; size /= 2 {
		for from := 0; from < len(best.steps); {
			if time.Now().After(until) {
				return best
			}
			candidate := *best
			candidate.steps = slices.Delete(slices.Clone(best.steps), from, min(from+size, len(best.steps)))
			if same(&candidate) {
				best = &candidate
				continue
			}
			from += size
		}
	}
	return best
}
