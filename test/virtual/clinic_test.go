package virtual

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // as the product has it

	"github.com/go-logr/logr"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/routing/folder"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/test/kit/fakes"
	"github.com/clinikapi/eventflow/test/kit/samples"
)

// clock is the time of everything in a clinic.
type clock struct {
	begin time.Time

	mu sync.Mutex
	at time.Duration // since then
}

// now is the time. It goes on by a nanosecond with each look: no two events are accepted at the same, and the later one
// would be due in a future that does not come.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at++
	return c.begin.Add(c.at)
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = max(c.at, at.Sub(c.begin))
}

// clinic is a tenant with automations, the providers that they call, and the dispatchers between them.
type clinic struct {
	*testing.T
	*fakes.Clinic
	clock *clock
	table *routing.Table
	nodes []*node // those that run; the first takes requests
	watch func(store.Store) store.Store
}

const root = "../../config/samples/automations"

// newClinic applies folders of the samples as they stand. at is the local time in New York at which the clock begins.
func newClinic(t *testing.T, at string, folders ...string) *clinic {
	t.Helper()
	c := &clinic{T: t, clock: &clock{begin: local(t, at)}}
	c.Clinic = fakes.NewClinic(t, c.clock.now)
	var manifests []string
	for _, name := range folders {
		manifests = append(manifests, samples.Read(t, root, name, c.Setting(samples.Namespace)))
	}
	c.apply(strings.Join(manifests, "\n---\n"))
	return c
}

// apply makes a routing table of manifests.
func (c *clinic) apply(manifests string) {
	c.Helper()
	dir := c.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(manifests), 0o600); err != nil {
		c.Fatal(err)
	}
	catalog, err := event.NewCatalog()
	if err != nil {
		c.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
	defer cancel()
	source := folder.New(folder.Config{Dir: dir, Policy: routing.Policy{Catalog: catalog, AllowHTTP: true}, Log: logr.Discard()})
	if err := source.Run(ctx, func(table *routing.Table) { c.table = table; cancel() }); err != nil {
		c.Fatal(err)
	}
	if c.table == nil || len(c.table.Problems) > 0 {
		c.Fatalf("the samples are not accepted: %v", c.table)
	}
}

// local is a time of day in New York, such as 2026-03-02 10:00.
func local(t testing.TB, text string) time.Time {
	t.Helper()
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.ParseInLocation("2006-01-02 15:04", text, zone)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// shown is a time as local takes it.
func shown(t testing.TB, at time.Time) string {
	return at.In(local(t, "2026-01-01 00:00").Location()).Format("2006-01-02 15:04")
}

// view is a delivery as the API shows it.
type view struct {
	ID, Subscription, State, Reason, PlannedTime, NextAttemptTime string
	AttemptCount                                                  int
	Event                                                         struct{ ID string }
}

func (v view) due(c *clinic) time.Time {
	at, err := time.Parse(time.RFC3339, v.NextAttemptTime)
	if err != nil {
		c.Fatal(err)
	}
	if v.AttemptCount > 0 { // with jitter, of which the API shows milliseconds
		at = at.Add(time.Millisecond)
	}
	return at
}

// ask sends a request to a node, and decodes the answer.
func (c *clinic) ask(n *node, method, path, body string, want int, into any) {
	c.Helper()
	w := n.do(c.Context(), method, path, body)
	if w.Code != want {
		c.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	if into != nil {
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			c.Fatal(err)
		}
	}
}

func (n *node) do(ctx context.Context, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, "/v1/namespaces/"+samples.Namespace+path, strings.NewReader(body))
	r.Host = "127.0.0.1:8080"
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	n.handler.ServeHTTP(w, r)
	return w
}

// event publishes one.
func (c *clinic) event(kind string, data map[string]any) {
	c.Helper()
	text, err := json.Marshal(map[string]any{"type": kind, "data": data})
	if err != nil {
		c.Fatal(err)
	}
	c.ask(c.nodes[0], http.MethodPost, "/events", string(text), http.StatusAccepted, nil)
	c.settle()
}

// list returns the deliveries in a state; of all subscriptions if there is no name.
func (c *clinic) list(subscription, state string) []view {
	c.Helper()
	query := "?limit=1000&state=" + state
	if subscription != "" {
		query += "&subscription=" + subscription
	}
	var list struct{ Items []view }
	c.ask(c.nodes[0], http.MethodGet, "/deliveries"+query, "", http.StatusOK, &list)
	return list.Items
}

// settle waits until nothing is due any more.
func (c *clinic) settle() {
	c.Helper()
	now := c.clock.now()
	c.eventually(func() error {
		c.kick()
		for _, d := range c.list("", "Pending") {
			if !d.due(c).After(now) {
				return fmt.Errorf("at %s, %+v is due", shown(c, now), d)
			}
		}
		return nil
	})
}

// kick makes the engines look at what is due. By itself an engine has a timer, which is one of real time.
func (c *clinic) kick() {
	now := c.clock.now()
	for _, n := range c.nodes {
		for route := range c.table.All() {
			n.engine.Notice(delivery.Backlog{Subscription: route.Key, Due: now})
		}
	}
}

// until lets the time pass. The clock stops at each moment at which something is due, so that it goes then.
func (c *clinic) until(at string) {
	c.Helper()
	end := local(c, at)
	for {
		next := end
		for _, d := range append(c.list("", "Scheduled"), c.list("", "Pending")...) {
			if due := d.due(c); due.Before(next) {
				next = due
			}
		}
		if next.After(c.clock.now()) {
			c.early(next.Add(-time.Second))
			c.clock.set(next)
		}
		c.settle()
		if !next.Before(end) {
			return
		}
	}
}

// early checks that nothing goes a moment before it is due.
func (c *clinic) early(at time.Time) {
	c.Helper()
	if !at.After(c.clock.now()) {
		return
	}
	before := len(c.requests())
	c.clock.set(at)
	c.settle()
	if after := len(c.requests()); after != before {
		c.Errorf("at %s something goes that is not due", shown(c, at))
	}
}

// eventually polls check for up to a minute of real time.
func (c *clinic) eventually(check func() error) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			c.Fatalf("%v; at last: %v", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// requests are those that any provider got.
func (c *clinic) requests() []fakes.Request {
	all := c.Twilio.All()
	for _, p := range []*fakes.Provider{c.Slack.Provider, c.Postmark.Provider, c.Clinik.Provider, c.Billing.Provider, c.Pharmacy.Provider} {
		all = append(all, p.All()...)
	}
	return all
}
