package main

import (
	"slices"
	"sync"
	"time"
)

// plan says what a run's events and endpoints are. Event n belongs to group n % Groups, which has Fan endpoints: endpoint
// i is the (i % Fan)th of group i / Fan.
type plan struct {
	Run, Events, Groups, Fan int
}

// tallied is what the receiver saw of a run.
type tallied struct {
	// Arrived are deliveries answered with 2xx, each counted once; Duplicates those that came again.
	Arrived, Duplicates int
	// Failed are deliveries that an endpoint refused, each counted once.
	Failed int
	// Misrouted came to an endpoint of another group.
	Misrouted int
	// Last is when the newest arrival came.
	Last time.Time
	// Latency is from when the event was to be published until it arrived.
	Latency quantiles
}

// failedBit marks a delivery that was refused, in its count of arrivals.
const failedBit = 0x80

// tally counts a run's deliveries.
type tally struct {
	mu        sync.Mutex
	plan      plan
	seen      []byte // arrivals by event and endpoint
	latencies []time.Duration
	counts    tallied
	changed   chan struct{} // closed and replaced when who waits should look again
	wanted    [2]int        // arrivals and failures that somebody waits for
}

func newTally() *tally { return &tally{changed: make(chan struct{})} }

// begin starts counting a new run.
func (t *tally) begin(p plan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.plan, t.counts = p, tallied{}
	if n := p.Events * p.Fan; cap(t.seen) < n {
		t.seen = make([]byte, n)
	} else {
		t.seen = t.seen[:n]
		clear(t.seen)
	}
	t.latencies = t.latencies[:0]
}

// arrive counts a delivery that reached an endpoint. Those of other runs are late and of no interest.
func (t *tally) arrive(id identity, endpoint int, taken bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id.run != t.plan.Run || id.number >= t.plan.Events {
		return
	}
	if endpoint/t.plan.Fan != id.number%t.plan.Groups {
		t.counts.Misrouted++
		return
	}
	seen := &t.seen[id.number*t.plan.Fan+endpoint%t.plan.Fan]
	switch {
	case !taken:
		if *seen&failedBit == 0 {
			*seen |= failedBit
			t.counts.Failed++
		}
	case *seen&^failedBit > 0:
		t.counts.Duplicates++
	default:
		*seen++
		t.counts.Arrived++
		t.counts.Last = now
		t.latencies = append(t.latencies, now.Sub(id.sent))
	}
	if t.wanted != [2]int{} && t.reached() {
		t.wanted = [2]int{}
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

func (t *tally) reached() bool {
	return t.counts.Arrived >= t.wanted[0] && t.counts.Failed >= t.wanted[1]
}

// wait waits until so many deliveries arrived and so many were refused, or until the channel is closed.
func (t *tally) wait(arrived, failed int, end <-chan struct{}) {
	for {
		t.mu.Lock()
		t.wanted = [2]int{arrived, failed}
		done, changed := t.reached(), t.changed
		if done {
			t.wanted = [2]int{}
		}
		t.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-end:
			return
		}
	}
}

// sum returns what was seen so far.
func (t *tally) sum() tallied {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := t.counts
	counts.Latency = quantilesOf(slices.Clone(t.latencies))
	return counts
}

// arrivals returns a copy of the counts by event and endpoint.
func (t *tally) arrivals() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.seen)
}

// quantiles of a latency, in milliseconds.
type quantiles struct {
	Count         int
	P50, P90, P99 float64
	P999, Max     float64
}

// quantilesOf sorts all.
func quantilesOf(all []time.Duration) quantiles {
	if len(all) == 0 {
		return quantiles{}
	}
	slices.Sort(all)
	at := func(q float64) float64 {
		return float64(all[min(len(all)-1, int(q*float64(len(all))))].Microseconds()) / 1000
	}
	return quantiles{Count: len(all), P50: at(0.5), P90: at(0.9), P99: at(0.99), P999: at(0.999), Max: at(1)}
}
