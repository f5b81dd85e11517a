package ingest

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/clinikapi/eventflow/dispatcher/places"
	"github.com/clinikapi/eventflow/dispatcher/pull"
)

const (
	// pullWriteTimeout is how long a consumer may take to read a page. What it holds until then is its own tenant's memory.
	pullWriteTimeout = 60 * time.Second
	// pullRetry is when to try again what the tenant's own pulls kept from being answered, pullHeld what waits for somebody.
	pullRetry, pullHeld = 2 * time.Second, 30 * time.Second
)

// onSubscription is what is done to one subscription, by what follows the namespace in the path.
func onSubscription(rest string) (name string, op operation) {
	rest, found := strings.CutPrefix(rest, "subscriptions/")
	name, pulls := strings.CutSuffix(rest, "/deliveries:pull")
	if !found || !pulls || !isSubdomain(name) {
		return "", opNone
	}
	return name, opPull
}

// isSubdomain reports whether s is a subdomain as RFC 1123 has it, and Kubernetes for most names.
func isSubdomain(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if !isLabelText(part) {
			return false
		}
	}
	return len(s) <= validation.DNS1123SubdomainMaxLength
}

// pull answers a consumer's call: it acknowledges what was handled, and gets what comes next.
func (h *Handler) pull(w http.ResponseWriter, r *http.Request, c *call) (status int, err error) {
	if h.options.Pulls == nil {
		return 0, pathNotFound()
	}
	request, err := parsePull(r.URL.RawQuery)
	if err != nil {
		return 0, err
	}
	request.Tenant, request.Subscription = c.tenant, strings.Clone(c.subscription)
	request.Allowed = func() error {
		_, err := h.authorize(r, *c)
		return err
	}
	page, err := h.options.Pulls.Pull(r.Context(), request)
	if err != nil {
		return 0, h.pullProblem(err)
	}
	defer page.Release()
	c.idle = page.Count+page.Acknowledged == 0
	if c.idle && h.draining.Load() {
		w.Header().Set("Retry-After", "1")
	}
	// A recorder in a test has no deadlines.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pullWriteTimeout))
	writeJSON(w, http.StatusOK, page.Body)
	return http.StatusOK, nil
}

// pullParameters are what a pull takes.
var pullParameters = []string{"after", "handled", "wait", "limit"}

func parsePull(raw string) (r pull.Request, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return r, newProblem(malformed, "the query is not percent-encoded as a URL has it")
	}
	for name, given := range values {
		if !slices.Contains(pullParameters, name) {
			return r, newProblem(malformed, "there is no parameter %s; there are %s", quoted(name), strings.Join(pullParameters, ", "))
		}
		if len(given) > 1 {
			return r, newProblem(malformed, "parameter %s stands more than once", name)
		}
	}
	r = pull.Request{After: values.Get("after"), Handled: -1, Limit: pull.DefaultLimit}
	if text := values.Get("handled"); text != "" {
		if r.Handled, err = strconv.Atoi(text); err != nil || r.Handled < 0 || r.After == "" {
			return r, newProblem(malformed, "handled must be how many deliveries of the page that after is of were handled, from its first on")
		}
	}
	if text := values.Get("wait"); text != "" {
		if r.Wait, err = time.ParseDuration(text); err != nil || r.Wait < 0 || r.Wait > pull.MaxWait {
			return r, newProblem(malformed, "wait must be a duration from 0s to %s, such as 30s", pull.MaxWait)
		}
	}
	if text := values.Get("limit"); text != "" {
		if r.Limit, err = strconv.Atoi(text); err != nil || r.Limit < 1 || r.Limit > pull.MaxLimit {
			return r, newProblem(malformed, "limit must be between 1 and %d", pull.MaxLimit)
		}
	}
	return r, nil
}

// pullProblem says what to do about an error of a pull.
func (h *Handler) pullProblem(err error) error {
	const anew = "pull again without after: what is not acknowledged comes again"
	if refused, ok := errors.AsType[*problem](err); ok { // the client may not pull any more
		return refused
	}
	switch {
	case errors.Is(err, pull.ErrNotFound):
		return newProblem(notFound, "the namespace has no such subscription, or this dispatcher does not have it yet")
	case errors.Is(err, pull.ErrNotPulled):
		return newProblem(notPulled, "the subscription's deliveries go to its endpoint: set spec.delivery.mode to Pull to pull them")
	case errors.Is(err, pull.ErrSuspended):
		return newProblem(notPulled, "the subscription is suspended: its deliveries wait until spec.suspend is false").retry(pullHeld)
	case errors.Is(err, pull.ErrWaiting):
		return newProblem(notPulled, "the subscription is not accepted: its deliveries wait until its condition Accepted is True").retry(pullHeld)
	case errors.Is(err, pull.ErrCursorInvalid):
		return newProblem(cursorInvalid, "after must be the cursor of an answer, as it was given; %s", anew)
	case errors.Is(err, pull.ErrCursorForeign):
		return newProblem(cursorInvalid, "after is the cursor of another subscription, or of an earlier one with this name; %s", anew)
	case errors.Is(err, pull.ErrCursorExpired):
		return newProblem(cursorExpired, "after is older than %s, and acknowledges nothing; %s", pull.CursorAge, anew)
	case errors.Is(err, pull.ErrTooMany), errors.Is(err, places.ErrFull):
		return newProblem(overloaded, "more pulls of the namespace are under way than is its share; pull with one consumer for each subscription, and try again after the time in Retry-After").retry(pullRetry)
	case errors.Is(err, pull.ErrNoMemory):
		return newProblem(overloaded, "the namespace uses its share of memory for answers; read those under way, and try again after the time in Retry-After").retry(pullRetry)
	}
	return h.storeProblem(err, false)
}
