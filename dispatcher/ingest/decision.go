package ingest

import "time"

// standing is what is known of a token, or of a grant, before the API server is asked about it.
type standing int

const (
	// unasked: the API server never answered, or the answer was forgotten.
	unasked standing = iota
	// held: the API server said yes, a moment ago.
	held
	// refused: it said no, a moment ago.
	refused
	// stale: it said yes within the outage grace, and has to be asked again.
	stale
	// expired: it said yes before that, and has to be asked again.
	expired
)

// reply is what came of asking.
type reply int

const (
	// notAsked: nothing was asked yet.
	notAsked reply = iota
	// yes and no are the API server's answers.
	yes
	no
	// unreachable: the API server could not be reached, did not answer in time, or said 429 or 5xx.
	unreachable
	// failed: it answered with another error, such as 403 for this dispatcher's own token.
	failed
	// busy: a limit of this dispatcher was reached. It says nothing about the API server.
	busy
	// abandoned: the client left before there was an answer. It says nothing about the API server, either.
	abandoned
)

// verdict is what follows for the request.
type verdict int

const (
	// ask the API server first.
	ask verdict = iota
	// admit the request.
	admit
	// deny it.
	deny
	// defer it: the client may send it again in a moment.
	postpone
	// fail it: it cannot be found out whether the request is allowed.
	unknown
)

// effect is what follows for what is remembered.
type effect int

const (
	nothing effect = iota
	// keepYes and keepNo remember an answer. keepNo forgets a yes, and all that it allowed.
	keepYes
	keepNo
	// prolong lets a yes hold for a moment without asking again.
	prolong
)

// decide is the whole rule of authorization. The grace is for an API server that cannot be asked, and for nothing else:
// neither a limit of this dispatcher nor a client that leaves lets an old yes hold.
func decide(known standing, r reply) (verdict, effect) {
	switch known {
	case held:
		return admit, nothing
	case refused:
		return deny, nothing
	case unasked, stale, expired:
	}
	switch r {
	case notAsked:
		return ask, nothing
	case yes:
		return admit, keepYes
	case no:
		return deny, keepNo
	case unreachable:
		if known == stale {
			return admit, prolong
		}
		return unknown, nothing
	case busy:
		return postpone, nothing
	case failed, abandoned:
	}
	return unknown, nothing
}

// How long answers hold.
const (
	// allowedTTL is how long a yes holds: it may have been revoked since.
	allowedTTL = 10 * time.Second
	// deniedTTL is how long a no holds: what was denied is often granted a moment later.
	deniedTTL = 2 * time.Second
	// prolongedTTL is how long a yes holds after the API server could not be asked again.
	prolongedTTL = 2 * time.Second
	// rememberedTTL is how long a token that was good counts as known, and is reviewed before those never seen.
	rememberedTTL = time.Hour
)

// life is how long a yes holds.
type life struct {
	said  time.Time // when the API server said it last
	fresh time.Time // until then nothing is asked
}

// standing returns what a yes is worth now.
func (l life) standing(now time.Time, grace time.Duration) standing {
	switch {
	case now.Before(l.fresh):
		return held
	case now.Before(l.said.Add(grace)):
		return stale
	case now.Before(l.said.Add(rememberedTTL)):
		return expired
	}
	return unasked
}

// prolonged is l after the API server could not be asked again: not each request is to wait for that.
func (l life) prolonged(now time.Time, grace time.Duration) life {
	l.fresh = now.Add(min(prolongedTTL, l.said.Add(grace).Sub(now)))
	return l
}
