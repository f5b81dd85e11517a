package engine

import (
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

// Happening is something that an operational event is made of. It is recorded in the store already.
type Happening struct {
	// Type is one of the operational types, but for event.KeyRotated.
	Type         event.Type
	Subscription event.SubscriptionKey
	// At is when it was seen.
	At time.Time
	// Delivery of event.DeliveryFailed, and what its age counts from: a replay that fails is another happening.
	Delivery event.DeliveryID
	Since    time.Time
	// Run names the run of failures: when the endpoint answered 2xx last before it. Processes agree on it.
	Run time.Time
	// Generation of the endpoint that is gone.
	Generation int64
	// Attempts that failed in a row, or were made for the delivery.
	Attempts int
	// Reason and StatusCode of the last of them; of a delivery that was given up without one they are empty.
	Reason     delivery.Reason
	StatusCode int
}

// health is what is known of an endpoint's.
type health struct {
	failing   bool
	failures  int
	gone      int64
	delivered time.Time
}

func (l *lane) health() health {
	return health{failing: l.failing(), failures: l.failures, gone: l.gone, delivered: l.delivered}
}

// became is a change of an endpoint's health. Failing and gone may come together; recovered ends both.
type became struct {
	failing, gone, recovered bool
	failures                 int
	generation               int64
	run                      time.Time
}

// to is the change from h to now.
func (h health) to(now health) became {
	return became{
		failing:    now.failing && !h.failing,
		gone:       now.gone != 0 && now.gone != h.gone,
		recovered:  (h.failing || h.gone != 0) && now.failures == 0 && now.gone == 0,
		failures:   now.failures,
		generation: now.gone,
		run:        h.delivered,
	}
}

// tell passes on what happened with a settlement that is recorded.
func (e *Engine) tell(s *settlement) {
	failed := s.outcome.State == delivery.Failed
	if !failed && !s.became.failing && !s.became.gone && !s.became.recovered {
		return
	}
	h := Happening{Subscription: s.lane.key, At: e.Now(), Run: s.became.run, Attempts: s.became.failures, Generation: s.became.generation}
	if a := s.outcome.Attempt; a != nil {
		h.Reason, h.StatusCode = a.Reason, a.StatusCode
	}
	if failed {
		h := h
		h.Type, h.Delivery, h.Since = event.DeliveryFailed, s.outcome.Delivery.ID, s.outcome.Delivery.Since
		if h.Attempts = s.outcome.Delivery.Attempts; s.outcome.Attempt != nil {
			h.Attempts = s.outcome.Attempt.Number
		}
		e.Happened(h)
	}
	for _, change := range [...]struct {
		is  bool
		typ event.Type
	}{{s.became.failing, event.EndpointFailing}, {s.became.gone, event.EndpointGone}, {s.became.recovered, event.EndpointRecovered}} {
		if change.is {
			h.Type = change.typ
			e.Happened(h)
		}
	}
}

// recall passes on the state that a lane is opened with, if deliveries stopped or slowed down in it: the process that saw
// that may have ended before it was told. Who heard of it knows it by the Run or the Generation.
func (e *Engine) recall(l *lane, counts *delivery.Counts) {
	if l.endpoint == nil {
		return
	}
	h := Happening{
		Subscription: l.key, At: e.Now(), Run: l.delivered, Generation: l.gone, Attempts: l.failures,
		Reason: counts.LastFailure.Reason, StatusCode: counts.LastFailure.StatusCode,
	}
	if l.failing() {
		h.Type = event.EndpointFailing
		e.Happened(h)
	}
	if l.gone != 0 && l.gone == l.endpoint.Generation {
		h.Type = event.EndpointGone
		e.Happened(h)
	}
}
