package deliveriesapi

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Timing is how often the API is looked at, and for how long it may not answer. The zero value stands for the defaults.
type Timing struct {
	// Poll is how often the pods are asked; without, 5 s.
	Poll time.Duration
	// Patience is how long they may be out of reach before the API is taken back; without, 30 s.
	Patience time.Duration
	// Pause is how long after the first taking back the API may come back, and twice as long after each further one; without,
	// 10 s. It is at most 60 pauses.
	Pause time.Duration
	// Proven is how long the API has to work until what was before is forgotten; without, 10 min.
	Proven time.Duration
}

const longestPause = 60

func (t Timing) complete() Timing {
	for _, one := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{{&t.Poll, 5 * time.Second}, {&t.Patience, 30 * time.Second}, {&t.Pause, 10 * time.Second}, {&t.Proven, 10 * time.Minute}} {
		if *one.value <= 0 {
			*one.value = one.fallback
		}
	}
	return t
}

// seen is what one look found.
type seen struct {
	registered bool                   // the APIService of this dispatcher is there
	available  metav1.ConditionStatus // what the API server says of it; "" if nothing yet
	reached    bool                   // the pods answer; before they are registered, this is the whole preflight
}

// step is what follows.
type step int

const (
	wait step = iota
	register
	keep   // it works
	doubt  // it is registered, and may not work
	remove // it has not worked for too long
)

// history is what earlier looks at the API of one dispatcher found.
type history struct {
	of        types.UID
	upSince   time.Time // zero while it does not work
	downSince time.Time // zero while it works, or is not registered
	takenBack int       // how often, since it was proven
	notBefore time.Time // when it may come back
}

// judge returns what to do after a look that began at now.
func (h *history) judge(s seen, now time.Time, t Timing) step {
	if !s.registered {
		h.upSince, h.downSince = time.Time{}, time.Time{}
		if s.reached && !now.Before(h.notBefore) {
			return register
		}
		return wait
	}
	if s.reached && s.available == metav1.ConditionTrue {
		h.downSince = time.Time{}
		if h.upSince.IsZero() {
			h.upSince = now
		}
		if now.Sub(h.upSince) >= t.Proven {
			h.takenBack = 0
		}
		return keep
	}
	h.upSince = time.Time{}
	if h.downSince.IsZero() {
		h.downSince = now
	}
	if now.Sub(h.downSince) < t.Patience {
		return doubt
	}
	return remove
}

// next is how long after now the next look is due: the API must not be out of reach for longer than it may.
func (h *history) next(now time.Time, t Timing) time.Duration {
	if h.downSince.IsZero() {
		return t.Poll
	}
	return max(t.Poll/5, min(t.Poll, h.downSince.Add(t.Patience).Sub(now)))
}

// removed remembers that the API was taken back because it did not work.
func (h *history) removed(now time.Time, t Timing) {
	h.notBefore = now.Add(min(t.Pause<<h.takenBack, longestPause*t.Pause))
	h.takenBack = min(h.takenBack+1, 6) // 2^6 is more than longestPause
	h.upSince, h.downSince = time.Time{}, time.Time{}
}
