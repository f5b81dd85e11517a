package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/payload"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// Options are what a Run works with.
type Options struct {
	// Policy by which subscriptions are compiled; its Catalog is required.
	Policy routing.Policy
	// Start is the virtual time before the first event; zero for the first event's timestamp, or Now if it has none.
	Start time.Time
	// Lookup is the JSON that every lookup is answered with; nil if there is none.
	Lookup []byte
	// Version of the product, for the User-Agent.
	Version string
	// Now is the wall clock; nil for time.Now.
	Now func() time.Time
}

// The bounds of a Run.
const (
	maxSubscriptions = 1000
	maxEvents        = 1000
)

// Run publishes the events into a namespace, one after the other, and reports what its subscriptions make of them. The error
// says what is wrong with the input.
func Run(ctx context.Context, subscriptions []Subscription, namespace string, events []Event, o Options) (*Report, error) {
	if len(events) > maxEvents {
		return nil, fmt.Errorf("%d events are more than the %d that can be tried at once", len(events), maxEvents)
	}
	r, err := newRun(namespace, events, o)
	if err != nil {
		return nil, err
	}
	if err := r.compile(subscriptions); err != nil {
		return nil, err
	}
	for i, e := range events {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := r.publish(ctx, i+1, e); err != nil {
			return nil, fmt.Errorf("event %d: %w", i+1, err)
		}
	}
	return r.report, r.rest(ctx)
}

// run is one call of Run.
type run struct {
	options  Options
	report   *Report
	tenant   string
	table    *routing.Table
	all      []*subscription
	preview  *ingest.Preview
	sender   *payload.Sender
	recorder recorder
	failures []failed // of what is evaluated now
	now      time.Time
	store    memory
	ids      map[string]accepted
}

// accepted is an event that has an id.
type accepted struct {
	number int
	at     time.Time
	digest [16]byte
}

// rememberedFor is how long a dispatcher knows an id again; docs/publishing.md promises it.
const rememberedFor = 24 * time.Hour

// failed is a Failure of a subscription.
type failed struct {
	subscription event.SubscriptionKey
	Failure
}

func newRun(namespace string, events []Event, o Options) (*run, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &run{options: o, tenant: namespace, ids: map[string]accepted{}, now: o.Start}
	if r.now.IsZero() && len(events) > 0 {
		r.now = events[0].Timestamp
	}
	if r.now.IsZero() {
		r.now = o.Now()
	}
	r.now = r.now.UTC().Truncate(time.Millisecond) // as envelopes have it
	r.report = &Report{Version: FormatVersion, Namespace: namespace, Start: r.now, Subscriptions: []SubscriptionReport{}, Events: []EventReport{}}
	var err error
	r.preview, err = ingest.NewPreview(ingest.PreviewOptions{
		Catalog: o.Policy.Catalog, FilterFailed: r.noted("filter"), ScheduleFailed: r.noted("schedule"),
	})
	if err != nil {
		return nil, err
	}
	r.sender, err = payload.New(payload.Options{Client: &r.recorder, Now: func() time.Time { return r.now }, Failed: r.notedAttempt})
	return r, err
}

func (r *run) noted(use string) func(event.SubscriptionKey, *expression.Error) {
	return func(key event.SubscriptionKey, err *expression.Error) {
		r.failures = append(r.failures, failed{key, Failure{use, string(err.Reason), err.Error()}})
	}
}

func (r *run) notedAttempt(key event.SubscriptionKey, f payload.Failure) {
	r.failures = append(r.failures, failed{key, Failure{f.Use, f.Reason, f.Message}})
}

// compile compiles the subscriptions of the namespace.
func (r *run) compile(subscriptions []Subscription) error {
	var routes []*routing.Route
	for i := range subscriptions {
		if subscriptions[i].Object.Namespace != r.tenant {
			continue
		}
		if len(r.all) == maxSubscriptions {
			return fmt.Errorf("there are more than the %d subscriptions that can be tried at once", maxSubscriptions)
		}
		s, warnings, err := subscriptions[i].compile(r.options.Policy)
		if err != nil {
			return err
		}
		r.report.Warnings = append(r.report.Warnings, warnings...)
		r.report.Subscriptions = append(r.report.Subscriptions, s.report)
		r.all = append(r.all, s)
		if s.route != nil {
			routes = append(routes, s.route)
		}
	}
	table, err := routing.NewTable(routes)
	if err != nil {
		return err
	}
	r.table = table
	for _, s := range r.all {
		if s.route != nil { // the namespace's name is the tenant
			r.tenant = s.route.Tenant()
		}
	}
	return nil
}

// publish publishes one event.
func (r *run) publish(ctx context.Context, number int, e Event) error {
	at := r.now
	if t := e.Timestamp.UTC(); t.After(at) {
		at = t
	}
	if err := r.advance(ctx, at); err != nil {
		return err
	}
	e.ID = cmp.Or(e.ID, fmt.Sprintf("evt_%026d", number))
	if e.Timestamp.IsZero() {
		e.Timestamp = at
	}
	r.failures = nil
	decided, err := r.preview.Decide(ctx, r.table, r.tenant, e, at)
	if err != nil {
		return err
	}
	decided.Event.Key = event.NewKey(at, r.tenant, e.ID)
	report := EventReport{Number: number, ID: e.ID, Type: string(e.Type), Timestamp: e.Timestamp.UTC(), Published: at}
	before, known := r.ids[e.ID]
	known = known && at.Sub(before.at) < rememberedFor
	if known && before.digest != decided.Digest {
		return fmt.Errorf("event %d has the id %s, too, and other content: give each event an id of its own, or none", before.number, e.ID)
	}
	p := publication{run: r, event: e, number: number, at: at, decided: &decided, failed: r.failures}
	for _, s := range r.all {
		result := &Result{Subscription: s.object.Name}
		report.Results = append(report.Results, result)
		if known {
			result.Outcome, result.Reason = NoMatch, ReasonRepeated
			result.explain("Event %d is the same, with the same id: it was accepted already, and nothing is added.", before.number)
			continue
		}
		if err := p.settle(ctx, s, result); err != nil {
			return err
		}
	}
	if !known {
		r.ids[e.ID] = accepted{number, at, decided.Digest}
	}
	if report.Results == nil {
		report.Results = []*Result{}
	}
	r.report.Events = append(r.report.Events, report)
	return nil
}

// advance moves the clock, and delivers what becomes due.
func (r *run) advance(ctx context.Context, to time.Time) error {
	for _, d := range r.store.due(to) {
		r.now = d.due
		if err := r.deliver(ctx, d); err != nil {
			return err
		}
	}
	r.now = to
	return nil
}

// rest makes the requests of what is still planned at the end.
func (r *run) rest(ctx context.Context) error {
	for _, d := range r.store.waiting() {
		r.now = d.due
		if err := r.attempt(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// deliver makes the first attempt of a delivery, whose time has come.
func (r *run) deliver(ctx context.Context, d *planned) error {
	if d.result.Outcome == Waiting {
		return nil
	}
	d.result.Outcome = Delivered
	switch {
	case d.subscription.entry.Suspended:
		d.result.Outcome, d.result.Reason = Waiting, ReasonSuspended
		d.result.explain("The subscription is suspended: the delivery waits.")
	case d.subscription.entry.Pull:
		d.result.Outcome, d.result.Reason = Waiting, ReasonPulled
		d.result.explain("The consumer pulls: the delivery waits for it.")
	default:
		d.state = ended
	}
	return r.attempt(ctx, d)
}

// attempt shows the first attempt of a delivery.
func (r *run) attempt(ctx context.Context, d *planned) error {
	s, result := d.subscription, d.result
	if result.Request != nil || result.Sent != nil {
		return nil
	}
	at := r.now
	result.Sent = &at
	if s.route.Endpoint.Target == nil {
		return errors.New("the subscription has no target")
	}
	r.failures, r.recorder = nil, recorder{lookup: r.options.Lookup}
	sent := r.sender.Send(ctx, payload.Request{
		Target: s.route.Endpoint.Target, Recipe: s.route.Endpoint.Recipe, Event: d.event, Delivery: d.id, Number: 1, Planned: d.planned, Tenant: r.tenant,
	})
	result.Failures = append(result.Failures, failuresOf(s, r.failures)...)
	var err error
	if r.recorder.document != nil {
		if result.Lookup, err = s.shownLookup(r.recorder.document, r.options.Version); err != nil {
			result.fail("LookupFailed", "The lookup cannot be made: "+err.Error()+".")
			return nil
		}
	}
	if request := r.recorder.request; request != nil {
		if result.Request, err = s.shown(request, at, r.options.Version); err != nil {
			result.fail("RequestInvalid", "The request cannot be made: "+err.Error()+".")
		}
		return ctx.Err()
	}
	r.unsent(d, string(sent.Reason))
	return ctx.Err()
}

// failuresOf returns those of a subscription, each once.
func failuresOf(s *subscription, failures []failed) (all []Failure) {
	for _, f := range failures {
		if f.subscription == s.route.Key && !slices.Contains(all, f.Failure) {
			all = append(all, f.Failure)
		}
	}
	return all
}
