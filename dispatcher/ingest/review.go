package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/clinikapi/eventflow/dispatcher/places"
)

const (
	// reviewTimeout bounds a call to the API server.
	reviewTimeout = 5 * time.Second
	// reviewWait bounds the wait for a place to make one. It is longer, so that a waiter learns of calls that hang.
	reviewWait = reviewTimeout + time.Second
	// probeInterval is how often an API server that cannot be reached is asked about tokens that are known.
	probeInterval = time.Second
)

// lane is a bounded number of reviews at once. Those for what is known and for what is not never share one.
type lane struct {
	*places.Pool
	rate *rate.Limiter // nil: as many as the places allow
}

// lanes are all of them.
type lanes struct {
	// known tokens and grants are reviewed again, in turn by tenant.
	known *lane
	// grants are what a known token was never reviewed for, in turn by tenant.
	grants *lane
	// tokens were never seen, and may be this cluster's; in turn by client address.
	tokens *lane
	// proven tokens were never seen either, but a token from the same client address was good lately; in turn by address.
	proven *lane
	// odd tokens were never seen, and are no JSON Web Tokens or of an issuer of which none was ever good.
	odd *lane
}

func newLanes() lanes {
	return lanes{
		known:  &lane{Pool: places.New(64, 8192)},
		grants: &lane{Pool: places.New(32, 2048), rate: rate.NewLimiter(200, 400)},
		tokens: &lane{Pool: places.New(16, 1024), rate: rate.NewLimiter(200, 400)},
		proven: &lane{Pool: places.New(16, 1024), rate: rate.NewLimiter(200, 400)},
		odd:    &lane{Pool: places.New(4, 256), rate: rate.NewLimiter(20, 40)},
	}
}

// acquire waits for a place; Release gives it back. Its errors are about limits of this dispatcher only.
func (l *lane) acquire(ctx context.Context, source string) error {
	ctx, cancel := context.WithTimeout(ctx, reviewWait)
	defer cancel()
	if err := l.Acquire(ctx, source, 1); err != nil {
		return err
	}
	if l.rate == nil {
		return nil
	}
	if err := l.rate.Wait(ctx); err != nil {
		l.Release(source, 1)
		return err
	}
	return nil
}

// reach is whether the API server can be reached, as far as the last reviews of known tokens say. While it cannot, one
// review a second finds out, and the others do not wait for it.
type reach struct {
	mu     sync.Mutex
	lost   bool
	probed time.Time
}

// answered notes that the API server did answer.
func (r *reach) answered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = false
}

// failed notes that it did not.
func (r *reach) failed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.lost {
		r.lost, r.probed = true, time.Now()
	}
}

// isLost reports whether the API server could not be reached the last time.
func (r *reach) isLost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// begin says how a review of what is known begins: not at all if the API server could not be reached a moment ago, or as
// the one that finds out whether it can.
func (r *reach) begin() (skip, probe bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.lost {
		return false, false
	}
	now := time.Now()
	if now.Sub(r.probed) < probeInterval {
		return true, false
	}
	r.probed = now
	return false, true
}

// replyTo returns what an API call's error says. A call that was answered with 429 or 5xx counts as not answered: the
// API server, or what it depends on, is overloaded or stopping. Any other status is an answer, if not to the question.
func replyTo(err error) reply {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		if code := status.Status().Code; code == http.StatusTooManyRequests || code >= http.StatusInternalServerError {
			return unreachable
		}
		return failed
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return failed // something answers, and it is not the API server
	}
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return unreachable
	}
	return failed
}

// question is a review to be made.
type question struct {
	kind, key string // a label of the metrics; what makes it one question
	standing  standing
	lane      *lane
	source    string // in whose turn it is asked
	ask       func(context.Context) (outcome, error)
	learn     func(*outcome, effect)
}

// outcome is what came of a review.
type outcome struct {
	reply reply
	user  *authenticationv1.UserInfo // of a token, with yes
	err   error                      // with neither yes nor no
}

// once makes a review once for all that ask the same at the same time. The review goes on when the first of them leaves,
// because it answers the others, too.
func (k *Kubernetes) once(ctx context.Context, q *question) outcome {
	result := k.flights.DoChan(q.key, func() (any, error) {
		o := k.review(context.WithoutCancel(ctx), q)
		_, e := decide(q.standing, o.reply)
		q.learn(&o, e)
		k.metrics.count(q.kind, o.reply)
		return o, nil
	})
	select {
	case r := <-result:
		return r.Val.(outcome)
	case <-ctx.Done():
		return outcome{reply: abandoned, err: ctx.Err()}
	}
}

// review waits for its turn and asks.
func (k *Kubernetes) review(ctx context.Context, q *question) outcome {
	known, probe := q.lane == k.lanes.known, false
	if known { // others are asked about whatever the last answers were
		var skip bool
		if skip, probe = k.reach.begin(); skip {
			return outcome{reply: unreachable, err: errLost}
		}
	}
	err := q.lane.acquire(ctx, q.source)
	if err == nil {
		defer q.lane.Release(q.source, 1)
	}
	if known && !probe && k.reach.isLost() { // while this one waited
		return outcome{reply: unreachable, err: errLost}
	}
	if err != nil {
		return outcome{reply: busy, err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	o, err := q.ask(ctx)
	if err != nil {
		o = outcome{reply: replyTo(err), err: err}
	}
	switch {
	case o.reply != unreachable:
		k.reach.answered()
	case known: // what a flood does to the others says nothing about those that are known
		k.reach.failed()
	}
	return o
}

// errLost says that the API server could not be reached a moment ago.
var errLost = errors.New("the API server could not be reached a moment ago")
