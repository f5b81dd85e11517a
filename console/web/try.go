package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/event/sample"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/view"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/simulate"
)

const (
	// maxTries bounds the trials of all users at once. Each holds a request for each subscription that matches: at most
	// kube.MaxSpecs times maxTriedBytes.
	maxTries = 2
	// maxTriedBytes bounds the text of the events, and maxTriedEvents their number.
	maxTriedBytes  = 64 << 10
	maxTriedEvents = 10
	// maxTried is how many subscriptions a page shows for an event.
	maxTried = 100
	// triedFor is how long a trial may take.
	triedFor = 10 * time.Second
)

// tryOf reads what every form of the page sends.
func (s *Server) tryOf(c *call, p *policies) *view.Try {
	m := &view.Try{
		Frame: s.frame(c, view.SectionTry, "Try it"), Namespaces: c.namespaces(), Subscription: strings.TrimSpace(c.FormValue("subscription")),
		Type: c.FormValue("type"), EventID: c.FormValue("event"),
	}
	m.Namespace = s.chosenNamespace(c, m.Namespaces)
	for _, resource := range p.catalog().Resources() {
		for _, action := range event.Actions {
			m.Types = append(m.Types, resource+"."+string(action))
		}
	}
	return m
}

// tryForm shows the page with a sample. An event's text never stands in an address.
func (s *Server) tryForm(c *call) error {
	p := s.policies(c)
	m := s.tryOf(c, p)
	t, ok := p.catalog().Lookup([]byte(cmp.Or(m.Type, "appointment.created")))
	if !ok {
		t = "appointment.created"
	}
	m.Type = string(t)
	var err error
	if m.Text, err = sampleText(t, s.options.Now()); err != nil {
		return err
	}
	return s.show(c, http.StatusOK, view.TryPage(m))
}

// sampleText is a sample of a type, or one without data if there is none.
func sampleText(t event.Type, at time.Time) (string, error) {
	e, err := sample.New(t, at)
	if errors.Is(err, sample.ErrNone) {
		e.Data = json.RawMessage(`{}`)
		err = nil
	}
	if err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(e, "", "  ")
	return string(text), err
}

// try shows what the user's subscriptions would do. Nothing of the event is kept or logged.
func (s *Server) try(c *call) error {
	p := s.policies(c)
	m := s.tryOf(c, p)
	m.Text, m.Lookup, m.OwnTime = c.FormValue("text"), strings.TrimSpace(c.FormValue("lookup")), c.FormValue("ownTime") != ""
	if c.FormValue("load") != "" && m.EventID != "" {
		if err := s.loadPayload(c, m); err != nil {
			return s.notTried(c, m, err)
		}
	}
	select {
	case s.trying <- struct{}{}:
		defer func() { <-s.trying }()
	default:
		return s.notTried(c, m, &deliveries.Refused{Status: http.StatusServiceUnavailable, Message: "others are trying events at this moment: try again"})
	}
	ctx, cancel := context.WithTimeout(c.Context(), triedFor)
	defer cancel()
	if err := s.simulate(ctx, c, m, p); err != nil {
		return s.notTried(c, m, err)
	}
	return s.show(c, http.StatusOK, view.TryPage(m))
}

// notTried shows the page with what the user wrote, and why it was not tried.
func (s *Server) notTried(c *call, m *view.Try, err error) error {
	status, problem := problemOf(err)
	if refused, ok := errors.AsType[*deliveries.Refused](err); ok {
		problem.Title, problem.Detail = "The event cannot be tried", refused.Message
	}
	m.Problem = problem
	return s.show(c, status, view.TryPage(m))
}

// loadPayload takes the published event, to a user that has the right to its payload. It is logged before it is read.
func (s *Server) loadPayload(c *call, m *view.Try) error {
	s.audit(c, "asked for a payload", "in", m.Namespace, "event", m.EventID)
	text, err := c.Deliveries.Payload(c.Context(), m.Namespace, m.EventID)
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if json.Indent(&indented, text, "", "  ") == nil {
		text = indented.Bytes()
	}
	m.Text = string(text)
	return nil
}

func unreadable(message string) error {
	return &deliveries.Refused{Status: http.StatusUnprocessableEntity, Message: message}
}

// tried reads the subscriptions that are tried.
func (c *call) tried(ctx context.Context, m *view.Try) ([]v1alpha1.WebhookSubscription, error) {
	if m.Subscription != "" {
		sub, err := c.Objects.Subscription(ctx, m.Namespace, m.Subscription)
		if err != nil {
			return nil, err
		}
		return []v1alpha1.WebhookSubscription{*sub}, nil
	}
	subs, more, err := c.Objects.Specs(ctx, m.Namespace)
	if more {
		m.Notes = append(m.Notes, "Only the first "+strconv.Itoa(len(subs))+" subscriptions of the namespace are tried: name one to try another.")
	}
	return subs, err
}

// simulate fills in the page's events.
func (s *Server) simulate(ctx context.Context, c *call, m *view.Try, p *policies) error {
	if len(m.Text) > maxTriedBytes {
		return unreadable("The events are larger than 64 KiB: use \"eventflow test\" for them")
	}
	if m.Lookup != "" && !json.Valid([]byte(m.Lookup)) {
		return unreadable("The lookup's answer is not JSON")
	}
	events, err := simulate.ReadEvents(p.catalog(), []byte(m.Text))
	switch {
	case err != nil:
		return unreadable(err.Error())
	case len(events) == 0:
		return unreadable("There is no event in it")
	case len(events) > maxTriedEvents:
		return unreadable("At most 10 events can be tried at once: use \"eventflow test\" for more")
	}
	subs, err := c.tried(ctx, m)
	if err != nil {
		return err
	}
	o := simulate.Options{Now: s.options.Now}
	if !m.OwnTime {
		o.Start = s.options.Now()
	}
	if m.Lookup != "" {
		o.Lookup = []byte(m.Lookup)
	}
	groups := p.groups(subs, m)
	if len(groups) == 0 {
		groups = append(groups, group{policy: p.fallback}) // the events are shown, and that nothing is there for them
	}
	for _, g := range groups {
		o.Policy = g.policy
		report, err := simulate.Run(ctx, g.subs, m.Namespace, events, o)
		if err != nil {
			return unreadable(err.Error())
		}
		merge(m, report)
	}
	for i := range m.Events {
		arrange(&m.Events[i])
	}
	return nil
}

// group is subscriptions that are compiled by the same rules.
type group struct {
	policy routing.Policy
	subs   []simulate.Subscription
}

// groups sorts subscriptions by their dispatcher, and notes what is not known of it.
func (p *policies) groups(subs []v1alpha1.WebhookSubscription, m *view.Try) (all []group) {
	at := map[*v1alpha1.WebhookDispatcher]int{}
	for i := range subs {
		sub := &subs[i]
		d := p.dispatcher(sub)
		policy, known := p.of(sub)
		if !known {
			for _, note := range unknown(sub) {
				if !slices.Contains(m.Notes, note) {
					m.Notes = append(m.Notes, note)
				}
			}
		}
		n, ok := at[d]
		if !ok {
			n = len(all)
			at[d] = n
			all = append(all, group{policy: policy})
		}
		all[n].subs = append(all[n].subs, simulate.Subscription{Object: sub})
	}
	return all
}

// merge adds what one group of subscriptions does.
func merge(m *view.Try, report *simulate.Report) {
	for i := range report.Events {
		if i == len(m.Events) {
			e := view.Tried{EventReport: report.Events[i], Refused: map[string]string{}}
			e.Results = nil
			m.Events = append(m.Events, e)
		}
		e := &m.Events[i]
		e.Results = append(e.Results, report.Events[i].Results...)
		for _, sub := range report.Subscriptions {
			if !sub.Accepted {
				e.Refused[sub.Name] = sub.Message
			}
		}
	}
}

// arrange puts first what matches, then what a filter refuses, and cuts the rest.
func arrange(e *view.Tried) {
	rank := func(r *simulate.Result) int {
		switch {
		case r.Outcome != simulate.NoMatch:
			return 0
		case r.Reason != simulate.ReasonPattern:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(e.Results, func(a, b *simulate.Result) int {
		return cmp.Or(rank(a)-rank(b), strings.Compare(a.Subscription, b.Subscription))
	})
	for _, r := range e.Results {
		if r.Outcome != simulate.NoMatch {
			e.Matched++
		}
	}
	if len(e.Results) > maxTried {
		e.Hidden = len(e.Results) - maxTried
		e.Results = e.Results[:maxTried]
	}
}
