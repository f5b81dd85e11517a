package receiver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// The defaults of PullConfig, and the bounds of the loop.
const (
	DefaultPullWait  = 30 * time.Second
	DefaultPullLimit = 100
	// maxPullWait is the dispatcher's.
	maxPullWait = 60 * time.Second
	// pullSlack is how much longer than its wait a call may take; lastCall bounds the one that acknowledges at the end.
	pullSlack, lastCall = 30 * time.Second, 5 * time.Second
	// minPullPause and maxPullPause bound the pause after a failure. It doubles, with jitter.
	minPullPause, maxPullPause = time.Second, time.Minute
	// pageOverhead is what a page has beside the body of one delivery, which may be as large as Config.MaxBytes.
	pageOverhead = 4 << 20
)

// PullConfig says which subscription's deliveries Pull takes. URL, Namespace and Subscription are required.
type PullConfig struct {
	// URL is the dispatcher's, up to "/v1": status.publishURL of the WebhookDispatcher.
	URL                     string
	Namespace, Subscription string
	// Token returns the bearer token of a request, which it may renew; nil for none.
	Token func(context.Context) (string, error)
	// Client makes the requests; one without redirects if nil. Its Timeout, if it has one, must be longer than Wait.
	Client *http.Client
	// Wait is how long a call waits for deliveries, up to a minute; DefaultPullWait if 0.
	Wait time.Duration
	// Limit is how many deliveries a call gets at most; DefaultPullLimit if 0, and 500 at most. All that are in a page are verified
	// when it arrives, and handled one after the other.
	Limit int
	// Failed is called with what keeps the dispatcher from being asked, which is tried again. If nil, slog.Default logs it.
	Failed func(context.Context, error)
}

// PullError is the dispatcher's answer to a call that it refused: the problem document of RFC 9457.
type PullError struct {
	// Status is the HTTP status. Kind is a name of docs/problems.md, and Detail says what to do; both are empty without a document.
	Status       int
	Kind, Detail string
	// RetryAfter is the header of that name, 0 without.
	RetryAfter time.Duration
}

// Error says the status and what to do.
func (e *PullError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("the dispatcher answered %d", e.Status)
	}
	return fmt.Sprintf("the dispatcher answered %d: %s", e.Status, e.Detail)
}

// final reports whether the same call would be refused again, until somebody changes something.
func (e *PullError) final() bool {
	switch e.Status {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed:
		return !e.anew()
	case http.StatusConflict:
		return e.RetryAfter == 0
	}
	return false
}

// anew reports whether to go on without a cursor.
func (e *PullError) anew() bool { return e.Kind == "cursor-invalid" || e.Kind == "cursor-expired" }

// Pull takes a subscription's deliveries from the dispatcher, for a program that no endpoint can reach (spec.delivery.mode: Pull).
// Each is verified, deduplicated, routed and observed as ServeHTTP does, one after the other, in the order in which the events were
// accepted; once its handler has returned nil, it is acknowledged. One whose handler fails is tried again after a pause, or after
// that of RetryAfter, and holds back those behind it until spec.retry.maxAge: a handler that cannot ever succeed sets the event
// aside, and returns nil.
//
// It returns ctx's error once ctx ends, ErrStop if a handler returns it, or a *PullError that no repetition will help: what was
// handled is acknowledged then, too. Whatever else fails is tried again, after Retry-After or a growing pause. One consumer at a
// time is to pull a subscription: two get the same deliveries.
func (r *Receiver) Pull(ctx context.Context, config PullConfig) error {
	p, err := newPulling(r, config)
	if err != nil {
		return err
	}
	for {
		pause, err := p.turn(ctx)
		if err == nil && pause > 0 {
			err = rest(ctx, pause)
		}
		if err != nil {
			p.leave(ctx)
			return err
		}
	}
}

// pulling is the work of one Pull.
type pulling struct {
	*Receiver
	PullConfig
	target *url.URL
	// cursor and handled are what the next call acknowledges.
	cursor  string
	handled int
	pause   time.Duration // after the last failure; 0 after a success
}

func newPulling(r *Receiver, c PullConfig) (*pulling, error) {
	base, err := url.Parse(c.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, errors.New("the URL must be like https://eventflow.example") // without it: it may hold a password
	}
	c.Wait, c.Limit = orDefault(c.Wait, DefaultPullWait), orDefault(c.Limit, DefaultPullLimit)
	if c.Wait < 0 || c.Wait > maxPullWait || c.Limit < 1 || c.Limit > 500 {
		return nil, errors.New("the wait must be at most a minute, and the limit from 1 to 500")
	}
	for _, name := range []string{c.Namespace, c.Subscription} {
		if name == "" || strings.IndexFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' }) >= 0 {
			return nil, errors.New("the namespace and the subscription must be names of Kubernetes objects")
		}
	}
	if c.Client == nil {
		c.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // the token goes to no other host
	}
	if c.Failed == nil {
		c.Failed = func(ctx context.Context, err error) {
			slog.Default().WarnContext(ctx, "pulling deliveries failed; trying again", "error", err)
		}
	}
	return &pulling{Receiver: r, PullConfig: c, target: base.JoinPath("v1", "namespaces", c.Namespace, "subscriptions", c.Subscription, "deliveries:pull")}, nil
}

// page is an answer.
type page struct {
	Deliveries []struct {
		Headers map[string]string
		Body    string
	}
	Cursor string
	after  time.Duration // Retry-After
}

// turn makes one call, and handles what it gets. pause is how long to wait before the next.
func (p *pulling) turn(ctx context.Context) (pause time.Duration, err error) {
	began := time.Now()
	got, err := p.ask(ctx, p.Wait, p.Limit)
	if err != nil {
		return p.failed(ctx, err)
	}
	p.cursor, p.handled = got.Cursor, 0
	if len(got.Deliveries) == 0 {
		if p.pause = 0; time.Since(began) < p.Wait/2 { // a dispatcher that stops does not wait
			return max(got.after, minPullPause), nil
		}
		return got.after, nil
	}
	return p.handleAll(ctx, got)
}

// failed decides what follows from a call that failed: a pause, or the end.
func (p *pulling) failed(ctx context.Context, err error) (time.Duration, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	least := time.Duration(0)
	if refused, ok := errors.AsType[*PullError](err); ok {
		if refused.final() {
			return 0, err
		}
		if refused.anew() {
			p.cursor, p.handled = "", 0
		}
		least = refused.RetryAfter
	}
	p.Failed(ctx, err)
	return p.later(least), nil
}

// later is a growing pause, with jitter, and not before the given time.
func (p *pulling) later(least time.Duration) time.Duration {
	p.pause = min(max(2*p.pause, minPullPause), maxPullPause)
	return max(least, p.pause/2+time.Duration(rand.Int64N(int64(p.pause/2))))
}

// incoming is a delivery of a page whose signature was looked at when it arrived: it may be too old once its turn comes.
type incoming struct {
	event Event
	key   string
	err   error
}

// handleAll handles a page's deliveries in their order, up to the first that fails.
func (p *pulling) handleAll(ctx context.Context, got *page) (pause time.Duration, err error) {
	all := make([]incoming, len(got.Deliveries))
	for i, d := range got.Deliveries {
		header := make(http.Header, len(d.Headers))
		for name, value := range d.Headers {
			header.Set(name, value)
		}
		all[i] = p.receive(header, d.Body)
	}
	for i := range all {
		err := p.handle(ctx, &all[i])
		switch {
		case err == nil:
			p.handled, p.pause = i+1, 0
			continue
		case errors.Is(err, ErrStop):
			return 0, ErrStop
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
		least := time.Duration(0)
		if retry, ok := errors.AsType[*retryError](err); ok {
			least = retry.after
		}
		return p.later(least), nil
	}
	return 0, nil
}

// receive verifies and reads a delivery.
func (p *pulling) receive(header http.Header, body string) (in incoming) {
	raw, err := base64.StdEncoding.DecodeString(body)
	if err != nil {
		in.err = errBroken
		return in
	}
	if int64(len(raw)) > p.config.MaxBytes {
		in.err = errTooLarge
		return in
	}
	v, err := p.verify(header, raw)
	if err != nil {
		in.err = err
		return in
	}
	in.event, in.err = read(header, raw, v)
	in.event.DeliveryID, in.key = v.id, v.key
	return in
}

// handle gives a delivery to the handler of its type, once.
func (p *pulling) handle(ctx context.Context, in *incoming) (err error) {
	outcome, a := Outcome{DeliveryID: in.event.DeliveryID, EventID: in.event.ID, Type: in.event.Type, Attempt: in.event.Attempt}, attempt{}
	defer func() {
		outcome.Status, _ = statusOf(err)
		outcome.Duplicate, outcome.Handled, outcome.StoreErr, outcome.Err = a.duplicate, a.handled, a.storeErr, err
		p.config.Observe(ctx, outcome)
	}()
	if in.err != nil {
		return in.err
	}
	handler := p.routes.find(in.event.Type)
	if handler == nil {
		return nil
	}
	return p.once(ctx, in.key, &a, func(ctx context.Context) (err error) {
		defer func() {
			if recover() != nil { // as net/http does for ServeHTTP; the value may be a part of the event
				slog.Default().ErrorContext(ctx, "a handler panicked", "delivery", in.event.DeliveryID, "stack", string(debug.Stack()))
				err = errPanicked
			}
		}()
		if err := handler(ctx, in.event); err != nil {
			return &handlerError{err}
		}
		return nil
	})
}

// ask makes one call, which acknowledges what was handled.
func (p *pulling) ask(ctx context.Context, wait time.Duration, limit int) (*page, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+pullSlack)
	defer cancel()
	query := url.Values{"wait": {wait.String()}, "limit": {strconv.Itoa(limit)}}
	if p.cursor != "" && p.handled > 0 {
		query.Set("after", p.cursor)
		query.Set("handled", strconv.Itoa(p.handled))
	}
	target := *p.target
	target.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return nil, errors.New("the request cannot be made")
	}
	if p.Token != nil {
		token, err := p.Token(ctx)
		if err != nil {
			return nil, fmt.Errorf("get the token: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := p.Client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("reach the dispatcher: %w", withoutURL(err))
	}
	defer func() { _ = response.Body.Close() }()
	most := p.config.MaxBytes/3*4 + pageOverhead
	text, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the dispatcher's answer: %w", withoutURL(err))
	case response.StatusCode != http.StatusOK:
		return nil, refusalOf(response, text)
	case int64(len(text)) > most:
		return nil, fmt.Errorf("the dispatcher's answer has more than %d bytes: raise MaxBytes, or lower Limit", most)
	}
	got := &page{after: retryAfterOf(response)}
	if json.Unmarshal(text, got) != nil { // its error may quote the answer
		return nil, errors.New("the answer is not a dispatcher's")
	}
	return got, nil
}

// withoutURL leaves the URL out of an error: its user part may hold a password.
func withoutURL(err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err
	}
	return err
}

func refusalOf(response *http.Response, text []byte) *PullError {
	e := &PullError{Status: response.StatusCode, RetryAfter: retryAfterOf(response)}
	var document struct{ Type, Detail string }
	if json.Unmarshal(text, &document) == nil {
		_, e.Kind, _ = strings.Cut(document.Type, "#")
		e.Detail = document.Detail
	}
	return e
}

// retryAfterOf reads the seconds of Retry-After, at most a day; 0 without.
func retryAfterOf(response *http.Response) time.Duration {
	seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, 24*time.Hour)
}

// leave acknowledges what was handled, in a last call whose answer is not handled: it comes again.
func (p *pulling) leave(ctx context.Context) {
	if p.handled == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCall)
	defer cancel()
	if _, err := p.ask(ctx, 0, 1); err != nil {
		p.Failed(ctx, err)
	}
}

// rest waits for d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
