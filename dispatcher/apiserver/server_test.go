package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/cockroachdb/pebble/v2/vfs"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/query"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

const secret = "Jane Doe's file"

var whd = v1alpha1.GroupVersion.WithResource(v1alpha1.ResourceDeliveries)

// fixture is a server over a store of its own. User "a" may do all in clinic-a, "viewer" may get, list and watch there and
// has no right to payloads; nobody else may do anything.
type fixture struct {
	*httptest.Server
	feed   *query.Feed
	memory *budget.Budget

	mu      sync.Mutex
	resumed int
}

func (f *fixture) AuthorizeUser(_ context.Context, user *authenticationv1.UserInfo, a Access) error {
	reads := slices.Contains([]string{"get", "list", "watch"}, a.Verb) && a.Subresource == ""
	if a.Namespace == "clinic-a" && (user.Username == "a" || user.Username == "viewer" && reads) {
		return nil
	}
	return ErrForbidden
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureOf(t, nil)
}

// newFixtureOf is newFixture whose users may do what the authorizer says; nil is the fixture itself.
func newFixtureOf(t *testing.T, authorizer Authorizer) *fixture {
	t.Helper()
	opened, err := pebble.Open("store", pebble.Options{Logger: logr.Discard(), FS: vfs.NewMem(), FreeReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{memory: budget.New(4 << 20), feed: query.NewFeed(opened, func(event.SubscriptionKey) (string, bool) { return "", false })}
	deliveries, err := query.New(query.Options{Store: f.feed, Now: opened.Now, Resume: func([]delivery.PendingDelivery) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.resumed++
	}})
	if err != nil {
		t.Fatal(err)
	}
	if authorizer == nil {
		authorizer = f
	}
	server, err := New(Options{
		Deliveries: deliveries, Feed: f.feed, Authorizer: authorizer, Memory: f.memory, MaxEventBytes: func() int { return 64 << 10 }, Logger: logr.Discard(),
		Authenticate: func(r *http.Request) *authenticationv1.UserInfo {
			if name := r.Header.Get("X-Remote-User"); name != "" {
				return &authenticationv1.UserInfo{Username: name}
			}
			return nil
		},
		Tenant: func(_ context.Context, namespace, _ string) (string, bool, error) {
			return "uid-" + namespace, true, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Server = httptest.NewServer(server)
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
		f.feed.CloseFeed()
		if used := f.memory.Used(); used != 0 {
			t.Errorf("%d bytes are still charged", used)
		}
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// publish stores an event with one delivery.
func (f *fixture) publish(t *testing.T, namespace, id string) delivery.PendingDelivery {
	t.Helper()
	sub := &delivery.Subscription{Key: event.NewSubscriptionKey(namespace), Tenant: "uid-" + namespace, Name: "labs"}
	e := store.NewEvent{Digest: [16]byte{1}, Fanout: delivery.Fanout{
		Event:         &delivery.Event{Tenant: sub.Tenant, ID: id, Type: "lab.created", Body: []byte(`{"data":"` + secret + `"}`)},
		Subscriptions: []*delivery.Subscription{sub},
	}}
	_, fanouts, err := f.feed.Append(t.Context(), []store.NewEvent{e})
	if err != nil || len(fanouts) != 1 {
		t.Fatal(fanouts, err)
	}
	return fanouts[0].Delivery(sub)
}

// finish ends a delivery after one attempt.
func (f *fixture) finish(t *testing.T, d delivery.PendingDelivery, state delivery.State) {
	t.Helper()
	a := &delivery.Attempt{Number: 1, Started: f.feed.Now(), Duration: time.Millisecond, StatusCode: 204}
	if state == delivery.Failed {
		a.StatusCode, a.Reason = 500, delivery.ReasonStatusCode
	}
	if err := f.feed.Record(t.Context(), []delivery.Outcome{{Delivery: d, Attempt: a, State: state}}); err != nil {
		t.Fatal(err)
	}
}

// config is a client's that is a user, as kube-apiserver would pass it on.
func (f *fixture) config(user string) *rest.Config {
	return &rest.Config{Host: f.URL, QPS: -1, WrapTransport: func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Header.Set("X-Remote-User", user)
			return next.RoundTrip(r)
		})
	}}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (f *fixture) client(t *testing.T, user string) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(f.config(user))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// do sends a request and returns the answer's status and body.
func (f *fixture) do(t *testing.T, user, method, path string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, f.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Remote-User", user)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	answer, err := f.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(30 * time.Second); ; {
		if condition() {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("did not happen: " + what)
		}
	}
}

// TestInformer: client-go's informer sees what is there, each change, and a replay, and lists once.
func TestInformer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 3 {
		f.publish(t, "clinic-a", fmt.Sprintf("before-%d", i))
	}
	f.publish(t, "clinic-b", "other")
	client := f.client(t, "a")
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, "clinic-a", nil)
	informer := factory.ForResource(whd).Informer()
	var mu sync.Mutex
	added := map[string]int{}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(object any) {
		mu.Lock()
		defer mu.Unlock()
		added[object.(*unstructured.Unstructured).GetName()]++
	}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer stop()
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		t.Fatal("the informer did not begin")
	}
	if n := len(informer.GetStore().List()); n != 3 {
		t.Fatalf("the informer has %d", n)
	}
	state := func(name string) string {
		object, ok, _ := informer.GetStore().GetByKey("clinic-a/" + name)
		if !ok {
			return ""
		}
		text, _, _ := unstructured.NestedString(object.(*unstructured.Unstructured).Object, "status", "state")
		return text
	}
	d := f.publish(t, "clinic-a", "after")
	name := d.ID.String()
	eventually(t, "the new one is pending", func() bool { return state(name) == "Pending" })
	f.finish(t, d, delivery.Failed)
	eventually(t, "it has failed", func() bool { return state(name) == "Failed" })
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": v1alpha1.GroupVersion.String(), "kind": "ReplayOptions"}}
	object.SetName(name)
	if _, err := client.Resource(whd).Namespace("clinic-a").Create(t.Context(), object, metav1.CreateOptions{}, "replay"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is pending again", func() bool { return state(name) == "Pending" })
	if f.resumed != 1 {
		t.Errorf("the engine got %d", f.resumed)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(added) != 4 {
		t.Errorf("added %v", added)
	}
	for name, n := range added {
		if n != 1 {
			t.Errorf("%s was added %d times", name, n)
		}
	}
}

// TestWatchOfAState: what enters the selection is added, what leaves it is deleted, and nothing else is told.
func TestWatchOfAState(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	client := f.client(t, "viewer").Resource(whd).Namespace("clinic-a")
	list, err := client.List(t.Context(), metav1.ListOptions{FieldSelector: "state=Failed"})
	if err != nil || len(list.Items) != 0 {
		t.Fatal(list, err)
	}
	watching, err := client.Watch(t.Context(), metav1.ListOptions{FieldSelector: "state=Failed", ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer watching.Stop()
	f.finish(t, f.publish(t, "clinic-a", "good"), delivery.Delivered)
	bad := f.publish(t, "clinic-a", "bad")
	f.finish(t, bad, delivery.Failed)
	f.finish(t, f.publish(t, "clinic-b", "other"), delivery.Failed)
	first := <-watching.ResultChan()
	if object, ok := first.Object.(*unstructured.Unstructured); !ok || first.Type != "ADDED" || object.GetName() != bad.ID.String() {
		t.Fatalf("got %+v", first)
	}
	if _, err := f.feed.Replay(t.Context(), "uid-clinic-a", bad.ID); err != nil {
		t.Fatal(err)
	}
	if next := <-watching.ResultChan(); next.Type != "DELETED" {
		t.Errorf("got %+v", next)
	}
}

// TestNothingOfAnotherNamespace: a viewer of A sees no byte of B by any verb, page, token, watch, count or error.
func TestNothingOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.publish(t, "clinic-a", "mine")
	theirs := f.publish(t, "clinic-b", "evt-of-b")
	for range 2 {
		f.publish(t, "clinic-b", fmt.Sprint("more-", time.Now().UnixNano()))
	}
	b := versionPath + "/namespaces/clinic-b/"
	name := theirs.ID.String()
	for _, request := range [][2]string{
		{"GET", b + "webhookdeliveries"}, {"GET", b + "webhookdeliveries?watch=true"}, {"GET", b + "webhookdeliveries?limit=1"}, {"GET", b + "webhookdeliveries?fieldSelector=nonsense"},
		{"GET", b + "webhookdeliveries/" + name}, {"GET", b + "webhookdeliveries/dlv_none"}, {"POST", b + "webhookdeliveries/" + name + "/replay"},
		{"POST", b + "webhookdeliveries/" + name + "/cancel"}, {"POST", b + "webhookdeliveries/" + name + "/sendnow"}, {"DELETE", b + "webhookdeliveries/" + name},
		{"GET", b + "webhookevents"}, {"GET", b + "webhookevents/evt-of-b"}, {"GET", b + "webhookevents/evt-of-b/payload"},
		{"GET", versionPath + "/webhookdeliveries"}, {"GET", versionPath + "/webhookdeliveries?watch=true"},
	} {
		code, body := f.do(t, "viewer", request[0], request[1])
		if code != http.StatusForbidden || strings.Contains(body, secret) || strings.Contains(body, "labs") {
			t.Errorf("%s %s: got %d %s", request[0], request[1], code, body)
		}
	}
	a := versionPath + "/namespaces/clinic-a/"
	for path, want := range map[string]int{
		"webhookdeliveries/" + name: 404, "webhookevents/evt-of-b": 404, "webhookdeliveries?fieldSelector=metadata.name%3D" + name: 200,
		"webhookdeliveries?fieldSelector=event.id%3Devt-of-b": 200, "webhookdeliveries?fieldSelector=metadata.namespace%3Dclinic-b": 200,
	} {
		code, body := f.do(t, "viewer", "GET", a+path)
		if code != want || strings.Contains(body, `"uid"`) {
			t.Errorf("%s: got %d %s", path, code, body)
		}
	}
	var page v1alpha1.WebhookDeliveryList
	_, body := f.do(t, "viewer", "GET", a+"webhookdeliveries")
	if err := json.Unmarshal([]byte(body), &page); err != nil || len(page.Items) != 1 || page.RemainingItemCount != nil {
		t.Errorf("got %s, %v", body, err)
	}
	other, err := query.New(query.Options{Store: f.feed, Resume: func([]delivery.PendingDelivery) {}})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.List(t.Context(), query.Selection{Tenant: "uid-clinic-b", LastAttempt: true}, 1)
	if err != nil || foreign.Continue == "" {
		t.Fatal(foreign, err)
	}
	if code, body := f.do(t, "viewer", "GET", a+"webhookdeliveries?continue="+foreign.Continue); code != 400 {
		t.Errorf("another namespace's token: got %d %s", code, body)
	}
	if code, _ := f.do(t, "viewer", "GET", a+"webhookevents/mine/payload"); code != 403 {
		t.Errorf("payload without the right: got %d", code)
	}
	if code, body := f.do(t, "a", "GET", a+"webhookevents/mine/payload"); code != 200 || !strings.Contains(body, secret) {
		t.Errorf("payload with the right: got %d %s", code, body)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	d := f.publish(t, "clinic-a", "one")
	one := "webhookdeliveries/" + d.ID.String()
	ended := f.publish(t, "clinic-a", "two")
	f.finish(t, ended, delivery.Delivered)
	two := "webhookdeliveries/" + ended.ID.String()
	for name, tc := range map[string]struct {
		user, method, path, accept string
		want                       metav1.StatusReason
		code                       int
	}{
		"no front proxy":      {"", "GET", "webhookdeliveries", "", metav1.StatusReasonUnauthorized, 401},
		"no such delivery":    {"a", "GET", "webhookdeliveries/dlv_x", "", metav1.StatusReasonNotFound, 404},
		"no such resource":    {"a", "GET", "webhooks", "", metav1.StatusReasonNotFound, 404},
		"delete":              {"a", "DELETE", one, "", metav1.StatusReasonMethodNotAllowed, 405},
		"delete of all":       {"a", "DELETE", "webhookdeliveries", "", metav1.StatusReasonMethodNotAllowed, 405},
		"create":              {"a", "POST", "webhookdeliveries", "", metav1.StatusReasonMethodNotAllowed, 405},
		"watch of events":     {"a", "GET", "webhookevents?watch=true", "", metav1.StatusReasonMethodNotAllowed, 405},
		"protobuf":            {"a", "GET", one, "application/vnd.kubernetes.protobuf", metav1.StatusReasonNotAcceptable, 406},
		"replay of a pending": {"a", "POST", one + "/replay", "", metav1.StatusReasonConflict, 409},
		"sendnow of an ended": {"a", "POST", two + "/sendnow", "", metav1.StatusReasonConflict, 409},
		"cancel of an ended":  {"a", "POST", two + "/cancel", "", metav1.StatusReasonConflict, 409},
		"old version":         {"a", "GET", "webhookdeliveries?watch=true&resourceVersion=1", "", metav1.StatusReasonExpired, 410},
		"field":               {"a", "GET", "webhookdeliveries?fieldSelector=status.phase%3Dx", "", metav1.StatusReasonInvalid, 422},
		"labels":              {"a", "GET", "webhookdeliveries?labelSelector=a%3Db", "", metav1.StatusReasonInvalid, 422},
		"state":               {"a", "GET", "webhookdeliveries?fieldSelector=state%3DLost", "", metav1.StatusReasonBadRequest, 400},
		"token":               {"a", "GET", "webhookdeliveries?continue=x", "", metav1.StatusReasonBadRequest, 400},
	} {
		t.Run(name, func(t *testing.T) {
			code, body := f.do(t, tc.user, tc.method, versionPath+"/namespaces/clinic-a/"+tc.path, "Accept: "+tc.accept)
			var status metav1.Status
			if err := json.Unmarshal([]byte(body), &status); err != nil || code != tc.code || status.Kind != "Status" {
				t.Fatalf("got %d %s, %v", code, body, err)
			}
			if reason := apierrors.ReasonForError(&apierrors.StatusError{ErrStatus: status}); reason != tc.want {
				t.Errorf("got %s, want %s", reason, tc.want)
			}
		})
	}
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	client, err := discovery.NewDiscoveryClientForConfig(&rest.Config{Host: f.URL}) // nobody
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list.APIResources {
		if slices.Contains(r.Verbs, "delete") || slices.Contains(r.Verbs, "deletecollection") {
			t.Errorf("%s can be deleted: the deletion of namespaces would ask for that", r.Name)
		}
	}
	if len(list.APIResources) != len(verbs) {
		t.Errorf("got %d resources", len(list.APIResources))
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.finish(t, f.publish(t, "clinic-a", "one"), delivery.Failed)
	code, body := f.do(t, "viewer", "GET", versionPath+"/namespaces/clinic-a/webhookdeliveries?limit=500", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	var table metav1.Table
	if err := json.Unmarshal([]byte(body), &table); err != nil || code != 200 || len(table.Rows) != 1 {
		t.Fatalf("got %d %s, %v", code, body, err)
	}
	cells := table.Rows[0].Cells
	if cells[1] != "Failed" || cells[2] != "lab.created" || cells[3] != "labs" || cells[4] != float64(1) || cells[5] == "" || cells[6] != "" || cells[8] != "StatusCode" {
		t.Errorf("got %v", cells)
	}
}
