package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/kube"
	"github.com/clinikapi/eventflow/console/view"
)

func (*Server) home(c *call) error {
	http.Redirect(c.w, c.Request, "/subscriptions", http.StatusSeeOther)
	return nil
}

// namespaces are those that the user may list; none, if they may not.
func (c *call) namespaces() []string {
	names, err := c.Objects.Namespaces(c.Context())
	if err != nil {
		return nil // the page asks for a name instead
	}
	return names
}

// subscriptions lists, failing first. The search is over all of them.
func (s *Server) subscriptions(c *call) error {
	query := c.URL.Query()
	m := &view.Subscriptions{Frame: s.frame(c, view.SectionSubscriptions, "Subscriptions"), State: query.Get("state"), Search: strings.TrimSpace(query.Get("q")), Page: 1}
	m.Namespaces = c.namespaces()
	list, err := c.Objects.Subscriptions(c.Context(), m.Namespace, query.Get("fresh") != "")
	if err != nil {
		status, problem := problemOf(err)
		m.Problem = problem
		if m.Namespace == "" && status == http.StatusForbidden {
			problem.Detail += " If you may see single namespaces, name one."
		}
		return s.show(c, status, view.SubscriptionsPage(m))
	}
	m.AsOf, m.Total = list.Time, len(list.Rows)
	at := selectRows(m, list.Rows)
	m.Pages = max(1, (len(at)+view.PageSize-1)/view.PageSize)
	if page, err := strconv.Atoi(query.Get("page")); err == nil {
		m.Page = min(max(page, 1), m.Pages)
	}
	for _, i := range at[(m.Page-1)*view.PageSize : min(m.Page*view.PageSize, len(at))] {
		m.Rows = append(m.Rows, list.Rows[i])
	}
	return s.show(c, http.StatusOK, view.SubscriptionsPage(m))
}

// selectRows counts by state what the search finds, and returns where the rows of the wanted state stand, in their order.
func selectRows(m *view.Subscriptions, rows []kube.Row) (at []int) {
	m.Counts = make(map[string]int)
	words := strings.Fields(strings.ToLower(m.Search))
	for i := range rows {
		if !rows[i].Matches(words) {
			continue
		}
		m.Counts[rows[i].State]++
		if m.State == "" || m.State == rows[i].State {
			at = append(at, i)
		}
	}
	m.Matched = len(at)
	return at
}

// subscription shows one.
func (s *Server) subscription(c *call) error {
	sub, err := c.Objects.Subscription(c.Context(), c.PathValue("namespace"), c.PathValue("name"))
	if err != nil {
		return err
	}
	m := &view.Subscription{Frame: s.frame(c, view.SectionSubscriptions, sub.Name), Sub: sub, Row: kube.RowOf(sub), Owner: kube.Owner(sub), TestTypes: s.testTypes(sub)}
	if m.YAML, err = manifest(sub); err != nil {
		return err
	}
	list := func(state string, limit int) []deliveries.Delivery {
		if m.DeliveriesProblem != nil {
			return nil
		}
		l, err := c.Deliveries.List(c.Context(), sub.Namespace, deliveries.Query{Subscription: sub.Name, State: state, Limit: limit})
		if err != nil {
			_, m.DeliveriesProblem = problemOf(err)
		}
		return l.Items
	}
	m.Recent, m.Failed, m.Scheduled = list("", 10), list(deliveries.Failed, 10), list(deliveries.Scheduled, 20)
	return s.show(c, http.StatusOK, view.SubscriptionPage(m))
}

// testTypes are the types that a subscription matches, which a test event can be of.
func (s *Server) testTypes(sub *v1alpha1.WebhookSubscription) (types []string) {
	for _, resource := range s.options.Catalog.Resources() {
		for _, action := range event.Actions {
			t := event.Type(resource + "." + string(action))
			if slices.ContainsFunc(sub.Spec.Events, func(text string) bool {
				p, err := event.ParsePattern(text)
				return err == nil && p.Matches(t)
			}) {
				types = append(types, string(t))
			}
		}
	}
	return types
}

// manifest is a subscription as one writes it into Git: without what the API server adds.
func manifest(sub *v1alpha1.WebhookSubscription) (string, error) {
	metadata := map[string]any{"name": sub.Name, "namespace": sub.Namespace}
	if len(sub.Labels) > 0 {
		metadata["labels"] = sub.Labels
	}
	annotations := map[string]string{}
	for name, value := range sub.Annotations {
		if name != "kubectl.kubernetes.io/last-applied-configuration" {
			annotations[name] = value
		}
	}
	if len(annotations) > 0 {
		metadata["annotations"] = annotations
	}
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "WebhookSubscription", "metadata": metadata, "spec": sub.Spec,
	})
	return string(text), err
}

func (*Server) yaml(c *call) error {
	sub, err := c.Objects.Subscription(c.Context(), c.PathValue("namespace"), c.PathValue("name"))
	if err != nil {
		return err
	}
	return c.download(sub)
}

// download answers with the manifest as a file.
func (c *call) download(sub *v1alpha1.WebhookSubscription) error {
	text, err := manifest(sub)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/yaml")
	c.w.Header().Set("Content-Disposition", "attachment; filename*=UTF-8''"+url.PathEscape(cmp.Or(sub.Name, "subscription")+".yaml"))
	_, err = c.w.Write([]byte(text))
	return err
}

func (s *Server) suspend(c *call) error { return s.setSuspend(c, true) }

func (s *Server) resume(c *call) error { return s.setSuspend(c, false) }

func (s *Server) setSuspend(c *call, suspend bool) error {
	namespace, name := c.PathValue("namespace"), c.PathValue("name")
	patch, word := []byte(`{"spec":{"suspend":false}}`), "resumed"
	if suspend {
		patch, word = []byte(`{"spec":{"suspend":true}}`), "suspended"
	}
	if err := c.Objects.Patch(c.Context(), namespace, name, patch); err != nil {
		return err
	}
	s.audit(c, word, "subscription", name)
	return c.done(view.SubscriptionLink(namespace, name), word)
}

// test publishes an event.
func (s *Server) test(c *call) error {
	namespace, name := c.PathValue("namespace"), c.PathValue("name")
	id, caused, err := c.Deliveries.Publish(c.Context(), namespace, c.FormValue("type"), []byte(c.FormValue("data")))
	if err != nil {
		return err
	}
	s.audit(c, "published a test event", "event", id)
	if caused == 0 {
		return c.done(view.SubscriptionLink(namespace, name), "unmatched")
	}
	return c.done(view.SubscriptionLink(namespace, name), "sent")
}

// audit logs what a user did. It never gets data of an event.
func (s *Server) audit(c *call, what string, more ...any) {
	s.options.Logger.Info("Console", append([]any{"user", c.User, "did", what, "namespace", c.PathValue("namespace")}, more...)...)
}
