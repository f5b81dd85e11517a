package engine

import (
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// room is a part of the places for attempts in flight. An attempt that outlasts the engine's patience moves to patient.
type room uint8

const (
	// prompt is for endpoints that answer soon. Each tenant always has a place there.
	prompt room = iota
	// trial is for endpoints of which nothing is known yet.
	trial
	// patient is for probes of failing endpoints, for slow ones, and for attempts that wait long for an answer.
	patient

	rooms = iota
)

// greed is how many times the free places a tenant may hold: one tenant gets 4/5 of a room, n tenants 4/(4n+1) each.
const greed = 4

// places counts the attempts in flight of all tenants against their limits. It decides, and changes nothing by itself.
type places struct {
	all  int // limit of the attempts in flight in all rooms together
	used [rooms]int
}

// use is what one tenant has in flight.
type use struct {
	in    [rooms]int
	quota int // limit of the tenant's own in all rooms together; 0 for none
}

func (u *use) total() int { return u.in[prompt] + u.in[trial] + u.in[patient] }

func (p *places) total() int { return p.used[prompt] + p.used[trial] + p.used[patient] }

// limit is how many attempts may start in a room. The rooms overlap, so that none stays empty while another is full;
// the quarter that only prompt may use is what hanging endpoints cannot take.
func (p *places) limit(room) int { return max(1, p.all/2) }

// unsure is the limit of trial and patient together.
func (p *places) unsure() int { return max(1, p.all-p.all/4) }

// untried is up to how many attempts in all rooms a tenant may make its first trial. Past unsure it takes a place that
// prompt leaves idle: however many tenants hang, half of the quarter that hanging endpoints cannot take stays.
func (p *places) untried() int { return p.all - p.all/8 }

// capped reports whether the tenant has as many attempts in flight as its quota allows.
func (u *use) capped() bool { return u.quota > 0 && u.total() >= u.quota }

// weight is what a tenant's use of a room is compared by: the less, the sooner a place that comes free is its.
func (u *use) weight(r room) int {
	if r == prompt {
		return u.in[prompt]
	}
	return u.in[trial] + u.in[patient]
}

// admits reports whether a tenant may start another attempt in room r.
func (p *places) admits(r room, u *use) bool {
	switch {
	case p.total() >= p.all || u.capped():
		return false
	case r == prompt && u.in[prompt] == 0:
		return true
	case r == trial && u.in[trial]+u.in[patient] == 0 && p.total() < p.untried():
		return true
	case r != prompt && !fits(u.in[trial]+u.in[patient], p.used[trial]+p.used[patient], p.unsure()):
		return false
	default:
		return fits(u.in[r], p.used[r], p.limit(r))
	}
}

// fits is the dynamic threshold of package budget, with greed.
func fits(mine, used, limit int) bool { return mine < greed*(limit-used) }

// scarce reports whether at least half of a room is in use.
func (p *places) scarce(r room) bool { return 2*p.used[r] >= p.limit(r) }

// share is how many attempts one subscription of the tenant may have in a room: as many as it leaves to the others.
func (p *places) share(r room, u *use) int {
	return max(1, greed*(p.limit(r)-p.used[r])-u.in[r])
}

// evidence is what the last attempt showed of how soon an endpoint answers.
type evidence uint8

const (
	unknown evidence = iota // there was none yet
	quick                   // it answered within the engine's patience, whatever the status
	late                    // it answered later
	silent                  // it gave no answer
)

// evidenceOf is what a result shows.
func evidenceOf(r egress.Result, patience time.Duration) evidence {
	switch {
	case r.StatusCode == 0:
		return silent
	case r.Duration > patience:
		return late
	default:
		return quick
	}
}

// evidenceBefore is what the store knows of a subscription's attempts.
func evidenceBefore(c delivery.Counts) evidence {
	switch {
	case c.FailuresInARow > 0 && c.LastFailure.StatusCode == 0:
		return silent
	case c.FailuresInARow > 0:
		return late
	case !c.LastDelivered.IsZero():
		return quick
	default:
		return unknown
	}
}

// room is where the lane's next attempt belongs.
func (l *lane) room() room {
	switch {
	case l.failing() || l.hold.active || l.waiting > 0 || l.evidence == late || l.evidence == silent:
		return patient
	case l.evidence == unknown:
		return trial
	default:
		return prompt
	}
}

// limit is how many attempts the lane may have in flight. Once places are scarce, an endpoint that did not answer yet, or
// the last time, is probed by one at a time, and so is one that used to answer soon and leaves an attempt waiting: one
// hanging attempt each leaves places for the others'. One that is known to answer late keeps its limit.
func (l *lane) limit(p *places) int {
	r := l.room()
	switch {
	case !l.open():
		return 0
	case l.failing() || l.hold.active:
		return 1
	case (l.evidence == unknown || l.evidence == silent || l.evidence == quick && l.waiting > 0) && p.scarce(r):
		return 1
	default:
		return min(l.endpoint.MaxInFlight, p.share(r, &l.tenant.use))
	}
}
