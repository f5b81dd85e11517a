package deliveriesapi

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var began = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

const (
	up   = metav1.ConditionTrue
	down = metav1.ConditionFalse
)

// TestJudge: what follows from one look after another. Each look is 5 s after the one before.
func TestJudge(t *testing.T) {
	t.Parallel()
	absent, ready := seen{}, seen{reached: true}
	works := seen{registered: true, available: up, reached: true}
	silent := seen{registered: true, available: up}
	unavailable := seen{registered: true, available: down, reached: true}
	unsaid := seen{registered: true, reached: true}
	for name, test := range map[string]struct {
		looks []seen
		want  []step
	}{
		"registers only what answers":         {[]seen{absent, absent, ready}, []step{wait, wait, register}},
		"works":                               {[]seen{works, works}, []step{keep, keep}},
		"out of reach for less than 30 s":     {[]seen{works, silent, silent, silent, silent, silent, silent, works}, []step{keep, doubt, doubt, doubt, doubt, doubt, doubt, keep}},
		"out of reach for 30 s":               {[]seen{works, silent, silent, silent, silent, silent, silent, silent}, []step{keep, doubt, doubt, doubt, doubt, doubt, doubt, remove}},
		"the API server does not reach it":    {[]seen{works, unavailable, unavailable, unavailable, unavailable, unavailable, unavailable, unavailable}, []step{keep, doubt, doubt, doubt, doubt, doubt, doubt, remove}},
		"the API server never says a word":    {[]seen{unsaid, unsaid, unsaid, unsaid, unsaid, unsaid, unsaid}, []step{doubt, doubt, doubt, doubt, doubt, doubt, remove}},
		"one answer between counts anew":      {[]seen{silent, silent, silent, silent, works, silent, silent, silent}, []step{doubt, doubt, doubt, doubt, keep, doubt, doubt, doubt}},
		"somebody deleted it while in doubt":  {[]seen{silent, silent, absent, ready, silent, silent}, []step{doubt, doubt, wait, register, doubt, doubt}},
		"found out of reach after a restart":  {[]seen{silent}, []step{doubt}},
		"registered, and not yet looked at":   {[]seen{ready, unsaid, works}, []step{register, doubt, keep}},
		"answers, but the API server says no": {[]seen{ready, unavailable, works}, []step{register, doubt, keep}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &history{}
			for i, s := range test.looks {
				if got := h.judge(s, began.Add(time.Duration(i)*5*time.Second), Timing{}.complete()); got != test.want[i] {
					t.Errorf("look %d: step %d, want %d", i, got, test.want[i])
				}
			}
		})
	}
}

// TestLastLookIsNotLate: pods that hang cost 3 s a look, and the API is taken back 30 s after the first look that failed began.
func TestLastLookIsNotLate(t *testing.T) {
	t.Parallel()
	h, timing, now := &history{}, Timing{}.complete(), began
	for h.judge(seen{registered: true, available: up}, now, timing) != remove {
		now = now.Add(probeTimeout)
		now = now.Add(h.next(now, timing))
	}
	if got := now.Sub(began); got != timing.Patience {
		t.Errorf("the last look begins after %v, want %v", got, timing.Patience)
	}
	if h.removed(now, timing); h.next(now, timing) != timing.Poll {
		t.Errorf("the next look is due in %v", h.next(now, timing))
	}
}

// TestComesBackLaterEachTime: an API that fails again and again is registered more and more seldom, at least every 10 min, until
// it has worked for a while.
func TestComesBackLaterEachTime(t *testing.T) {
	t.Parallel()
	h, timing, now := &history{}, Timing{}.complete(), began
	comesBack := func() time.Duration {
		h.removed(now, timing)
		removed := now
		for h.judge(seen{reached: true}, now, timing) != register {
			now = now.Add(time.Second)
		}
		return now.Sub(removed)
	}
	for _, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 320 * time.Second, 10 * time.Minute, 10 * time.Minute} {
		if got := comesBack(); got != want {
			t.Errorf("it comes back after %v, want %v", got, want)
		}
	}
	for end := now.Add(timing.Proven); !now.After(end); now = now.Add(timing.Poll) {
		h.judge(seen{registered: true, available: up, reached: true}, now, timing)
	}
	if got := comesBack(); got != 10*time.Second {
		t.Errorf("after it was proven, it comes back after %v", got)
	}
}
