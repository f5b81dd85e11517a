package deliveries

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/apiserver"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

const marker = "Jane Doe's file"

// server is the dispatcher's handler over a store. User "all" may do all in clinic-a, and "viewer" may get and list there;
// "payload" may also read payloads.
type server struct {
	*httptest.Server
	feed *query.Feed
	sub  *delivery.Subscription
}

func (*server) AuthorizeUser(_ context.Context, user *authenticationv1.UserInfo, a apiserver.Access) error {
	reads := a.Verb == "get" || a.Verb == "list"
	switch {
	case a.Namespace != "clinic-a":
	case user.Username == "all", reads && a.Subresource == "", user.Username == "payload" && a.Subresource == "payload":
		return nil
	}
	return apiserver.ErrForbidden
}

func newServer(t *testing.T) *server {
	t.Helper()
	opened, err := pebble.Open("store", pebble.Options{Logger: logr.Discard(), FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{
		feed: query.NewFeed(opened, func(event.SubscriptionKey) (string, bool) { return "", false }),
		sub:  &delivery.Subscription{Key: event.NewSubscriptionKey("clinic-a"), Tenant: "uid-clinic-a", Name: "labs"},
	}
	asked, err := query.New(query.Options{Store: s.feed, Now: opened.Now, Resume: func([]delivery.PendingDelivery) {}})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := apiserver.New(apiserver.Options{
		Deliveries: asked, Feed: s.feed, Authorizer: s, Logger: logr.Discard(),
		Authenticate: func(r *http.Request) *authenticationv1.UserInfo {
			return &authenticationv1.UserInfo{Username: r.Header.Get("X-Remote-User")}
		},
		Tenant: func(_ context.Context, namespace, _ string) (string, bool, error) {
			return "uid-" + namespace, true, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(handler)
	t.Cleanup(func() {
		s.Close()
		s.feed.CloseFeed()
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// publish stores an event with one delivery, which is planned if there is a time.
func (s *server) publish(t *testing.T, id string, at time.Time) delivery.PendingDelivery {
	t.Helper()
	e := store.NewEvent{Digest: [16]byte{1}, Fanout: delivery.Fanout{
		Event: &delivery.Event{Tenant: s.sub.Tenant, ID: id, Type: "lab.created", Body: []byte(`{"data":"` + marker + `"}`)},
	}}
	if at.IsZero() {
		e.Subscriptions = []*delivery.Subscription{s.sub}
	} else {
		e.Plans = []store.Plan{{Subscription: s.sub, Timestamp: s.feed.Now(), Decision: plan.Decision{At: at}}}
	}
	_, fanouts, err := s.feed.Append(t.Context(), []store.NewEvent{e})
	if err != nil {
		t.Fatal(err)
	}
	if !at.IsZero() {
		return delivery.PendingDelivery{}
	}
	return fanouts[0].Delivery(s.sub)
}

// finish ends a delivery after one attempt.
func (s *server) finish(t *testing.T, d delivery.PendingDelivery, state delivery.State) {
	t.Helper()
	a := &delivery.Attempt{Number: 1, Started: s.feed.Now(), Duration: 20 * time.Millisecond, StatusCode: 204}
	if state == delivery.Failed {
		a.StatusCode, a.Reason = 500, delivery.ReasonStatusCode
	}
	if err := s.feed.Record(t.Context(), []delivery.Outcome{{Delivery: d, Attempt: a, State: state}}); err != nil {
		t.Fatal(err)
	}
}

// as is the API as one user.
func (s *server) as(t *testing.T, user string) *API {
	t.Helper()
	a, err := NewAPI(&rest.Config{Host: s.URL}, &http.Client{Transport: asUser{user, s.Client().Transport}}, None{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type asUser struct {
	name string
	next http.RoundTripper
}

func (u asUser) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Remote-User", u.name)
	return u.next.RoundTrip(r)
}

// TestAPIChanges: get, replay, cancel and send now, and what the API says when they are not possible.
func TestAPIChanges(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a, ctx := s.as(t, "all"), t.Context()
	one := s.publish(t, "one", time.Time{})
	id := one.ID.String()
	s.finish(t, one, delivery.Failed)
	got, err := a.Get(ctx, "clinic-a", id)
	if err != nil || got.ID != id || got.Namespace != "clinic-a" || got.Subscription != "labs" || got.EventID != "one" || got.EventType != "lab.created" ||
		got.State != Failed || got.Reason != "StatusCode" || got.AttemptCount != 1 || got.Created.IsZero() {
		t.Fatalf("got %+v, %v", got, err)
	}
	if len(got.Attempts) != 1 || got.Attempts[0].StatusCode != 500 || got.Attempts[0].Error != "StatusCode" || got.Attempts[0].Duration != 20*time.Millisecond || got.Attempts[0].Started.IsZero() {
		t.Errorf("got attempts %+v", got.Attempts)
	}
	if got, err := a.Replay(ctx, "clinic-a", id); err != nil || got.State != Pending || got.Next.IsZero() || got.Reason != "" {
		t.Errorf("replay: %+v, %v", got, err)
	}
	refused(t, "replay of a pending one", second(a.Replay(ctx, "clinic-a", id)), http.StatusConflict)
	if got, err := a.Cancel(ctx, "clinic-a", id); err != nil || got.State != Cancelled || got.Reason != "ByUser" {
		t.Errorf("cancel: %+v, %v", got, err)
	}
	refused(t, "cancel of a cancelled one", second(a.Cancel(ctx, "clinic-a", id)), http.StatusConflict)
	refused(t, "send now of a cancelled one", second(a.SendNow(ctx, "clinic-a", id)), http.StatusConflict)

	s.publish(t, "planned", s.feed.Now().Add(time.Hour))
	list, err := a.List(ctx, "clinic-a", Query{State: Scheduled})
	if err != nil || len(list.Items) != 1 || list.Items[0].Planned.IsZero() {
		t.Fatalf("scheduled: %+v, %v", list, err)
	}
	if got, err := a.SendNow(ctx, "clinic-a", list.Items[0].ID); err != nil || got.State != Pending {
		t.Errorf("send now: %+v, %v", got, err)
	}
	for what, err := range map[string]error{
		"get": second(a.Get(ctx, "clinic-a", "dlv_x")), "replay": second(a.Replay(ctx, "clinic-a", "dlv_x")), "payload": second(a.Payload(ctx, "clinic-a", "none")),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s of what is not there: %v", what, err)
		}
	}
	refused(t, "a test event without a dispatcher", third(a.Publish(ctx, "clinic-a", "lab.created", []byte("{}"))), http.StatusServiceUnavailable)
}

func second[T any](_ T, err error) error { return err }

func third[T, U any](_ T, _ U, err error) error { return err }

func refused(t *testing.T, what string, err error, status int) {
	t.Helper()
	if r, ok := errors.AsType[*Refused](err); !ok || r.Status != status || r.Message == "" {
		t.Errorf("%s: %v, want a refusal with %d", what, err, status)
	}
}

// TestAPIList: pages go on where the one before ended, and times narrow them, which the API itself does not know.
func TestAPIList(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	a, ctx := s.as(t, "viewer"), t.Context()
	var created []time.Time
	for i := range 7 {
		d := s.publish(t, "e"+strconv.Itoa(i), time.Time{})
		if i%2 == 0 {
			s.finish(t, d, delivery.Delivered)
		}
		one, err := a.Get(ctx, "clinic-a", d.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		created = append(created, one.Created)
	}
	for name, test := range map[string]struct {
		query Query
		want  string
	}{
		"all":                 {Query{}, "e6 e5 e4 e3 e2 e1 e0"},
		"pages":               {Query{Limit: 3}, "e6 e5 e4 | e3 e2 e1 | e0"},
		"by state":            {Query{State: Delivered, Limit: 2}, "e6 e4 | e2 e0"},
		"by subscription":     {Query{Subscription: "labs"}, "e6 e5 e4 e3 e2 e1 e0"},
		"by another one":      {Query{Subscription: "x,state=Failed"}, ""},
		"since":               {Query{Since: created[4], Limit: 2}, "e6 e5 | e4"},
		"until":               {Query{Until: created[2], Limit: 2}, "e2 e1 | e0"},
		"since and until":     {Query{Since: created[1], Until: created[4], Limit: 3}, "e4 e3 e2 | e1"},
		"until before all":    {Query{Until: created[0].Add(-time.Hour)}, ""},
		"since after all":     {Query{Since: created[6].Add(time.Hour)}, ""},
		"until in the future": {Query{Until: created[6].Add(time.Hour), Limit: 4}, "e6 e5 e4 e3 | e2 e1 e0"},
	} {
		t.Run(name, func(t *testing.T) {
			var pages []string
			for q := test.query; ; {
				list, err := a.List(ctx, "clinic-a", q)
				if err != nil {
					t.Fatal(err)
				}
				var ids []string
				for _, d := range list.Items {
					ids = append(ids, d.EventID)
				}
				if len(ids) > 0 {
					pages = append(pages, strings.Join(ids, " "))
				}
				if q.Continue = list.Continue; q.Continue == "" {
					break
				}
			}
			if got := strings.Join(pages, " | "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	refused(t, "another's token", second(a.List(ctx, "clinic-a", Query{Continue: "x"})), http.StatusBadRequest)
}

// TestAPIRights: what is missing has the name that a rule of RBAC has for it, and a payload needs a right of its own.
func TestAPIRights(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	viewer, ctx := s.as(t, "viewer"), t.Context()
	d := s.publish(t, "one", time.Time{})
	s.finish(t, d, delivery.Failed)
	id := d.ID.String()
	if body, err := s.as(t, "payload").Payload(ctx, "clinic-a", "one"); err != nil || !strings.Contains(string(body), marker) {
		t.Errorf("payload with the right: %q, %v", body, err)
	}
	for want, err := range map[string]error{
		"get webhookevents/payload clinic-a":        second(viewer.Payload(ctx, "clinic-a", "one")),
		"create webhookdeliveries/replay clinic-a":  second(viewer.Replay(ctx, "clinic-a", id)),
		"create webhookdeliveries/cancel clinic-a":  second(viewer.Cancel(ctx, "clinic-a", id)),
		"create webhookdeliveries/sendnow clinic-a": second(viewer.SendNow(ctx, "clinic-a", id)),
		"list webhookdeliveries clinic-b":           second(viewer.List(ctx, "clinic-b", Query{})),
		"get webhookdeliveries clinic-b":            second(viewer.Get(ctx, "clinic-b", id)),
	} {
		f, ok := errors.AsType[*Forbidden](err)
		if !ok || f.Verb+" "+f.Resource+" "+f.Namespace != want || f.Group != "deliveries.webhooks.clinikapi.com" {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := viewer.ReplayMany(ctx, "clinic-a", Query{State: Failed}); !strings.Contains(err.Error(), "create webhookdeliveries/replay") {
		t.Errorf("replay of many: %v", err)
	}
}

// TestAPIReplaysMany: all that match, whole pages at a time, and nothing twice.
func TestAPIReplaysMany(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]delivery.State{Failed: delivery.Failed, Delivered: delivery.Delivered} {
		s := newServer(t)
		const n = apiStep + 20
		for i := range n {
			s.finish(t, s.publish(t, "e"+strconv.Itoa(i), time.Time{}), state)
		}
		a := s.as(t, "all")
		steps := 0
		a.now = func() time.Time { steps++; return time.Unix(int64(steps)*10, 0) } // no time: a step is one page
		first, err := a.ReplayMany(t.Context(), "clinic-a", Query{State: name})
		if err != nil || first.Replayed != apiStep || first.Continue == "" {
			t.Fatalf("the first step: %+v, %v", first, err)
		}
		last, err := a.ReplayMany(t.Context(), "clinic-a", Query{State: name, Continue: first.Continue})
		if err != nil || last.Replayed != n-apiStep || last.Continue != "" {
			t.Errorf("the last step: %+v, %v", last, err)
		}
		pending, err := a.List(t.Context(), "clinic-a", Query{State: Pending, Limit: 1000})
		if err != nil || len(pending.Items) != n {
			t.Errorf("%d are on their way, want %d: %v", len(pending.Items), n, err)
		}
	}
}

// TestAPIServed: discovery says if there is the API; what else it answers is an error, which shows no address.
func TestAPIServed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	if served, err := s.as(t, "nobody").Served(t.Context()); !served || err != nil {
		t.Errorf("it is there: %v, %v", served, err)
	}
	for status, wantErr := range map[int]bool{404: false, 503: true, 401: true} {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "x", status) }))
		t.Cleanup(other.Close)
		a, err := NewAPI(&rest.Config{Host: other.URL}, other.Client(), None{})
		if err != nil {
			t.Fatal(err)
		}
		if served, err := a.Served(t.Context()); served || (err != nil) != wantErr {
			t.Errorf("%d: %v, %v", status, served, err)
		}
	}
	gone := s.as(t, "all")
	s.CloseClientConnections()
	s.Listener.Close()
	_, err := gone.List(t.Context(), "clinic-a", Query{Subscription: "labs", Key: "PHI"})
	if err == nil || slices.ContainsFunc([]string{"PHI", "fieldSelector", "http://"}, func(text string) bool { return strings.Contains(err.Error(), text) }) {
		t.Errorf("the error shows where it asked: %v", err)
	}
}
