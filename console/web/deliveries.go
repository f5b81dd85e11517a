package web

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/view"
)

const (
	// pageOfDeliveries is how many rows a page has, and maxChosen how many can be chosen at once.
	pageOfDeliveries = 50
	maxChosen        = 200
	// inputTime is what <input type="datetime-local"> sends.
	inputTime = "2006-01-02T15:04"
)

// chosenNamespace is the namespace that a page of deliveries is about.
func (s *Server) chosenNamespace(c *call, known []string) string {
	namespace := cmp.Or(c.namespace(), s.options.Namespace)
	if c.namespace() == "" && len(known) > 0 && !slices.Contains(known, namespace) {
		return known[0]
	}
	return namespace
}

// queryOf reads the filters of a form or an address. Times are in the user's zone.
func (s *Server) queryOf(c *call) (q deliveries.Query) {
	q = deliveries.Query{
		Subscription: strings.TrimSpace(c.FormValue("subscription")), State: c.FormValue("state"),
		Continue: c.FormValue("continue"), Limit: pageOfDeliveries,
	}
	zone := s.prefs(c.Request).Zone
	q.Since, _ = time.ParseInLocation(inputTime, c.FormValue("since"), zone) // what cannot be read does not narrow
	q.Until, _ = time.ParseInLocation(inputTime, c.FormValue("until"), zone)
	return q
}

func (s *Server) deliveries(c *call) error {
	q := s.queryOf(c)
	m := &view.Deliveries{Frame: s.frame(c, view.SectionDeliveries, "Deliveries"), Namespaces: c.namespaces(),
		Subscription: q.Subscription, State: q.State, Since: c.FormValue("since"), Until: c.FormValue("until")}
	m.Namespace = s.chosenNamespace(c, m.Namespaces)
	status := http.StatusOK
	list, err := c.Deliveries.List(c.Context(), m.Namespace, q)
	if err != nil {
		status, m.Problem = problemOf(err)
	}
	m.Items, m.Continue = list.Items, list.Continue
	if len(m.Items) > 0 {
		m.First = m.Items[0].ID
	}
	return s.show(c, status, view.DeliveriesPage(m))
}

// fresh answers with the bar that counts deliveries which are newer than the page's first.
func (s *Server) fresh(c *call) error {
	q := s.queryOf(c)
	m := &view.Deliveries{Frame: s.frame(c, view.SectionDeliveries, ""), Subscription: q.Subscription, State: q.State}
	list, err := c.Deliveries.List(c.Context(), m.Namespace, q)
	if err != nil {
		list = deliveries.List{} // the page stays as it is
	}
	first := c.FormValue("first")
	n := slices.IndexFunc(list.Items, func(d deliveries.Delivery) bool { return d.ID == first })
	if n < 0 {
		n = len(list.Items)
	}
	return s.show(c, http.StatusOK, view.FreshPart(m, n, n == pageOfDeliveries))
}

// events groups the newest deliveries by their event.
func (s *Server) events(c *call) error {
	m := &view.Deliveries{Frame: s.frame(c, view.SectionEvents, "Events"), Namespaces: c.namespaces()}
	m.Namespace = s.chosenNamespace(c, m.Namespaces)
	status := http.StatusOK
	list, err := c.Deliveries.List(c.Context(), m.Namespace, deliveries.Query{Limit: 2 * pageOfDeliveries, Continue: c.FormValue("continue")})
	if err != nil {
		status, m.Problem = problemOf(err)
	}
	m.Continue = list.Continue
	at := make(map[string]int)
	for _, d := range list.Items {
		i, ok := at[d.EventID]
		if !ok {
			i = len(m.Events)
			at[d.EventID] = i
			m.Events = append(m.Events, view.Event{ID: d.EventID, Type: d.EventType, Time: d.Created})
		}
		m.Events[i].Caused = append(m.Events[i].Caused, d)
	}
	return s.show(c, status, view.EventsPage(m))
}

func (s *Server) delivery(c *call) error {
	d, err := c.Deliveries.Get(c.Context(), c.PathValue("namespace"), c.PathValue("id"))
	if err != nil {
		return err
	}
	m := &view.Delivery{Frame: s.frame(c, view.SectionDeliveries, d.EventType), Delivery: d}
	return s.show(c, http.StatusOK, view.DeliveryPage(m))
}

func (s *Server) replay(c *call) error {
	d, err := c.Deliveries.Replay(c.Context(), c.PathValue("namespace"), c.PathValue("id"))
	return s.acted(c, d, err, "replayed")
}

func (s *Server) cancel(c *call) error {
	d, err := c.Deliveries.Cancel(c.Context(), c.PathValue("namespace"), c.PathValue("id"))
	return s.acted(c, d, err, "cancelled")
}

func (s *Server) sendNow(c *call) error {
	d, err := c.Deliveries.SendNow(c.Context(), c.PathValue("namespace"), c.PathValue("id"))
	return s.acted(c, d, err, "sendnow")
}

func (s *Server) acted(c *call, d deliveries.Delivery, err error, word string) error {
	if err != nil {
		return err
	}
	s.audit(c, word, "delivery", d.ID)
	return c.done(view.DeliveryLink(c.PathValue("namespace"), d.ID), word)
}

// payload shows an event's data, to a user that has the right to it. It is logged before it is read.
func (s *Server) payload(c *call) error {
	d, err := c.Deliveries.Get(c.Context(), c.PathValue("namespace"), c.PathValue("id"))
	if err != nil {
		return err
	}
	s.audit(c, "asked for a payload", "delivery", d.ID, "event", d.EventID)
	data, err := c.Deliveries.Payload(c.Context(), c.PathValue("namespace"), d.EventID)
	if err != nil {
		return err
	}
	m := &view.Delivery{Frame: s.frame(c, view.SectionDeliveries, d.EventType), Delivery: d, Payload: string(data)}
	return s.show(c, http.StatusOK, view.DeliveryPage(m))
}

// replayMany replays the chosen deliveries, or the next share of all that match.
func (s *Server) replayMany(c *call) error {
	q := s.queryOf(c)
	m := &view.Replay{Frame: s.frame(c, view.SectionDeliveries, "Replay"), Query: q, Since: c.FormValue("since"), Until: c.FormValue("until")}
	m.Replayed, _ = strconv.Atoi(c.FormValue("replayed")) // of the steps before
	if c.FormValue("what") == "chosen" {
		s.replayChosen(c, m)
		return s.show(c, http.StatusOK, view.ReplayPage(m))
	}
	if m.Query.State == "" {
		m.Query.State = deliveries.Failed
	}
	progress, err := c.Deliveries.ReplayMany(c.Context(), c.PathValue("namespace"), m.Query)
	if err != nil {
		return err
	}
	s.audit(c, "replayed many", "replayed", progress.Replayed, "subscription", q.Subscription, "state", m.Query.State)
	m.Replayed += progress.Replayed
	m.Query.Continue, m.Done = progress.Continue, progress.Continue == ""
	return s.show(c, http.StatusOK, view.ReplayPage(m))
}

func (s *Server) replayChosen(c *call, m *view.Replay) {
	m.Done, m.Replayed = true, 0
	for i, id := range c.Form["id"] {
		if i == maxChosen {
			m.Refused = append(m.Refused, "more than "+strconv.Itoa(maxChosen)+" were chosen: replay the others in another step")
			return
		}
		if _, err := c.Deliveries.Replay(c.Context(), c.PathValue("namespace"), id); err != nil {
			_, problem := problemOf(err)
			m.Refused = append(m.Refused, id+": "+problem.Detail)
			continue
		}
		m.Replayed++
		s.audit(c, "replayed", "delivery", id)
	}
}

func (s *Server) dispatchers(c *call) error {
	m := &view.Dispatchers{Frame: s.frame(c, view.SectionDispatchers, "Dispatchers")}
	status := http.StatusOK
	var err error
	if m.Items, err = c.Objects.Dispatchers(c.Context()); err != nil {
		status, m.Problem = problemOf(err)
	}
	return s.show(c, status, view.DispatchersPage(m))
}

// preferences keeps the user's choices in cookies, and leads back.
func (*Server) preferences(c *call) error {
	for name, value := range map[string]string{"eventflow-times": c.FormValue("times"), "eventflow-theme": c.FormValue("theme")} {
		if len(value) < 16 {
			http.SetCookie(c.w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: 365 * 24 * 3600, HttpOnly: true, SameSite: http.SameSiteStrictMode}) //nolint:gosec // a choice, no secret
		}
	}
	back := c.FormValue("back")
	if !strings.HasPrefix(back, "/") || strings.HasPrefix(back, "//") || strings.ContainsAny(back, "\\\r\n\t") {
		back = "/subscriptions"
	}
	http.Redirect(c.w, c.Request, back, http.StatusSeeOther)
	return nil
}
