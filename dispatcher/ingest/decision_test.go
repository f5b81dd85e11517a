package ingest

import (
	"testing"
	"time"
)

// TestDecide writes the whole rule down a second time.
func TestDecide(t *testing.T) {
	t.Parallel()
	type row struct {
		known       standing
		reply       reply
		wantVerdict verdict
		wantEffect  effect
	}
	for _, tc := range []row{
		{held, notAsked, admit, nothing},
		{refused, notAsked, deny, nothing},
		{unasked, notAsked, ask, nothing},
		{stale, notAsked, ask, nothing},
		{expired, notAsked, ask, nothing},

		{unasked, yes, admit, keepYes},
		{stale, yes, admit, keepYes},
		{expired, yes, admit, keepYes},
		{unasked, no, deny, keepNo},
		{stale, no, deny, keepNo},
		{expired, no, deny, keepNo},

		{unasked, unreachable, unknown, nothing},
		{stale, unreachable, admit, prolong}, // the one case in which an old yes holds
		{expired, unreachable, unknown, nothing},

		{unasked, busy, postpone, nothing},
		{stale, busy, postpone, nothing},
		{expired, busy, postpone, nothing},
		{unasked, failed, unknown, nothing},
		{stale, failed, unknown, nothing},
		{expired, failed, unknown, nothing},
		{unasked, abandoned, unknown, nothing},
		{stale, abandoned, unknown, nothing},
		{expired, abandoned, unknown, nothing},
	} {
		if verdict, effect := decide(tc.known, tc.reply); verdict != tc.wantVerdict || effect != tc.wantEffect {
			t.Errorf("standing %d, reply %d: got verdict %d, effect %d, want %d, %d", tc.known, tc.reply, verdict, effect, tc.wantVerdict, tc.wantEffect)
		}
	}
}

func TestLife(t *testing.T) {
	t.Parallel()
	start := time.Now()
	l := life{said: start, fresh: start.Add(allowedTTL)}
	for name, tc := range map[string]struct {
		after, grace time.Duration
		want         standing
	}{
		"at once":                     {0, time.Minute, held},
		"at once, no grace":           {0, 0, held},
		"not fresh":                   {allowedTTL, time.Minute, stale},
		"not fresh, no grace":         {allowedTTL, 0, expired},
		"not fresh, grace is shorter": {allowedTTL, time.Second, expired},
		"end of the grace":            {time.Minute, time.Minute, expired},
		"long ago":                    {rememberedTTL, time.Minute, unasked},
	} {
		if got := l.standing(start.Add(tc.after), tc.grace); got != tc.want {
			t.Errorf("%s: got %d, want %d", name, got, tc.want)
		}
	}
	const grace = time.Minute
	late := start.Add(grace - time.Second)
	if got := l.prolonged(late, grace); got.fresh != start.Add(grace) || got.said != start {
		t.Errorf("the grace is prolonged to %v after it began", got.fresh.Sub(start))
	}
}
